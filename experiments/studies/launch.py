"""Start a study from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from wm.errors import WmError


def launch(main: Callable[..., None]) -> None:
    """Run it with the command line's options; what a user can cause is one line on stderr and exit code 2."""
    try:
        typer.run(main)
    except WmError as error:
        print(f"wm: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
