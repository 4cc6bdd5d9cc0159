"""Start a study from the command line, and end it with a verdict."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from wm.errors import WmError

MISSED = 3
"""Exit code of a study that was done and missed its bar; 1 is a traceback's."""


def launch(main: Callable[..., None]) -> None:
    """Run it with the command line's options; what a user can cause is one line on stderr and exit code 2."""
    try:
        typer.run(main)
    except (WmError, OSError) as error:
        print(f"wm: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def judge(met: bool) -> NoReturn:
    """End a study: exit code 0, or `MISSED`."""
    raise typer.Exit(0 if met else MISSED)
