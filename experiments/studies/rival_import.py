"""Imports out of a folder with somebody else's repository, without leaving a trace in this process."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from wm.errors import BadInputError


def require(option: str, folder: Path, files: tuple[str, ...], packages: tuple[str, ...]) -> None:
    """Refuse a folder without these files, or a machine without these packages.

    Raises:
        BadInputError: names the option and what is missing.
    """
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise BadInputError(f"{option} {folder}: expected the rival's repository, {', '.join(missing)} is missing.")
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise BadInputError(f"{option} {folder}: its code needs {', '.join(absent)}: pip install {' '.join(absent)}.")


def revision(folder: Path) -> str | None:
    """The commit that is checked out there; None where the folder is no git repository's own one."""
    about = ["git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        said = subprocess.run(about, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return said[1] if Path(said[0]) == folder.resolve() else None


@contextlib.contextmanager
def importing(folder: Path, names: tuple[str, ...], stand_ins: dict[str, ModuleType]) -> Iterator[None]:
    """Imports from the folder first; its modules and the stand-ins are forgotten afterwards.

    Raises:
        BadInputError: whatever the folder's code raises on the way.
    """
    tops = {*names, *(name.split(".")[0] for name in stand_ins)}
    others = _taken_out(tops)
    sys.modules.update(stand_ins)
    try:
        with mock.patch.object(sys, "path", [str(folder), *sys.path]):
            yield
    except Exception as error:
        raise BadInputError(f"{folder}: its code cannot be imported ({type(error).__name__}: {error}).") from error
    finally:
        _taken_out(tops)
        sys.modules.update(others)


def _taken_out(tops: set[str]) -> dict[str, ModuleType]:
    """Modules of these top-level names, no longer in `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in tops}


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Tensors that are sent to "cuda" stay."""
    move = torch.Tensor.to

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor if args and args[0] == "cuda" else move(tensor, *args, **kwargs)

    with mock.patch.object(torch.Tensor, "to", to):
        yield


def noting(function: Callable[..., Any], note: Callable[[Any, Any], None]) -> Callable[..., Any]:
    """A function whose arguments and result are noted: positional arguments as a tuple, or else named ones."""

    def noted(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        note(args or kwargs, result)
        return result

    return noted


def module_of(name: str, **contents: Any) -> ModuleType:
    """A module that stands in for one that is not there or not wanted."""
    module = ModuleType(name)
    module.__dict__.update(contents)
    return module


def under(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The part of a state dict that belongs to a module, under its own names."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
