"""Read the declaration of a foreign environment: an id, a TOML file or a Python file."""

from __future__ import annotations

import dataclasses
import importlib.util
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm.envs.foreign.make import require_known
from wm.envs.foreign.world import ForeignWorld, Goal, Proprio
from wm.errors import BadInputError, UnknownNameError

_TEXT, _WHOLE, _NUMBER, _TABLE = "text", "a whole number", "a number", "a table"
_TEXTS, _WHOLES = "a list of texts", "a list of whole numbers"
_FIELDS = {
    "": {
        "id": _TEXT,
        "name": _TEXT,
        "frameskip": _WHOLE,
        "repeat": _WHOLE,
        "control_hz": _NUMBER,
        "kwargs": _TABLE,
        "proprio": _TABLE,
        "goal": _TABLE,
        "hide": _TEXTS,
        "camera": _TABLE,
    },
    "proprio": {"keys": _TEXTS, "names": _TEXTS},
    "goal": {"of": _TEXTS, "tolerance": _NUMBER, "angles": _WHOLES},
}
_NEEDED = {"": ("id",), "proprio": (), "goal": ("of", "tolerance")}


def load_world(text: str) -> ForeignWorld:
    """The world that a text names.

    Args:
        text: A Gymnasium id, ``"module:Id"`` or ``"Id"``; or the path of a ``.toml`` or ``.py`` declaration. Nothing is
            executed but the named module and the named Python file.

    Raises:
        BadInputError: no such environment, module or file; or a declaration that cannot be read, has an unknown
            field or a wrong value.
    """
    if text.endswith(".toml"):
        world = _from_toml(Path(text))
    elif text.endswith(".py"):
        world = _from_python(Path(text))
    else:
        world = ForeignWorld(text)
    require_known(world.id)
    return world


def _from_toml(path: Path) -> ForeignWorld:
    try:
        data = tomllib.loads(_existing(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: not a TOML file: {error}.") from error
    try:
        fields = _checked("", data)
        if "proprio" in fields:
            fields["proprio"] = Proprio(**_checked("proprio", fields["proprio"]))
        if "goal" in fields:
            fields["goal"] = Goal(**_checked("goal", fields["goal"]))
        return ForeignWorld(**fields, source=str(path.resolve()))
    except (BadInputError, UnknownNameError) as error:
        raise BadInputError(f"{path}: {error}") from error


def _from_python(path: Path) -> ForeignWorld:
    """Run the file, which is the user's own, and take its `world`."""
    spec = importlib.util.spec_from_file_location(f"wm_declaration_{path.stem}", _existing(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may fail in any way
        reason = str(error).splitlines()[0] if str(error) else ""
        raise BadInputError(f"{path}: {type(error).__name__}: {reason}") from error
    world = getattr(module, "world", None)
    if not isinstance(world, ForeignWorld):
        raise BadInputError(f"{path}: expected 'world = ForeignWorld(...)', came {type(world).__name__}.")
    return dataclasses.replace(world, source=str(path.resolve()))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise BadInputError(f"{path}: no such declaration.")
    return path


def _checked(table: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The table's fields, known and of the right type, lists as tuples."""
    dot, fields = f"{table}." if table else "", _FIELDS[table]
    checked = {}
    for name, value in data.items():
        if name not in fields:
            raise UnknownNameError("field of a declaration", f"{dot}{name}", [dot + known for known in fields])
        if not _is(fields[name], value):
            raise BadInputError(f"{dot}{name}: expected {fields[name]}, came {value!r}.")
        checked[name] = tuple(value) if isinstance(value, list) else float(value) if fields[name] == _NUMBER else value
    for name in _NEEDED[table]:  # last, so that a misspelt field is called that
        if name not in data:
            raise BadInputError(f"{dot}{name}: expected {fields[name]}, came nothing.")
    return checked


def _is(kind: str, value: Any) -> bool:
    if kind in (_TEXTS, _WHOLES):
        return isinstance(value, list) and all(_is(_TEXT if kind == _TEXTS else _WHOLE, each) for each in value)
    if kind == _TABLE:
        return isinstance(value, dict)
    if kind == _TEXT:
        return isinstance(value, str)
    return isinstance(value, int if kind == _WHOLE else int | float) and not isinstance(value, bool)
