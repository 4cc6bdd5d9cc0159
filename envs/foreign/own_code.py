"""Errors of code that is not ours, a declaration's or an environment's: one line that says whose it was."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wm.errors import BadInputError, WmError

_MOST = 300  # characters of a foreign error's text


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Whatever the code inside raises becomes ``"WHAT: KIND: TEXT"``; our own errors pass, and so does Ctrl-C.

    Args:
        what: Whose code it is, e.g. ``"world.py: is_success"``.

    Raises:
        BadInputError: the code inside raised.
    """
    try:
        yield
    except WmError:
        raise
    except Exception as error:  # foreign code may fail in any way
        raise BadInputError(f"{what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """An error's kind and text on one line; of one without a text the line that raised it."""
    return f"{type(error).__name__}: {one_line(str(error), _MOST) or _raised_at(error)}"


def one_line(text: str, most: int = 100) -> str:
    """The text without line breaks, cut to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _raised_at(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return one_line(f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line or 'no text'}", _MOST)
