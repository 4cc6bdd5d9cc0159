"""What the loop promises when something goes wrong; everything on a fake clock but the wall clock's own test."""

from __future__ import annotations

import ast
import datetime
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.planners.control.fakes import (
    ACTION,
    KINEMATICS,
    LEAD,
    OBSERVATION,
    PERIOD,
    PLANNER,
    FakeLog,
    FakeShield,
    Rig,
    assert_log_is_what_the_robot_received,
    moving,
    no_collection,  # noqa: F401
    rig,
)
from wm.errors import BadInputError, MismatchError, RobotError
from wm.planners.control.loop import ControlLoop, LoopReport
from wm.planners.control.messages import PlanFailure, PlanReply, PlanRequest
from wm.planners.control.shield import Certified, Shield, ShieldLimits
from wm.planners.control.states import State
from wm.planners.guardrails import WorkspaceBox
from wm.specs import ProprioSpec

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).resolve().parents[2]


# Late plans.


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.5, 2.0, 5.0, 10.0])
def test_plan_that_comes_late_is_never_executed(factor: float) -> None:
    r = rig(plan_timeout_s=100)
    r.planner.takes_s = factor * LEAD * PERIOD - 0.005
    report = r.armed().run(10)
    if factor <= 1:
        assert all(r.moving[LEAD:]) and "late" not in report.plans
    else:
        assert not any(r.moving) and report.plans["late"] >= 4 and "fresh" not in report.plans


def test_rest_of_the_last_plan_runs_while_the_next_is_late_then_the_stop() -> None:
    r = rig(plan_timeout_s=100)
    r.planner.length = 9

    def slower(request: PlanRequest) -> PlanReply:
        r.planner.takes_s = 0.13 if request.step == 0 else 1.3
        return r.planner.plan(request)

    r.planner.answer = slower
    report = r.armed().run(4)
    assert [i for i, moves in enumerate(r.moving) if moves] == list(range(LEAD, 9))
    assert {step.plan_step for step in moving(r.log.steps)} == {0}
    assert report.plans == {"fresh": 1, "late": 2}


def test_without_any_plan_in_time_the_loop_faults_and_says_why() -> None:
    r = rig(plan_timeout_s=2)
    r.planner.takes_s = 0.65
    report = r.armed().run(60)
    assert report.state is State.FAULTED and r.robot.events[-1] == "stop"
    assert report.why.startswith("WmError: no plan in time for 2.")
    assert "3 late; a plan came after 7 control steps, at most 2" in report.why


def test_planner_that_raises_is_reported_and_the_rest_of_the_plan_runs() -> None:
    r = rig(plan_timeout_s=1)
    r.planner.answer = lambda request: (
        r.planner.plan(request) if request.step == 0 else PlanFailure(request.step, "ValueError: out of ideas")
    )
    report = r.armed().run(60)
    assert [i for i, moves in enumerate(r.moving) if moves] == list(range(LEAD, 20))
    assert report.state is State.FAULTED and "failed; ValueError: out of ideas" in report.why


def test_planner_that_dies_ends_the_run_when_its_last_plan_is_over() -> None:
    r = rig(plan_timeout_s=100)
    r.clock.after(1.02, lambda: setattr(r.planner, "alive", False))
    report = r.armed().run(60)
    assert moving(r.log.steps)[-1].step == 5 + 20 - 1
    assert report.state is State.FAULTED and "the planner process does not run any more" in report.why


def test_planner_that_hangs_ends_the_run() -> None:
    r = rig(plan_timeout_s=2)
    r.planner.takes_s = 1e9
    report = r.armed().run(60)
    assert report.state is State.FAULTED and report.duration_s < 2.3 and "no answer" in report.why


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda a: np.where(np.arange(20)[:, None] == 9, np.nan, a), "an action is not finite"),
        (lambda a: np.where(np.arange(20)[:, None] == 9, 1.5, a), "an action is out of its bounds"),
        (lambda a: a[:2], "expected more than 2 actions"),
        (lambda a: a[:, :1], "expected more than 2 actions of 2 numbers"),
        (lambda a: -np.ones_like(a), "it does not begin with the committed actions"),
    ],
)
def test_plan_that_is_no_plan_is_refused(spoil: Callable[[np.ndarray], np.ndarray], why: str) -> None:
    r = rig(plan_timeout_s=1)
    r.planner.answer = lambda request: replace(r.planner.plan(request), actions=spoil(r.planner.plan(request).actions))
    report = r.armed().run(60)
    assert not any(r.moving) and report.state is State.FAULTED and f"a plan was refused: {why}" in report.why


@pytest.mark.parametrize("shift", [-3, 3])
def test_plan_for_another_step_than_was_asked_is_not_executed(shift: int) -> None:
    r = rig(plan_timeout_s=1)
    r.planner.answer = lambda request: replace(r.planner.plan(request), step=request.step + shift)
    report = r.armed().run(60)
    assert not any(r.moving) and report.plans == {"discarded": 1} and report.state is State.FAULTED


# Errors of parts.


@pytest.mark.parametrize("index", range(12))
def test_send_action_that_raises_stops_the_robot_at_every_index(index: int) -> None:
    r = rig()

    def fail(i: int) -> None:
        if i == index:
            raise RobotError("cable pulled")

    r.robot.before_send = fail
    report = r.armed().run(2)
    assert report.state is State.FAULTED and report.why == "RobotError: cable pulled"
    assert len(r.robot.received) == index and r.robot.events[-1] == "stop"
    assert_log_is_what_the_robot_received(r)
    with pytest.raises(BadInputError, match=r"cannot start: the loop is faulted \(RobotError: cable pulled\)"):
        r.loop.run(1)


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("error", [RobotError("no answer"), KeyboardInterrupt()])
def test_action_that_the_robot_took_without_an_answer_is_logged_as_an_attempt(index: int, error: BaseException) -> None:
    r = rig()
    send = r.robot.send_action

    def lossy(action: np.ndarray) -> np.ndarray:
        sent = send(action)
        if len(r.robot.received) == index + 1:
            raise error
        return sent

    r.robot.send_action = lossy  # type: ignore[method-assign]
    report = r.armed().run(2)
    assert report.state in (State.FAULTED, State.STOPPED) and r.robot.events[-1] == "stop"
    assert len(r.log.steps) == len(r.robot.received) == index + 1 and sum(report.actions.values()) == index
    np.testing.assert_array_equal([step.certified for step in r.log.steps], r.robot.received)
    assert r.log.steps[-1].sent is None and all(step.sent is not None for step in r.log.steps[:-1])
    assert (r.log.steps[-1].plan_step is not None) == (index >= LEAD)


def test_log_that_fails_as_well_does_not_hide_the_error_of_the_robot() -> None:
    r = Rig(log=FakeLog(room=5))
    r.robot.before_send = lambda index: (_ for _ in ()).throw(RobotError("cable pulled")) if index == 5 else None
    assert r.armed().run(2).why == "RobotError: cable pulled"


def test_every_other_part_that_raises_stops_the_robot_and_is_named() -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("broken part")

    for owner, name in [
        ("robot", "get_observation"),
        ("planner", "poll"),
        ("planner", "submit"),
        ("shield", "certify"),
        ("supervisor", "beat"),
        ("log", "record"),
        ("senses", "_surprise"),
    ]:
        r = rig()
        loop = r.armed()
        part = loop._senses if owner == "senses" else getattr(r, owner)
        r.clock.after(0.85, lambda part=part, name=name: setattr(part, name, broken))
        report = loop.run(2)
        assert (report.state, report.why) == (State.FAULTED, "ValueError: broken part"), (owner, name)
        assert r.robot.events[-1] == "stop", (owner, name)


def test_stop_that_fails_is_tried_again_and_handed_to_the_supervisor() -> None:
    r = rig()
    loop = r.armed()
    tries: list[float] = []

    def fail() -> None:
        tries.append(r.clock())
        raise RobotError("no answer")

    r.robot.before_stop = fail
    report = loop.run(1)
    assert report.state is State.FAULTED and "the robot's stop failed: RobotError: no answer" in report.why
    assert len(tries) == 3 and r.supervisor.asked and r.supervisor.watched


def test_supervisor_hears_a_heartbeat_before_each_attempt_at_a_stop() -> None:
    r = rig()
    loop = r.armed()
    beats: list[int] = []

    def hang() -> None:
        beats.append(len(r.supervisor.beats))
        r.clock.sleep(0.08)
        raise RobotError("no answer")

    r.robot.before_stop = hang
    loop.run(1)
    assert len(beats) == 3 and np.diff(beats).tolist() == [1, 1]


def test_stop_that_fails_once_is_enough_the_second_time() -> None:
    r = rig()
    loop = r.armed()
    errors = [RobotError("busy"), KeyboardInterrupt()]

    def fail() -> None:
        if errors:
            raise errors.pop()

    r.robot.before_stop = fail
    assert loop.run(1).state is State.IDLE and r.robot.events[-1] == "stop"


def test_full_disk_stops_the_robot_and_keeps_what_was_logged() -> None:
    r = Rig(log=FakeLog(room=7))
    report = r.armed().run(5)
    assert report.state is State.FAULTED and "No space left on device" in report.why
    assert r.robot.events[-1] == "stop" and len(r.log.steps) == 7 and len(r.robot.received) == 8
    np.testing.assert_array_equal([step.sent for step in r.log.steps], r.robot.received[:7])


@pytest.mark.parametrize("answer", [np.array([np.nan, 0.0]), np.zeros(3), None])
def test_robot_that_answers_nonsense_is_stopped(answer: object) -> None:
    r = rig()
    loop = r.armed()
    r.robot.send_action = lambda action: answer  # type: ignore[method-assign,assignment,return-value]
    report = loop.run(1)
    assert report.state is State.FAULTED and "the robot says it took" in report.why and r.robot.events[-1] == "stop"


# The filter.


@pytest.mark.parametrize("action", [[np.nan, 0.0], [0.0, np.inf], [1.2, 0.0], [0.0, -1.0001], [0.0]])
def test_answer_of_the_shield_that_is_no_action_is_never_sent(action: list[float]) -> None:
    r = rig()
    loop = r.armed()
    r.clock.after(0.55, lambda: setattr(r.shield, "rule", lambda c: replace(c, action=np.array(action))))
    report = loop.run(2)
    assert report.state is State.FAULTED and "which is not an action inside its bounds" in report.why
    assert len(r.robot.received) == 6 and r.robot.events[-1] == "stop"


def test_infeasible_filter_brakes_and_is_counted() -> None:
    r = rig()
    loop = r.armed()
    r.shield.rule = lambda c: Certified(np.zeros(2), "uncertified_stop", "workspace", 5.0, 0.5, -5.0)
    report = loop.run(1)
    assert report.actions == {"uncertified_stop": 10} and not any(r.moving)
    assert (report.uncertified, report.interventions) == (10, 0)
    assert report.first_uncertified == "workspace by 5.0 in control step 0"


def test_plan_out_of_the_workspace_is_stopped_by_the_real_shield() -> None:
    r = rig()
    box = WorkspaceBox((156.0, 156.0), (290.0, 356.0))
    r.shield = Shield(KINEMATICS, ACTION, [box], ShieldLimits(position_error=0.5))  # type: ignore[assignment]
    state = np.array([256.0, 256.0, 0.0, 0.0])

    def send(action: np.ndarray) -> np.ndarray:
        target = state[:2] + 100 * action
        for _ in range(10):
            state[2:] += (100 * (target - state[:2]) - 20 * state[2:]) * 0.01
            state[:2] += state[2:] * 0.01
        places.append(state[0])
        return action

    places: list[float] = []
    r.robot.send_action = send  # type: ignore[method-assign]
    r.robot.twist = lambda o: replace(o, proprio=state.astype(np.float32))
    report = r.build() and r.armed().run(3)
    assert isinstance(report, LoopReport) and report.state is State.IDLE
    assert 280 < max(places) <= 290 and report.actions["passed"] >= 3 and report.interventions > 10


# Matching, the log, the wall clock.


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("shield", "action_spec", replace(ACTION, high=(0.5, 1.0)), "action in the shield: expected ActionSpec"),
        ("shield", "kinematics", replace(KINEMATICS, kp=50.0), "kinematics in the shield: expected PointKinematics"),
        ("planner", "spec", replace(PLANNER, action=replace(ACTION, unit="m")), "action in the planner"),
        (
            "planner",
            "spec",
            replace(PLANNER, observation=replace(OBSERVATION, image_size=9)),
            r"picture size \[px\] in the planner: expected 8, came 9",
        ),
        ("planner", "spec", replace(PLANNER, observation=replace(OBSERVATION, proprio=None)), "proprioception in the"),
        ("robot", "action_spec", replace(ACTION, control_hz=20.0), r"rate \[Hz\] in the loop's settings: expected 20"),
        ("robot", "kinematics", None, "what the shield certifies with in the robot"),
        ("robot", "observation_spec", replace(OBSERVATION, proprio=None), "what the shield certifies with"),
    ],
)
def test_parts_that_do_not_match_refuse_to_start(part: str, name: str, value: object, message: str) -> None:
    r = rig()
    setattr(getattr(r, part), name, value)
    with pytest.raises(MismatchError, match=message):
        r.loop.arm()
    assert r.loop.state is State.IDLE and r.robot.events == []


def test_proprioception_of_another_width_is_refused() -> None:
    r = rig()
    wide = replace(OBSERVATION, proprio=ProprioSpec((*"abcdef",), ("px",) * 6))
    r.robot.observation_spec, r.planner.spec = wide, replace(PLANNER, observation=wide)
    with pytest.raises(MismatchError, match=r"numbers of proprioception \(x, y, vx, vy\) in the robot: expected 4"):
        r.loop.arm()
    assert r.robot.events == []


def test_log_equals_what_the_robot_received_whatever_happens(rng: np.random.Generator) -> None:
    r = rig(plan_timeout_s=0.5)
    r.shield = FakeShield()
    r.shield.rule = lambda c: replace(c, action=np.clip(c.action + rng.normal(0, 0.3, 2), -1, 1), kind="corrected")
    loop = r.build()
    send = r.robot.send_action
    r.robot.send_action = lambda action: send(np.clip(action, -0.4, 0.4))  # type: ignore[method-assign]
    for _ in range(5):
        loop.arm()
        r.planner.takes_s = float(rng.uniform(0.05, 0.4))
        r.clock.after(float(rng.uniform(0.2, 2)), lambda: loop.estop("now"))
        assert loop.run(3).state in (State.STOPPED, State.FAULTED)
        assert_log_is_what_the_robot_received(r)
        loop.reset()


def test_wall_clock_that_jumps_by_an_hour_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = [0]

    def jumping(*_: object) -> float:
        jumps[0] += 1
        return 1.7e9 + (3600 if jumps[0] % 2 else -3600)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(jumping(), tz)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    monkeypatch.setattr(datetime, "datetime", Jumping)
    r = rig()
    r.planner.takes_s = 0.05
    r.clock = r.robot.clock = r.planner.clock = r.supervisor.clock = time.monotonic  # type: ignore[assignment]
    loop = ControlLoop(r.robot, r.planner, r.shield, r.settings, supervisor=r.supervisor, log=r.log)
    loop.arm()
    report = loop.run(0.8)
    assert report.state is State.IDLE and report.holds == 0 and any(r.moving)
    assert report.periods == 8 and report.duration_s == pytest.approx(0.8, abs=0.1)


def test_no_module_of_the_loop_asks_the_wall_clock() -> None:
    folders = ROOT / "planners" / "control", ROOT / "envs" / "bridge"
    alone = "wm/watchdog.py", "wm/robot.py", "envs/gym_robot.py", "envs/lerobot.py", "experiments/episode_sink.py"
    files = [*(file for folder in folders for file in folder.glob("*.py")), *(ROOT / name for name in alone)]
    assert len(files) > 30
    wall = {"time", "time_ns", "ctime", "gmtime", "localtime", "strftime", "asctime", "clock_gettime"}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert "datetime" not in names and getattr(node, "module", None) != "datetime", file
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                assert not wall & set(names), file
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                assert node.attr not in wall, f"{file}: time.{node.attr}"
