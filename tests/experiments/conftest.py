"""A folder to drive in."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.experiments.place import Place, tiny_model, write_start
from tests.experiments.small_planner import plan_little
from wm.envs.pusht.draw import draw


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder with a model, a goal picture and its start; a planner that takes no time; no garbage collection."""
    plan_little(monkeypatch)
    monkeypatch.setattr("wm.planners.control.loop.quiet_collector", contextlib.nullcontext)
    model = tmp_path / "model.safetensors"
    tiny_model().save(model, {"command": "test"})
    goal = tmp_path / "goal.png"
    Image.fromarray(draw(np.array([300.0, 400.0, 150.0, 200.0, 2.0]), 200)).save(goal)
    write_start(tmp_path / "goal.json")
    return Place(tmp_path, model, goal)
