from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.experiments.small_planner import plan_little
from wm.encoders.tiny import TinyEncoder
from wm.envs.pusht.env import push_t_spec
from wm.experiments import assemble, demo
from wm.experiments.cli import main as command
from wm.experiments.goals import sample_tasks
from wm.logs import Moments
from wm.model import build_model
from wm.specs import ModelSpec

FILES = ["energy.png", "goal.json", "goal.png", "plan.json", "report.html", "rollout.gif"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plan_little(monkeypatch)
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    spec = ModelSpec(push_t_spec(), encoder.spec(), frameskip=5, history=2, tokens=2, width=4, hidden=16, depth=1)
    model = build_model(spec, encoder, Moments(torch.zeros(2), torch.ones(2)), Moments(torch.zeros(4), torch.ones(4)))
    model.save(tmp_path / "model.safetensors", {"command": "test"})
    return tmp_path / "model.safetensors"


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["wm", "demo", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        command()
    return int(stop.value.code or 0)


def test_missed_goal_is_exit_code_1_with_all_pictures(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert run(monkeypatch, "--out", out, "--model", model, "--seed", 3) == 1
    assert sorted(path.name for path in out.iterdir()) == FILES
    record = json.loads((out / "plan.json").read_text())
    task = sample_tasks("pusht", 3, 1, demo.OFFSET)[0]
    assert record["states"][0] == task.start_state.tolist()
    assert record["reached"] is False
    assert record["steps"] == 50
    assert "goal not reached in 50 control steps" in capsys.readouterr().out


def test_reached_goal_is_exit_code_0(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def solved(env: str, seed: int, out: Path, offset: int) -> None:
        state = sample_tasks(env, seed, 1, offset)[0].start_state.tolist()
        write_goal(env, seed, out, offset)
        out.with_suffix(".json").write_text(json.dumps({"env": env, "start_state": state, "goal_state": state}))

    write_goal = demo.write_goal
    monkeypatch.setattr(demo, "write_goal", solved)
    assert run(monkeypatch, "--out", tmp_path / "demo", "--model", model) == 0


def test_without_a_model_it_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(assemble.MODELS, "pusht", tmp_path / "none.safetensors")
    assert run(monkeypatch, "--out", tmp_path / "demo") == 2
    assert "expected a .safetensors file, there is none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
