"""What `wm control` makes of sensors: its own settings of the loop, on simulated push-T."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.experiments.control_parts import InlineProcess
from tests.experiments.place import START, Place, Run, runner
from wm.envs.gym_robot import Impairments
from wm.envs.pusht.draw import draw
from wm.experiments.assemble import make_env
from wm.experiments.control_setup import ControlRequest, loop_settings, prepare
from wm.experiments.robots import SimulatedRobot, at_rest
from wm.experiments.rules import Rules
from wm.experiments.studies.closed_loop import InlinePlanner, VirtualClock
from wm.planners.control.loop import ControlLoop, StepLog
from wm.planners.control.messages import PlannerSpec, PlanReply, PlanRequest
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.control.states import State
from wm.robot import ObservationSpec, RobotObservation

pytestmark = pytest.mark.real_time


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr("wm.experiments.control.PlannerProcess", InlineProcess)
    options = {"robot": "sim:pusht", "goal": place.goal, "model": place.model, "duration": 4.0}
    return runner(monkeypatch, capsys, "control", options)


def test_settings_watch_the_camera_by_the_size_of_its_pixels(place: Place) -> None:
    request = ControlRequest(robot="sim:pusht", goal=place.goal, model=str(place.model))
    parts = prepare(request)
    parts.rig.robot.disconnect()
    assert parts.settings.picture_travel == pytest.approx(2 * 512 / 96)
    assert parts.settings == loop_settings(10.0, 96, ShieldLimits(), 0.0)
    parts = prepare(replace(request, bounds={"position_error": 3.0}))
    parts.rig.robot.disconnect()
    assert parts.settings.picture_travel == pytest.approx(2 * 512 / 96 + 6)


def test_picture_of_push_t_changes_over_half_of_that_way(rng: np.random.Generator) -> None:
    way = 0.5 * loop_settings(10.0, 96, ShieldLimits()).picture_travel  # type: ignore[operator]
    for _ in range(200):
        state = np.array([*rng.uniform(20, 490, 2), *rng.uniform(100, 400, 2), rng.uniform(-3, 3)])
        angle = rng.uniform(-np.pi, np.pi)
        moved = state + np.array([way * np.cos(angle), way * np.sin(angle), 0, 0, 0])
        assert not np.array_equal(draw(state), draw(moved))


def sticking(what: str) -> Callable[[SimulatedRobot], RobotObservation]:
    """`SimulatedRobot.get_observation` whose picture or proprioception sticks from the fifth reading on."""
    observe, stuck = SimulatedRobot.get_observation, {}

    def get_observation(self: SimulatedRobot) -> RobotObservation:
        seen = observe(self)
        return seen if seen.sequence < 4 else replace(seen, **{what: stuck.setdefault(what, getattr(seen, what))})

    return get_observation


@pytest.mark.parametrize(("what", "why"), [("image", "frozen picture"), ("proprio", "frozen readings")])
def test_sensor_that_sticks_holds_the_robot(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch, what: str, why: str
) -> None:
    monkeypatch.setattr(SimulatedRobot, "get_observation", sticking(what))
    _, _, err = run(log=place.log)
    rows = [json.loads(line) for line in (place.log / "steps.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "step" in row]
    assert steps[-1]["state"] == "holding" and steps[-1]["why"].startswith(why), err
    assert not any(np.any(step["sent"]) for step in steps if step["state"] == "holding")
    assert rows[-2].keys() == {"end"} or rows[-1].keys() == {"end"}


@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("error", [0.0, 2.0])
def test_ordinary_runs_never_contradict_the_bounds(late: int, error: float, rng: np.random.Generator) -> None:
    env, clock, steps = make_env("pusht", 96), VirtualClock(), []
    limits = ShieldLimits(late / 10, position_error=1.5 * error, velocity_error=1.5 * error)
    wrong = Impairments(action_delay_steps=late, proprio_noise=error, seed=3)
    options = {"state": at_rest(np.array(START), env.env_spec), "goal_state": None}
    robot = SimulatedRobot(env, impairments=wrong, reset_options=options, clock=clock)
    rules = Rules(keep_out=((300.0, 200.0, 40.0),), max_speed=600.0).guardrails()
    shield = Shield(env.kinematics, env.env_spec.action, rules, limits)

    def plan(request: PlanRequest) -> PlanReply:
        return PlanReply(request.step, np.concatenate([request.committed, rng.uniform(-1, 1, (18, 2))]))

    spec = PlannerSpec(env.env_spec.action, ObservationSpec(96, env.env_spec.proprio), frames=2, stride=5)
    log = Kept(steps)
    settings = loop_settings(10.0, 96, limits)
    loop = ControlLoop(robot, InlinePlanner(plan, spec), shield, settings, log=log, clock=clock, sleep=clock.sleep)
    loop.arm()
    report = loop.run(20)
    loop.close()
    assert report.state is State.IDLE and report.holds == 0 and report.history[-1].startswith("running -> idle")
    assert {step.outside for step in steps} == {0.0} and report.uncertified == 0
    assert sum(bool(np.any(step.sent)) for step in steps) > 100


class Kept:
    """Control steps in a list."""

    def __init__(self, steps: list[StepLog]) -> None:
        self.record: Any = steps.append
