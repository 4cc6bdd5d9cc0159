"""The commands in the chips' world, with a model that was never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.experiments.place import Run, refused, runner
from tests.experiments.small_planner import plan_little
from wm.datasets.reader import EpisodeStore
from wm.encoders.tiny import TinyEncoder
from wm.envs.chips.env import chips_spec
from wm.envs.chips.metrics import chamfer
from wm.envs.chips.physics import APART, TABLE_HALF, chip_places
from wm.experiments.baselines import NoOp
from wm.experiments.episode import Task, run_episode
from wm.experiments.goals import sample_tasks
from wm.experiments.metrics import mean_interval
from wm.experiments.worlds import find_world
from wm.experiments.worlds.chips_oracle import ChamferDistance, simulate
from wm.logs import Moments
from wm.model import build_model
from wm.specs import ModelSpec
from wm.types import Trajectory

EPISODES = 3
CHIPS = find_world("chips")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    spec = ModelSpec(chips_spec(), encoder.spec(), frameskip=1, history=2, tokens=2, width=4, hidden=16, depth=1)
    made = build_model(spec, encoder, Moments(torch.zeros(4), torch.ones(4)), None)
    for weights in made.joint.predictor.parameters():
        weights.normal_(std=0.3)  # a fresh one predicts that nothing changes, whatever the action
    made.usual_distance.fill_(1e3)
    path = tmp_path_factory.mktemp("model") / "chips.safetensors"
    made.save(path, {"command": "test"})
    return path


@pytest.fixture(autouse=True)
def small_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_little(monkeypatch)


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, **usual: object) -> Run:
    options = {key.replace("_", "-"): value for key, value in usual.items()}
    return runner(monkeypatch, capsys, name, {"env": "chips"} | options)


def test_resting_moves_no_chip() -> None:
    env, task = CHIPS.make_env(32), CHIPS.sample_tasks(1, 1, image_size=32)[0]
    assert task.goal_state is not None
    for start, most in ((task.start_state, 0.0), (task.goal_state, 0.001)):  # a pile may settle by less than a mm
        outcome = run_episode(env, Task(start, task.goal_image, None, 0), NoOp(CHIPS.rest_action()), 3)
        before, after = chip_places(outcome.states[0]), chip_places(outcome.states[-1])
        assert np.linalg.norm(after - before, axis=1).max() <= most


def test_measures_are_those_of_the_last_state(rng: np.random.Generator) -> None:
    task = CHIPS.sample_tasks(1, 1, image_size=32)[0]
    half = (task.start_state + task.goal_state) / 2
    found = CHIPS.measures(task.goal_state, np.stack([task.start_state, task.goal_state, half]))
    start, end = (float(chamfer(chip_places(s), chip_places(task.goal_state))) for s in (task.start_state, half))
    assert found["chamfer_m"] == end and found["chamfer_fraction"] == pytest.approx(end / start)
    at_goal = CHIPS.measures(task.goal_state, np.stack([task.start_state, task.goal_state]))
    assert at_goal == {"chamfer_m": 0.0, "chamfer_fraction": 0.0, "coverage": 1.0}


def test_the_oracles_simulation_is_the_environments(rng: np.random.Generator) -> None:
    env = CHIPS.make_env(32)
    env.reset(seed=3)
    state, strokes = env.get_state(), rng.uniform(-0.9, 0.9, (2, 3, 4))
    places = simulate(CHIPS.make_env(32).physics, state, strokes)
    for sequence, imagined in zip(strokes, places, strict=True):
        env.set_state(state)
        for stroke, expected in zip(sequence, imagined, strict=True):
            found = chip_places(env.step(stroke)[4]["state"])
            np.testing.assert_array_equal(found, expected)


def test_the_oracles_energy_is_the_chamfer_distance(rng: np.random.Generator) -> None:
    goal, places = rng.uniform(-0.2, 0.2, (7, 2)), rng.uniform(-0.2, 0.2, (4, 3, 7, 2))
    places[2] = goal
    trajectory = Trajectory(torch.zeros(1, 4, 3, 4), torch.from_numpy(places).float()[None])
    energy = ChamferDistance(goal, 0.5)(trajectory)
    each = np.array([[chamfer(step, goal) for step in row] for row in places]) / TABLE_HALF
    expected = each @ [0.5, 0.5, 1.0] / 2.0
    np.testing.assert_allclose(energy[0].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert energy[0, 2] < 1e-6 and energy.argmin() == 2


def test_mean_interval_is_the_normal_one_and_needs_two_values() -> None:
    assert mean_interval([3.0]) is None
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0]) or (0.0, 0.0)
    assert (low + high) / 2 == pytest.approx(2.5) and high - low == pytest.approx(2 * 1.96 * 1.29099 / 2, rel=1e-3)


def test_collect_records_strokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = command(monkeypatch, capsys, "collect", out=tmp_path / "data", episodes=2, workers=0, image_size=32)
    code, _, err = run()
    assert code == 0 and "2 episodes of 20 steps; a chip moved " in err
    store = EpisodeStore(tmp_path / "data")
    assert store.lengths.tolist() == [20, 20] and store.spec.env == chips_spec()
    assert store.spec.recipe["policy"] == "random strokes"


def test_goal_then_plan(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    goal, out = tmp_path / "goal.png", tmp_path / "plan"
    code, text, _ = command(monkeypatch, capsys, "goal", goals="T", seed=5, out=goal)()
    assert code == 0 and "a goal 'T' (seed 5)" in text
    task = sample_tasks("chips", 5, 1, kind="T")[0]
    assert np.array_equal(np.asarray(Image.open(goal)), task.goal_image)
    run = command(monkeypatch, capsys, "plan", goal=goal, model=model, out=out)
    code, text, err = run()
    assert code == 0, err
    assert "chips: goal not reached in 10 control steps" in text and "guardrail" not in text
    record = json.loads((out / "plan.json").read_text())
    assert record["planner"]["horizon"] == CHIPS.planning.horizon and record["model"]["frameskip"] == 1
    assert record["states"][0] == task.start_state.tolist() and len(record["actions"]) == 10
    assert record["measures"] == CHIPS.measures(task.goal_state, np.array(record["states"]))
    assert record["guardrails"] == {} and record["margins"][0] == {}
    assert "chamfer_m at the end" in (out / "report.html").read_text()
    with Image.open(out / "rollout.gif") as film:
        assert film.n_frames == 11
    refused(run(keep_out="0,0,1"), "guardrails: 'chips' declares no kinematics")


def test_eval_measures_every_baseline(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"model": model, "out": tmp_path, "episodes": EPISODES, "budget_steps": 2, "threads": 1}
    run = command(monkeypatch, capsys, "eval", **options, goals="two-piles", oracle_episodes=1)
    code, text, err = run()
    assert code == 0, err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["baselines"]) == ["noop", "random", "random-strokes", "greedy", "sweep", "oracle"]
    for name, row in {"episodes": metrics, **metrics["baselines"]}.items():
        episodes = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert row["episodes"] == len(episodes) == (1 if name == "oracle" else EPISODES)
        for measure in CHIPS.averaged:
            values = [episode["measures"][measure] for episode in episodes]
            assert row[f"{measure}_mean"] == pytest.approx(np.mean(values))
            assert row[f"{measure}_ci95"] == (None if name == "oracle" else mean_interval(values))
    baselines = metrics["baselines"]
    assert baselines["noop"]["chamfer_fraction_mean"] == pytest.approx(1.0)
    assert baselines["sweep"]["chamfer_m_mean"] < metrics["start_chamfer_m_mean"]
    assert "true state" in baselines["greedy"]["sees"] and "sees" not in baselines["random"]
    assert "true chips physics" in baselines["oracle"]["simulator"]
    config = metrics["config"]
    assert (config["goals"], config["goal_offset"], config["guardrails"]) == ("two-piles", None, None)
    assert "mujoco" in config["versions"] and config["planner"]["horizon"] == CHIPS.planning.horizon
    rows = [line for line in text.splitlines() if " of " in line]
    assert [line.split()[0] for line in rows] == ["model", *baselines] and "chamfer_m 0.0" in rows[0]
    for name in ("summary.png", "failures.png"):
        assert min(Image.open(tmp_path / name).size) > 100
    refused(run(goals="square"), 'another goals: expected "square", came "two-piles"')


def test_requests_that_make_no_sense_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    goal = command(monkeypatch, capsys, "goal", out=tmp_path / "goal.png")
    refused(goal(offset=25), "goal-offset: goals of 'chips' are not taken from logged episodes, came 25")
    refused(goal(goals="t"), "unknown kind of chips goal 't'")
    refused(goal(goals="T", env="pusht"), "unknown kind of pusht goal 'T'.* Known: logged")
    evaluate = command(monkeypatch, capsys, "eval", out=tmp_path / "out", episodes=1)
    refused(evaluate(model="chip"), r"unknown model \(a shipped name or a path\) 'chip'. Did you mean 'chips'")
    refused(evaluate(env="pusht", model=model), "model of another environment: .*expected pusht, came chips")
    assert list(tmp_path.iterdir()) == []


def test_a_pile_is_as_tight_as_chips_lie() -> None:
    places = chip_places(CHIPS.sample_tasks(0, 1, image_size=32)[0].goal_state)
    gaps = np.linalg.norm(places[:, None] - places, axis=-1) + np.eye(len(places))
    assert 0.5 * APART < gaps.min() < APART
