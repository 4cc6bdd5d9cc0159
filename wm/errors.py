"""Errors that say what was wrong, what was expected and what came.

Every error a user can cause derives from `WmError`. The command line prints its message on one line and exits
with code 2; anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class WmError(Exception):
    """Base of all errors that a user's input, files or machine can cause; it crosses processes with its message."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_message, (type(self), self.args)


def _with_message(kind: type[WmError], arguments: tuple[object, ...]) -> WmError:
    """An error as it was raised: its message, not what the message was made of."""
    return kind.__new__(kind, *arguments)


class UnknownNameError(WmError):
    """A name that is not in a registry.

    Args:
        kind: What the name stands for, e.g. ``"planner"``.
        name: The name that came.
        known: Names that would have been valid.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"unknown {kind} '{name}'.{hint} Known: {', '.join(known) or 'none'}.")


class MismatchError(WmError):
    """Two specifications that have to agree do not.

    Args:
        what: The quantity, e.g. ``"model of another environment: env"``.
        expected: Its value here.
        came: The value that came.
        where: The file or object that carries the value that came.
    """

    def __init__(self, what: str, expected: object, came: object, where: object = "") -> None:
        place = f" in {where}" if where else ""
        super().__init__(f"{what}{place}: expected {expected}, came {came}.")


class BadInputError(WmError):
    """A value or file whose content cannot be used: NaN, wrong shape, wrong range, broken picture."""


class StoreError(WmError):
    """An episode store that is missing, truncated, corrupt, or cannot be written."""


class CheckpointError(WmError):
    """A model file that is missing, truncated, or not what its header says."""


class RobotError(WmError):
    """A robot that cannot be reached, does not answer, or refuses."""
