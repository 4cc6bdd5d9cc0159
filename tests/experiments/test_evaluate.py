from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from tests.experiments.small_planner import plan_little
from wm.encoders.tiny import TinyEncoder
from wm.envs.pusht.env import push_t_spec
from wm.errors import BadInputError, MismatchError, UnknownNameError, WmError
from wm.experiments import assemble
from wm.experiments.evaluate import _table, evaluate, main
from wm.experiments.interval import wilson
from wm.experiments.metrics import TIMINGS, late, lateness
from wm.experiments.play import Player, Setting
from wm.experiments.worlds import find_world
from wm.int8 import Int8Linear
from wm.logs import Moments
from wm.model import build_model
from wm.specs import EnvSpec, ModelSpec

BUDGET, EPISODES, ORACLE = 10, 6, 2
SIZES = {"episodes": EPISODES, "oracle_episodes": ORACLE, "seed": 7}


def save_model(path: Path, env: EnvSpec) -> Path:
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    spec = ModelSpec(env, encoder.spec(), frameskip=5, history=2, tokens=1, width=4, hidden=16, depth=1)
    model = build_model(spec, encoder, Moments(torch.zeros(2), torch.ones(2)), Moments(torch.zeros(4), torch.ones(4)))
    model.save(path, {"command": "test"})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", push_t_spec())


@pytest.fixture(autouse=True)
def small_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_little(monkeypatch)


def setting(path: Path, **changes: Any) -> Setting:
    return dataclasses.replace(Setting("pusht", str(path), "icem", BUDGET, None, 1), **changes)


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, list(arguments))


def without_timings(metrics: dict[str, Any]) -> dict[str, Any]:
    plain = {k: v for k, v in metrics.items() if k not in TIMINGS}
    if "oracle" in plain.get("baselines", {}):
        oracle = {k: v for k, v in plain["baselines"]["oracle"].items() if k not in TIMINGS}
        plain["baselines"] = plain["baselines"] | {"oracle": oracle}
    return plain


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("eval") / "new" / "out"
    with pytest.MonkeyPatch.context() as patch:
        plan_little(patch)
        return out, evaluate(setting(model), out, **SIZES)


def test_metrics_add_up_to_the_episodes(finished: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    episodes = lines(out / "episodes.jsonl")
    assert [e["index"] for e in episodes] == list(range(EPISODES)) and metrics["episodes"] == EPISODES
    reached = sum(e["reached"] for e in episodes)
    assert metrics["success_rate"] == reached / EPISODES
    assert metrics["success_ci95"] == list(wilson(reached, EPISODES))
    assert metrics["block_success_rate"] == sum(e["measures"]["block_reached"] for e in episodes) / EPISODES
    assert metrics["guardrail_violations"] == 0
    shifts = [np.linalg.norm(np.subtract(e["goal"][2:4], e["start"][2:4])) for e in episodes]
    assert np.isclose(metrics["goal_block_shift_px_mean"], np.mean(shifts))
    assert metrics["goals_moving_block"] == np.mean(np.array(shifts) > 20) >= 0.5
    plans = [ms for e in episodes for ms in e["plan_ms"]]
    spent = [count for e in episodes for count in e["candidates"]]
    assert min(spent) >= 2 + 12 and metrics["candidates_p50"] == np.median(spent)  # staying, the guess, the population
    assert metrics["iterations_mean"] == np.mean([count for e in episodes for count in e["iterations"]]) == 2.0
    assert metrics["config"]["think"] is None
    assert metrics["plan_ms_p50"] == np.percentile(plans, 50) and metrics["plan_ms_p95"] == np.percentile(plans, 95)


def test_episodes_keep_the_budget_and_their_own_errors(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    for name in ("episodes", "noop", "random", "oracle"):
        for e in lines(out / f"{name}.jsonl"):
            assert e["steps"] <= BUDGET and (e["steps"] == BUDGET or e["reached"])
            found = e["measures"]
            assert np.isclose(found["agent_error_px"], np.linalg.norm(np.subtract(e["end"][:2], e["goal"][:2])))
            assert np.isclose(found["block_error_px"], np.linalg.norm(np.subtract(e["end"][2:4], e["goal"][2:4])))
            assert 0 <= found["angle_error_rad"] <= np.pi
            assert len(e["plan_ms"]) == (-(-e["steps"] // 5) if name in ("episodes", "oracle") else 0)
            assert len(e["observe_ms"]) == e["steps"] + 1
            assert len(e["iterations"]) == len(e["candidates"]) == len(e["plan_ms"])


def test_baselines_play_the_same_tasks(finished: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = finished
    baselines, episodes = metrics["baselines"], lines(out / "episodes.jsonl")
    assert {name: row["episodes"] for name, row in baselines.items()} == {"noop": 6, "random": 6, "oracle": ORACLE}
    for name in baselines:
        theirs = lines(out / f"{name}.jsonl")
        assert [e["start"] for e in theirs] == [e["start"] for e in episodes[: len(theirs)]]
        assert [e["goal"] for e in theirs] == [e["goal"] for e in episodes[: len(theirs)]]
    assert baselines["oracle"]["subset"] == "the first 2 of the same 6 tasks"
    assert baselines["oracle"]["planner"] == metrics["config"]["planner"]
    assert baselines["oracle"]["steps_to_success_mean"] is None or baselines["oracle"]["success_rate"] > 0


def test_the_configuration_says_what_was_measured(finished: tuple[Path, dict[str, Any]]) -> None:
    config = finished[1]["config"]
    assert config["model"]["provenance"] == {"command": "test"} and len(config["model"]["fingerprint"]) == 16
    planner = config["planner"]
    assert (planner["name"], planner["horizon"], planner["solver"]["population"]) == (
        "icem",
        assemble.PLANNING.horizon,
        12,
    )
    assert (config["seed"], config["goal_offset"], config["budget_steps"], config["threads"]) == (7, 25, BUDGET, 1)
    assert set(config["versions"]) == {"wm", "python", "torch", "numpy", "pymunk"}


def test_pictures_are_written(finished: tuple[Path, dict[str, Any]]) -> None:
    for name in ("summary.png", "failures.png"):
        assert min(Image.open(finished[0] / name).size) > 100


def test_an_interrupted_run_goes_on_and_ends_the_same(
    finished: tuple[Path, dict[str, Any]], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[tuple[str, int]] = []
    play = Player.play

    def interrupted(self: Player, name: Any, index: int, task: Any) -> Any:
        if (name, index) == ("model", 3) and len(played) == 3:
            raise KeyboardInterrupt
        played.append((name, index))
        return play(self, name, index, task)

    monkeypatch.setattr(Player, "play", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(setting(model), tmp_path, **SIZES)
    assert len(lines(tmp_path / "episodes.jsonl")) == 3 and not (tmp_path / "metrics.json").exists()
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write('{"index": 3, "se')  # a write that was cut off
    played.append(("", 0))
    metrics = evaluate(setting(model), tmp_path, **SIZES)
    assert sorted(index for name, index in played if name == "model") == list(range(EPISODES))
    assert without_timings(metrics) == without_timings(finished[1])


def test_a_finished_run_is_not_played_again_and_can_be_extended(model: Path, tmp_path: Path) -> None:
    short = evaluate(setting(model), tmp_path, episodes=2, baselines=False, seed=7)
    before = (tmp_path / "episodes.jsonl").read_text()
    assert short["baselines"] == {} and evaluate(setting(model), tmp_path, episodes=2, baselines=False, seed=7) == short
    assert (tmp_path / "episodes.jsonl").read_text() == before
    evaluate(setting(model), tmp_path, episodes=3, baselines=False, seed=7)
    assert (tmp_path / "episodes.jsonl").read_text().startswith(before)


def test_workers_change_only_the_times(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # workers are fresh processes and know the real planners only
    one = evaluate(setting(model), tmp_path / "1", episodes=2, baselines=False)
    two = evaluate(setting(model), tmp_path / "2", episodes=2, baselines=False, workers=2)
    one["config"]["workers"] = 2
    assert without_timings(one) == without_timings(two)


def test_another_configuration_in_the_folder_is_refused(model: Path, tmp_path: Path) -> None:
    evaluate(setting(model), tmp_path, episodes=1, baselines=False, seed=7)
    with pytest.raises(BadInputError, match="with another seed: expected 8, came 7; use another --out"):
        evaluate(setting(model), tmp_path, episodes=1, baselines=False, seed=8)
    with pytest.raises(BadInputError, match="with another budget_steps: expected 20, came 10; use another --out"):
        evaluate(setting(model, budget_steps=20), tmp_path, episodes=1, baselines=False, seed=7)
    (tmp_path / "episodes.jsonl").write_text("{}\n")
    with pytest.raises(BadInputError, match=r"episodes.jsonl, line 1: not an episode .*use another --out"):
        evaluate(setting(model), tmp_path, episodes=1, baselines=False, seed=7)


def test_the_way_of_the_rollouts_is_in_the_settings_and_decides_who_plays(model: Path, tmp_path: Path) -> None:
    evaluate(setting(model, rollout="int8"), tmp_path, episodes=1, baselines=False)
    assert json.loads((tmp_path / "metrics.json").read_text())["config"]["rollout"] == "int8"
    assert Player(setting(model, rollout="int8")).model.joint.predictor.blocks[0].widen.__class__ is Int8Linear
    with pytest.raises(BadInputError, match="with another rollout: expected .*, came .*; use another --out"):
        evaluate(setting(model), tmp_path, episodes=1, baselines=False)


def test_a_plan_is_late_that_takes_more_than_its_deadline_and_five_milliseconds() -> None:
    assert late([20.0, 55.0, 55.1, 80.0], 50.0) == 2
    assert late([1e9], None) == 0
    assert lateness(1, 50.0).startswith("1 plan took over 55 ms")
    assert lateness(2, 50.0).startswith("2 plans took over 55 ms")


def test_late_plans_are_counted_and_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm.experiments.metrics.LATE_MS", -1e6)  # all are
    metrics = evaluate(setting(model, deadline_ms=1.0), tmp_path / "late", episodes=1, baselines=False)
    assert metrics["plans_late"] == len(json.loads((tmp_path / "late/episodes.jsonl").read_text())["plan_ms"]) > 0
    assert "plans took over" in _table(metrics, find_world("pusht"))
    assert evaluate(setting(model), tmp_path / "free", episodes=1, baselines=False)["plans_late"] is None


def test_bad_input_is_refused_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    absolute = save_model(tmp_path / "absolute.safetensors", push_t_spec("absolute"))
    other = save_model(tmp_path / "other.safetensors", dataclasses.replace(push_t_spec(), env="chips"))
    cases: list[tuple[dict[str, Any], dict[str, Any], type[WmError], str]] = [
        ({"env": "pushT"}, {}, UnknownNameError, "unknown environment 'pushT'"),
        ({"think": "much"}, {}, BadInputError, "think: expected 'auto', 'fast' or a number of iterations"),
        ({"planner": "icen"}, {}, UnknownNameError, "unknown planner 'icen'. Did you mean 'icem'"),
        ({"rollout": "int4"}, {}, UnknownNameError, "unknown rollout 'int4'. Did you mean 'int8'"),
        ({"model": "nothing"}, {}, UnknownNameError, "unknown model .* 'nothing'"),
        ({"model": str(other)}, {}, MismatchError, "model of another environment: .*expected pusht, came chips"),
        ({"model": str(absolute)}, {}, MismatchError, "model of another robot"),
        ({"budget_steps": 0}, {}, BadInputError, "budget-steps: expected >= 1, came 0"),
        ({"deadline_ms": -1.0}, {}, BadInputError, "deadline-ms: expected a finite number > 0, came -1.0"),
        ({"deadline_ms": math.inf}, {}, BadInputError, "deadline-ms: expected a finite number > 0, came inf"),
        ({}, {"episodes": 0}, BadInputError, "episodes: expected >= 1, came 0"),
        ({}, {"goal_offset": 0}, BadInputError, "goal-offset: expected >= 1, came 0"),
        ({}, {"goal_offset": 2000}, BadInputError, "an offset of 1 to 1000 control steps, came 0, 200, 2000"),
        ({}, {"seed": -1}, BadInputError, "seed: expected >= 0, came -1"),
        ({}, {"oracle_episodes": -1}, BadInputError, "oracle-episodes: expected >= 0, came -1"),
    ]
    for changes, options, error, message in cases:
        with pytest.raises(error, match=message):
            evaluate(setting(model, **changes), out, **options)
    assert not out.exists()


def test_an_unwritable_folder_is_refused_before_the_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Player, "play", lambda *_: pytest.fail("played"))
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="cannot write .*file/out/config.json"):
        evaluate(setting(model), tmp_path / "file" / "out", **SIZES)


def test_min_success_is_an_exit_code(model: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(model), "--out", str(tmp_path), "--episodes", "1", "--budget-steps", "5"]
    arguments += ["--no-baselines", "--threads", "1"]
    passed = invoke(*arguments, "--min-success", "0")
    assert passed.exit_code == 0, passed.output
    assert "model" in passed.stdout and "metrics.json" in passed.stdout
    missed = invoke(*arguments, "--min-success", "1.0")
    assert missed.exit_code == 1 and "is below the required 100.0%" in missed.stderr
    refused = invoke(*arguments, "--min-success", "90")
    assert isinstance(refused.exception, BadInputError)
    assert str(refused.exception) == "min-success: expected 0 to 1, came 90.0."
