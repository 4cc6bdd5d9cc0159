"""Copies of the source tree in which a mutant can be tested without touching the tree itself.

An editable install finds `wm` and the folders that belong to it (``planners/`` is `wm.planners`) by absolute paths, in
every process. In a copy each of these folders is also linked to where its import name says, so that the plain path
search finds `wm` and all below it there; the copy stands first on PYTHONPATH, which comes before the finder of an
editable install and is inherited by every child, spawned or started as a command. `check` asks a fresh process.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.mutants.catalogue import ROOT

_MARK = "WM_MUTANTS_COPY"
_FILES = ("setup.cfg", "pyproject.toml")
_LEFT_OUT = ("__pycache__", "assets", "mutants", "*.gif", "*.png")
_PROFILE = """

hypothesis.settings.register_profile(
    "unshrunk", deadline=None, derandomize=True, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate)
)
hypothesis.settings.load_profile("unshrunk")
"""
"""A failing example is enough: nobody reads the smallest one."""

_IMPORTS = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep='\\n')"


def packages() -> dict[str, str]:
    """Import name of each package that has a folder at the root, and that folder."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["package_dir"].strip().splitlines()
    return {name.strip(): folder.strip() for name, folder in (line.split("=") for line in lines)}


def tree_hash() -> str:
    """Of all sources, tests and their settings; the lists of mutants are no part of it."""
    digest = hashlib.sha256()
    folders = [ROOT / folder for folder in (*packages().values(), "tests")]
    for path in sorted([ROOT / name for name in _FILES] + [p for folder in folders for p in folder.rglob("*.py")]):
        if path.parent != Path(__file__).parent:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def make(target: Path) -> Path:
    """Copy the tree into a new folder; returns it."""
    for folder in (*packages().values(), "tests", "docs"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    for name in _FILES:
        shutil.copy(ROOT / name, target)
    for name, folder in packages().items():
        place = target.joinpath(*name.split("."))
        if place != target / folder:
            place.symlink_to(target / folder)
    if (ROOT / "wm" / "assets").is_dir():
        (target / "wm" / "assets").symlink_to(ROOT / "wm" / "assets")
    with (target / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(_PROFILE)
    return target


def environment(copy: Path) -> dict[str, str]:
    """Variables under which a process, and each of its children, imports from the copy and leaves no bytecode."""
    own = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", _MARK: str(copy)}
    return {**os.environ, **own}


def check(copy: Path) -> None:
    """Make sure that a process started anywhere imports every package from the copy.

    Raises:
        RuntimeError: one comes from elsewhere.
    """
    command = [sys.executable, "-c", _IMPORTS, *packages()]
    shown = subprocess.run(
        command, env=environment(copy), cwd=copy.parent, capture_output=True, text=True, check=True, timeout=120
    )
    for line in shown.stdout.splitlines():
        if not Path(line).is_relative_to(copy):
            raise RuntimeError(f"the copy in {copy} is not what is imported: {line}")


def end(process: subprocess.Popen[str], copy: Path) -> None:
    """Kill a test run and, where /proc tells, what it left in other sessions: a mutant may be the loss of that care."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    mark = f"{_MARK}={copy}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
