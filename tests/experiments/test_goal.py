from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from wm.envs.pusht.draw import draw
from wm.errors import BadInputError
from wm.experiments.goal import main, write_goal
from wm.experiments.goals import sample_tasks


def run(*arguments: str) -> None:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception


def test_writes_the_first_held_out_goal_and_its_states(tmp_path: Path) -> None:
    out = tmp_path / "new" / "goal.png"
    run("--env", "pusht", "--seed", "5", "--out", str(out), "--image-size", "64")
    states = json.loads(out.with_suffix(".json").read_text())
    task = sample_tasks("pusht", 5, 1, 25)[0]
    assert states == {
        "env": "pusht",
        "start_state": task.start_state.tolist(),
        "goal_state": np.asarray(task.goal_state).tolist(),
    }
    assert np.array_equal(np.asarray(Image.open(out)), draw(np.array(states["goal_state"]), 64))
    assert sorted(path.name for path in out.parent.iterdir()) == ["goal.json", "goal.png"]


def test_jpeg_is_close_to_the_picture(tmp_path: Path) -> None:
    task = write_goal("pusht", 0, tmp_path / "goal.JPG")
    image = np.asarray(Image.open(tmp_path / "goal.JPG")).astype(int)
    assert image.shape == (96, 96, 3) and np.abs(image - task.goal_image).mean() < 4


def test_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"ending in .png or .jpg, came '.gif'"):
        run("--out", str(tmp_path / "goal.gif"))
    assert list(tmp_path.iterdir()) == []


def test_writes_nothing_when_one_of_the_two_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "goal.json").mkdir()
    with pytest.raises(BadInputError, match="cannot write .*goal.png.*is a folder"):
        run("--out", str(tmp_path / "goal.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["goal.json"]
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="cannot write .*file/goal.png"):
        run("--out", str(tmp_path / "file" / "goal.png"))
