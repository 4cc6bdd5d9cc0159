"""`wm control` with the arm: its set-point is certified, in metres, and never meets a wall that would cut it off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.experiments.control_parts import in_virtual_time
from tests.experiments.place import Run, refused, runner
from tests.experiments.small_planner import plan_little
from wm.datasets.reader import EpisodeStore
from wm.encoders.tiny import TinyEncoder
from wm.envs.arm.env import arm_spec
from wm.envs.arm.physics import SCALE, setpoint_path
from wm.envs.arm.scene import HIGH, LOW, TOOL_RADIUS
from wm.errors import BadInputError
from wm.experiments import assemble
from wm.experiments.control_setup import ControlRequest, prepare
from wm.experiments.delayed_planner import PlannerSetup
from wm.experiments.episode_sink import STEPS_FILE
from wm.experiments.rules import Rules
from wm.experiments.worlds import find_world
from wm.experiments.worlds.arm import TIP
from wm.kinematics import PointKinematics
from wm.logs import Moments
from wm.model import WorldModel, build_model
from wm.planners.control.messages import PlanRequest
from wm.planners.control.shield import Shield, ShieldLimits
from wm.specs import ModelSpec
from wm.types import Trajectory

pytestmark = pytest.mark.real_time

ROBOT: PointKinematics = find_world("arm-push").make_env(16).kinematics
ACTION = arm_spec("push").action
START, GOAL = [0.35, 0.0, 0.5, 0.15, 0.3, 0.0, 0.0], [0.55, 0.0, 0.5, -0.15, 0.3, 0.0, 0.0]
DISC = (0.45, 0.0, 0.04)
BETWEEN = "0.45,0.0,0.04"
"""A disc on the way from the start's tip to the goal's."""


def tiny_model() -> WorldModel:
    torch.manual_seed(0)
    encoder, env = TinyEncoder(width=8), arm_spec("push")
    spec = ModelSpec(env, encoder.spec(), frameskip=5, history=2, tokens=2, width=4, hidden=16, depth=1)
    model = build_model(spec, encoder, Moments(torch.zeros(2), torch.ones(2)), Moments(torch.zeros(4), torch.ones(4)))
    for weights in model.joint.predictor.parameters():
        weights.normal_(std=0.3)
    model.usual_distance.fill_(1e3)
    return model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a model, a goal picture and its start."""
    plan_little(monkeypatch)
    tiny_model().save(tmp_path / "model.safetensors", {"command": "test"})
    env = find_world("arm-push").make_env(96)
    Image.fromarray(env.reset(options={"state": GOAL})[0]["image"]).save(tmp_path / "goal.png")
    states = {"env": "arm-push", "start_state": START, "goal_state": GOAL}
    (tmp_path / "goal.json").write_text(json.dumps(states))
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`wm control` in a time of its own, so that a busy machine skips no control step."""
    in_virtual_time(monkeypatch)
    options = {"robot": "sim:arm", "goal": folder / "goal.png", "model": folder / "model.safetensors", "duration": 2.0}
    return runner(monkeypatch, capsys, "control", options)


def test_twenty_control_steps_keep_the_disc_and_are_logged(folder: Path, run: Run) -> None:
    code, out, err = run("--json", "--keep-out", BETWEEN, log=folder / "log", rate=10, max_speed=0.3)
    record = json.loads(out)
    assert record["state"] == "idle" and record["why"] == "the duration is over" and record["reached"] is False
    assert code == 0 and record["uncertified"] == record["contradictions"] == 0, err
    assert record["rules"]["workspace"] == list(TIP.arena) and record["rules"]["keep_out"] == [list(DISC)]
    assert record["model"]["name"].endswith("model.safetensors") and record["settings"]["picture_travel"] < 0.03
    assert all(margin >= 0 for margin in record["smallest_margins_at_readings"].values())
    rows = [json.loads(line) for line in (folder / "log" / STEPS_FILE).read_text().splitlines()]
    steps = [row for row in rows if "step" in row]
    assert len(steps) == 20 and any(np.any(step["sent"]) for step in steps)
    assert steps[1]["plan"]["margins"].keys() == {"keep_out", "workspace", "speed"}
    store = EpisodeStore(folder / "log")
    store.verify()
    assert store.spec.env == arm_spec("push")
    for index in range(len(store.lengths)):
        away = np.linalg.norm(store.state(index)[:, :2] - DISC[:2], axis=1)
        assert away.min() >= DISC[2] + TOOL_RADIUS - 1e-6


def test_the_summary_is_in_metres(run: Run) -> None:
    _, out, err = run("--keep-out", BETWEEN, duration=0.5)
    assert re.search(r"\nguardrail keep_out: smallest margin at the readings 0\.\d{4} m\n", out), err
    assert re.search(r"\| margin keep_out \+0\.\d{4} m \|", out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"robot": "sim:arm-reach"}, "'arm-reach' declares no kinematics, so no action can be certified"),
        ({"robot": "sim:chips"}, "plans of 'chips' are 1 control step long"),
        ({"robot": "sim:Pendulum-v1"}, "'Pendulum-v1' declares no kinematics, so no action can be certified"),
        ({"robot": "sim:pusht"}, "model of another environment: env .*expected pusht, came arm-push"),
        ({"keep_out": "0.36,0.0,0.02"}, r"guardrail 'keep_out': the start \[.*\] breaks it by .* m\."),
        ({"workspace": "0.2,-0.2,0.6,0.2"}, r"workspace: expected inside of \[0\.205, -0\.265, 0\.675, 0\.265\] m, at"),
        ({"latency_ms": 500}, "up to 4 control steps of latency"),
        ({"rate": 20}, r"control rate \[Hz\] in --rate: expected 10\.0, came 20\.0"),
    ],
)
def test_what_is_refused(run: Run, options: dict[str, object], message: str) -> None:
    refused(run(**options), message)


def test_the_world_s_model_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(assemble.MODELS, "arm-push", folder / "model.safetensors")
    parts = prepare(ControlRequest(robot="sim:arm", goal=folder / "goal.png"))
    parts.rig.robot.disconnect()
    assert parts.setup.model == parts.request.model == "arm-push" and parts.shape is TIP
    assert {rule.unit for rule in parts.guardrails} == {"m"}


def test_a_stop_of_the_arm_ends_at_rest(folder: Path) -> None:
    """In metres: a hundredth of a millimetre per second is left at most."""
    parts = prepare(ControlRequest(robot="sim:arm", goal=folder / "goal.png", model=str(folder / "model.safetensors")))
    robot = parts.rig.robot
    for _ in range(3):
        robot.send_action(np.array([1.0, -1.0]))
    assert np.linalg.norm(robot.get_observation().proprio[2:]) > 0.3
    robot.stop()
    assert np.linalg.norm(robot.get_observation().proprio[2:]) < 1e-5
    robot.disconnect()


def exact(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """``(K, 4)`` the kinematics' path of one control step."""
    start, sent = torch.from_numpy(state[[0, 1, 3, 4]])[None], torch.from_numpy(action)[None, None, None]
    return ROBOT.path(start, sent, 1)[0, 0, 0].numpy()


def moved(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """``(K, 6)`` the environment's own path of the set-point; its last row is the next state."""
    low, high = (np.array([*corner["push"][:2], LOW["push"][2]]) for corner in (LOW, HIGH))
    return setpoint_path(state, state[:3] + SCALE * np.array([*action, 0.0]), low, high)


def test_the_environment_moves_as_its_set_point_path() -> None:
    """So that what follows may leave the simulator out."""
    env, rng = find_world("arm-push").make_env(16), np.random.default_rng(0)
    env.reset(seed=3)
    for _ in range(40):
        action = rng.uniform(-1, 1, 2)
        expected = moved(env.physics.state[:6].copy(), action)[-1]
        env.step(action)
        np.testing.assert_allclose(env.physics.state[:6], expected, rtol=0, atol=1e-12)


def wish(rng: np.random.Generator, kind: int, step: int) -> np.ndarray:
    """Held against a corner, to and fro, into the void, or anywhere."""
    if kind == 0:
        return np.array([1.0, 1.0]) * (1 if step // 40 % 2 else -1)
    if kind == 1:
        return np.array([np.cos(step / 7), np.sin(step / 5)])
    return rng.uniform(-1, 1, 2) if kind == 2 else np.sign(rng.uniform(-1, 1, 2))


def fuzz(guardrails: Callable[[Rules], list[Any]], late: int, runs: int, steps: int) -> tuple[float, float, int]:
    """Hostile wishes through the shield, near walls and discs that lie on them.

    Returns:
        Greatest difference of the environment's path from the certified one [m]; smallest distance to what is
        forbidden [m]; stops that were not certified.
    """
    rng, low, high = np.random.default_rng(late), np.array(LOW["push"][:2]), np.array(HIGH["push"][:2])
    apart, closest, uncertified = 0.0, np.inf, 0
    for index in range(runs):
        place = rng.uniform(low, high)
        discs = rng.uniform(low - 0.03, high + 0.03, (4, 2))
        radii = rng.uniform(0.0, 0.06, 4)
        free = np.linalg.norm(discs - place, axis=1) > radii + TOOL_RADIUS + 1e-3
        discs, radii = discs[free], radii[free]
        rules = Rules(tuple((x, y, r) for (x, y), r in zip(discs.tolist(), radii.tolist(), strict=True)))
        shield = Shield(ROBOT, ACTION, guardrails(rules), ShieldLimits(late / 10))
        state, waiting = np.array([*place, LOW["push"][2], 0.0, 0.0, 0.0]), [np.zeros(2)] * late
        for step in range(steps):
            reading = state[[0, 1, 3, 4]].astype(np.float32)
            answer = shield.certify(reading, wish(rng, index % 4, step))
            uncertified += answer.kind == "uncertified_stop"
            waiting.append(answer.action.astype(np.float32).astype(np.float64))
            action = waiting.pop(0)
            foreseen, path = exact(state, action), moved(state, action)
            apart = max(apart, float(np.abs(path[:, [0, 1, 3, 4]] - foreseen).max()))
            distance = np.linalg.norm(path[:, None, :2] - discs, axis=-1) - radii - TOOL_RADIUS
            closest = min(closest, float(distance.min(initial=np.inf)))
            state = path[-1]
    return apart, closest, uncertified


@pytest.mark.parametrize("late", [0, 1])
def test_a_certified_path_is_exact_and_keeps_off_walls_and_discs(late: int) -> None:
    apart, closest, uncertified = fuzz(lambda rules: rules.guardrails(ROBOT, TIP), late, runs=20, steps=100)
    assert apart < 1e-12, "the set-point met a wall"
    assert closest >= 0 and uncertified == 0


def test_without_its_walls_the_certificate_would_not_hold() -> None:
    """What the workspace rule is for: beyond the walls the environment's path is another one, and breaks rules."""
    nowhere = replace(TIP, arena=(-5.0, -5.0, 5.0, 5.0))
    apart, _, uncertified = fuzz(lambda rules: rules.guardrails(ROBOT, nowhere), 0, runs=8, steps=100)
    assert apart > 0.01 and uncertified > 0
    with pytest.raises(BadInputError, match="workspace: expected inside of .* m, at whose walls .* cut off, came"):
        Rules(workspace=(-5.0, -5.0, 5.0, 5.0)).guardrails(ROBOT, TIP)
    assert Rules(workspace=(0.3, -0.1, 0.5, 0.1)).within(TIP).workspace == (0.3, -0.1, 0.5, 0.1)


class Place:
    """How far the tip's middle ends from a place [m]."""

    name = "place"

    def __init__(self, place: tuple[float, float]) -> None:
        self._place = torch.tensor(place)

    def __call__(self, trajectory: Trajectory) -> torch.Tensor:
        assert trajectory.path is not None
        return (trajectory.path[..., :2] - self._place).square().sum(-1).mean((-1, -2)) * 100


@pytest.mark.parametrize("rules", [Rules((DISC,)), Rules()])
def test_plans_towards_a_goal_behind_the_disc_never_break_it(rules: Rules) -> None:
    """Without the disc they go straight through where it would be."""
    model, disc = tiny_model(), Rules((DISC,)).guardrails(ROBOT, TIP)[0]
    picture = np.zeros((96, 96, 3), np.uint8)
    planner = PlannerSetup("arm-push", "icem", picture, ROBOT, rules).planner_of(model, picture, 0)
    planner.energies = [Place((0.55, 0.0))]
    shield = Shield(ROBOT, ACTION, rules.guardrails(ROBOT, TIP), ShieldLimits())
    state, least, plan = np.array([0.35, 0.002, 0.025, 0.0, 0.0, 0.0]), np.inf, np.zeros((25, 2))
    for step in range(30):
        reading = state[[0, 1, 3, 4]].astype(np.float32)
        if step % 5 == 0:
            committed = plan[5:7] if step else np.zeros((2, 2))
            reply = planner(PlanRequest(step, np.stack([picture] * 2), np.stack([reading] * 2), committed, np.inf))
            plan = reply.actions
            assert reply.feasible and all(margin >= -1e-6 for margin in reply.margins.values())
        answer = shield.certify(reading, plan[step % 5])
        assert answer.kind != "uncertified_stop"
        path = torch.from_numpy(moved(state, answer.action)[:, [0, 1, 3, 4]]).float()
        least, state = min(least, float(disc.margin_of(path).min())), moved(state, answer.action)[-1]
    if rules.keep_out:
        assert least >= 0
    else:
        assert least < -0.02 and np.linalg.norm(state[:2] - [0.55, 0.0]) < 0.05
