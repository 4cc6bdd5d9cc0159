"""Who may import whom: core nothing of ours; planners, envs and datasets the core; experiments everything."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = "wm"
FOLDERS = {
    "wm": CORE,
    "planners": "wm.planners",
    "envs": "wm.envs",
    "datasets": "wm.datasets",
    "experiments": "wm.experiments",
}
MAY_IMPORT = {
    CORE: {CORE},
    "wm.planners": {CORE, "wm.planners"},
    "wm.envs": {CORE, "wm.envs"},
    "wm.datasets": {CORE, "wm.datasets"},
    "wm.experiments": set(FOLDERS.values()),
}
NEVER = (set(FOLDERS) - {"wm"}) | {
    "tests"
}  # the root folders' own names: they are importable only inside the repository
HEAVY = ("cv2", "gymnasium", "matplotlib", "mujoco", "pybullet", "pymunk", "transformers")


def room_of(name: str) -> str:
    """The room of a dotted import name: ``wm.planners.cem`` is in ``wm.planners``, ``wm.types`` in the core."""
    head = ".".join(name.split(".")[:2])
    return head if head in MAY_IMPORT else CORE


def imported_names(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of every import of a module that lies in ``package``, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(source: str, package: str) -> list[str]:
    """One sentence for each import in ``source``, a module of ``package``, that the rule forbids."""
    room, found = room_of(package), []
    for line, name in imported_names(source, package):
        top = name.split(".")[0]
        if top in NEVER:
            found.append(f"line {line}: '{name}' is a folder of the repository; import it as 'wm.{name}'")
        elif top == CORE and room_of(name) not in MAY_IMPORT[room]:
            found.append(f"line {line}: {room} must not import {name}")
    return found


def sources() -> list[Path]:
    """Every Python file of the package."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def package_of(directory: Path) -> str:
    """Import name of a folder: ``planners/guardrails`` is ``wm.planners.guardrails``."""
    folder, *rest = directory.relative_to(ROOT).parts
    return ".".join([FOLDERS[folder], *rest])


def setup_cfg() -> configparser.ConfigParser:
    """The parsed ``setup.cfg``."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_rule_holds_in_every_file() -> None:
    broken = [
        f"{path.relative_to(ROOT)} {violation}"
        for path in sources()
        for violation in violations(path.read_text(encoding="utf-8"), package_of(path.parent))
    ]
    assert sources()
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("wm", "import wm.planners"),
        ("wm", "from wm import datasets"),
        ("wm", "from . import envs"),
        ("wm.encoders", "from ..planners.cem import CEM"),
        ("wm.encoders", "from .. import experiments"),
        ("wm.planners", "def f():\n    from wm.envs import pusht"),
        ("wm.planners", "if TYPE_CHECKING:\n    from wm.datasets.reader import Store"),
        ("wm.planners.guardrails", "from ...envs.pusht import physics"),
        ("wm.envs.pusht", "import wm.planners.mpc as mpc"),
        ("wm.datasets.collect", "import importlib\nimportlib.import_module('wm.envs')"),
        ("wm.datasets", "from wm.experiments import cli"),
        ("wm.experiments", "from planners.cem import CEM"),
        ("wm.experiments", "import tests.conftest"),
    ],
)
def test_forbidden_import_is_found(package: str, source: str) -> None:
    assert len(violations(source, package)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("wm", "from wm.types import Latent\nfrom . import specs"),
        ("wm.encoders", "from ..specs import EncoderSpec\nimport torch"),
        ("wm.planners.guardrails", "from ..energies import Energy\nfrom wm import errors\nimport wm"),
        ("wm.envs.pusht", "from wm.envs.pusht.physics import step\nfrom .. import registration"),
        ("wm.datasets.collect", "from wm.datasets import writer"),
        ("wm.experiments", "from wm.planners import mpc\nfrom wm.envs import pusht\nfrom wm.datasets import reader"),
    ],
)
def test_allowed_import_passes(package: str, source: str) -> None:
    assert violations(source, package) == []


def test_violation_names_line_and_both_sides() -> None:
    assert violations("import torch\nimport wm.envs.pusht", "wm.planners") == [
        "line 2: wm.planners must not import wm.envs.pusht"
    ]


@pytest.mark.parametrize("module", ["wm", "wm.types", "wm.specs", "wm.errors"])
def test_core_loads_no_heavy_package(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_setup_cfg_lists_every_package_folder() -> None:
    listed = setup_cfg()["options"]["packages"].split()
    assert len(listed) == len(set(listed))
    assert set(listed) == {package_of(path.parent) for path in sources()}
    assert all((path.parent / "__init__.py").exists() for path in sources())


def test_setup_cfg_maps_every_folder() -> None:
    lines = setup_cfg()["options"]["package_dir"].strip().splitlines()
    assert dict(line.replace(" ", "").split("=") for line in lines) == {v: k for k, v in FOLDERS.items()}
