"""The `wm` command: one file per subcommand, one place where errors become one line and exit code 2."""

from __future__ import annotations

import signal
import sys
import threading
from importlib import import_module

import typer

from wm.errors import WmError

COMMANDS = {
    "demo": "demo",
    "goal": "goal",
    "plan": "plan",
    "eval": "evaluate",
    "control": "control",
    "collect": "collect",
    "pretrain": "pretrain",
    "refine": "refine",
    "encode": "encode",
    "train": "train",
    "correct": "correct",
    "build": "build",
    "bench": "bench",
}
"""Subcommand to the module in `wm.experiments` whose `main` it is, in the order of `wm --help`."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as the shell's."""


def build_app() -> typer.Typer:
    """The Typer application with every subcommand."""
    app = typer.Typer(
        help="Learn a latent world model from logs, show it a picture of the goal, and it moves the robot there.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, module in COMMANDS.items():
        app.command(name)(import_module(f"wm.experiments.{module}").main)
    return app


def main() -> None:
    """Entry point of `wm`.

    Exit codes: 0 done, 1 a quality bar was missed, 2 bad input or a machine that refuses (one line on stderr),
    130 interrupted, by Ctrl-C or by SIGTERM, which does the same.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = build_app()(sys.argv[1:] or ["--help"], standalone_mode=False)  # raises where else it would print a box
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except typer.exceptions.TyperException as error:  # usage: an unknown option, a word where a number belongs, ...
        context = getattr(error, "ctx", None)
        _fail(error.format_message() + ("" if context is None else f" (see `{context.command_path} --help`)"))
    except WmError as error:
        _fail(str(error))
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        _fail(f"the system refused{place}: {error.strerror or error}.")
    except KeyboardInterrupt:
        print("wm: interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _interrupt(*_: object) -> None:
    """What Ctrl-C does; also where a shell has it ignored, as it has for whatever a script starts in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _fail(message: str) -> None:
    print(f"wm: error: {' '.join(message.split())}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(2)
