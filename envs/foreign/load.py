"""Read the declaration of a foreign environment: an id, a TOML file or a Python file."""

from __future__ import annotations

import dataclasses
import importlib.util
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wm.envs.foreign.fields import FUNCTION, TABLE, checked
from wm.envs.foreign.make import require_known
from wm.envs.foreign.own_code import own_code
from wm.envs.foreign.world import ForeignWorld, Goal, Proprio
from wm.errors import BadInputError, UnknownNameError, WmError


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
    with _named(path):
        for name, kind in (("proprio", Proprio), ("goal", Goal)):
            if name in data:
                data[name] = kind(**_complete(kind, f"{name}.", checked(name, TABLE, data[name])))
        return ForeignWorld(**_complete(ForeignWorld, "", data), source=str(path.resolve()))


def _from_python(path: Path) -> ForeignWorld:
    """Run the file, which is the user's own, and take its `world`."""
    spec = importlib.util.spec_from_file_location(f"wm_declaration_{path.stem}", _existing(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with own_code(str(path)), _named(path):
        spec.loader.exec_module(module)
    world = getattr(module, "world", None)
    if not isinstance(world, ForeignWorld):
        raise BadInputError(f"{path}: expected 'world = ForeignWorld(...)', came {type(world).__name__}.")
    return dataclasses.replace(world, source=str(path.resolve()))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise BadInputError(f"{path}: no such declaration.")
    return path


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is wrong with a declaration is said with its file's name."""
    try:
        yield
    except WmError as error:
        raise BadInputError(f"{path}: {error}") from error


def _complete(declared: type[Proprio | Goal | ForeignWorld], prefix: str, data: dict[str, Any]) -> dict[str, Any]:
    """The table's fields, all known, none missing, each of the type that the dataclass wants."""
    kinds = {name: kind for name, kind in declared.KINDS.items() if kind != FUNCTION}
    for name in data:
        if name not in kinds:
            raise UnknownNameError("field of a declaration", prefix + name, [prefix + known for known in kinds])
    for each in dataclasses.fields(declared):  # last, so that a misspelt field is called that
        needed = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        if needed and each.name not in data:
            raise BadInputError(f"{prefix}{each.name}: expected {kinds[each.name]}, came nothing.")
    return {name: checked(prefix + name, kinds[name], value) for name, value in data.items()}
