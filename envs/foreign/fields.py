"""The types of a declaration's fields, the same for one in TOML and one in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from wm.envs.foreign.own_code import one_line
from wm.errors import BadInputError

TEXT, WHOLE, NUMBER, TABLE, FUNCTION = "text", "a whole number", "a number", "a table", "a function"
TEXTS, WHOLES, NUMBERS = "a list of texts", "a list of whole numbers", "a list of numbers"

Kind = str | type
"""One of the above, or a class."""

_IS: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda value: isinstance(value, str),
    WHOLE: lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    NUMBER: lambda value: isinstance(value, Real) and not isinstance(value, bool),
    TABLE: lambda value: isinstance(value, Mapping),
    FUNCTION: callable,
}
_EACH = {TEXTS: TEXT, WHOLES: WHOLE, NUMBERS: NUMBER}
_FORM: dict[Kind, Callable[[Any], Any]] = {WHOLE: int, NUMBER: float}


def check_fields(declared: Any, prefix: str = "") -> None:
    """Refuse a value of a wrong type, and bring the others into one form: lists as tuples, numbers as Python's.

    Args:
        declared: A frozen dataclass with `KINDS`, field to kind; a value left at its default is right.
        prefix: What messages put before a field's name, e.g. ``"goal."``.

    Raises:
        BadInputError: a value of a wrong type.
    """
    defaults = {each.name: each.default for each in dataclasses.fields(declared)}
    for name, kind in declared.KINDS.items():
        value = getattr(declared, name)
        if value is not defaults[name]:
            object.__setattr__(declared, name, checked(prefix + name, kind, value))


def checked(what: str, kind: Kind, value: Any) -> Any:
    """The value in the one form of its kind.

    Raises:
        BadInputError: it is of another kind.
    """
    if not _is(kind, value):
        expected = kind if isinstance(kind, str) else f"{kind.__name__}(...)"
        raise BadInputError(f"{what}: expected {expected}, came {one_line(repr(value))}.")
    if kind in _EACH:
        return tuple(checked(what, _EACH[kind], each) for each in value)
    return _FORM[kind](value) if kind in _FORM else value


def _is(kind: Kind, value: Any) -> bool:
    if isinstance(kind, type):
        return isinstance(value, kind)
    if kind in _EACH:
        return isinstance(value, list | tuple) and all(_is(_EACH[kind], each) for each in value)
    return _IS[kind](value)
