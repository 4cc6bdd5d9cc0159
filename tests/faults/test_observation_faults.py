"""What the loop promises when observations are bad, on a fake clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.planners.control.fakes import (
    ACTION,
    KINEMATICS,
    LEAD,
    PERIOD,
    STOP,
    FakeClock,
    MovingRobot,
    Rig,
    moving,
    no_collection,  # noqa: F401
    rig,
    taken,
)
from wm.planners.control.acting import CONTRADICTED
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.control.states import State
from wm.planners.guardrails import KeepOutDiscs, WorkspaceBox
from wm.robot import RobotObservation

pytestmark = pytest.mark.real_time

Twist = Callable[[Rig, RobotObservation, RobotObservation], RobotObservation]

BAD_OBSERVATIONS: dict[str, Twist] = {
    "repeated": lambda r, good, last: last,
    "reordered": lambda r, good, last: replace(good, sequence=last.sequence - 1, stamp=good.stamp),
    "stamped before the last": lambda r, good, last: replace(good, stamp=last.stamp - 0.001),
    "stamped in the future": lambda r, good, last: replace(good, stamp=good.stamp + 0.02),
    "stamped far in the future": lambda r, good, last: replace(good, stamp=good.stamp + 3600),
    "stale": lambda r, good, last: replace(good, stamp=good.stamp - 0.3),
    "not finite": lambda r, good, last: replace(good, proprio=good.proprio * np.float32("nan")),
    "of another picture size": lambda r, good, last: replace(good, image=np.zeros((4, 4, 3), np.uint8)),
    "of another picture type": lambda r, good, last: replace(good, image=good.image.astype(np.float64)),
    "without proprioception": lambda r, good, last: replace(good, proprio=None),
}


@pytest.mark.parametrize("kind", BAD_OBSERVATIONS)
def test_bad_observations_hold_the_robot_in_time_until_they_are_good_again(kind: str) -> None:
    r = rig()
    good: list[RobotObservation] = []

    def twist(observation: RobotObservation) -> RobotObservation:
        if 1001.05 < r.clock() < 1002.05:
            return BAD_OBSERVATIONS[kind](r, observation, good[-1])
        good.append(observation)
        return observation

    r.robot.twist = twist
    report = r.armed().run(5)
    assert report.state is State.IDLE and report.holds == 1
    used = [step.observation.sequence for step in r.log.steps if step.observation is not None]
    assert set(used) <= {observation.sequence for observation in good}
    bad = [step for step in r.log.steps if 10 < step.step <= 20]
    assert not any(step.fresh or taken(step).any() for step in bad)  # no action without a reading to certify it with
    assert all(step.state is State.HOLDING for step in bad if step.time > 1001.0 + r.settings.stale_after_s + 0.01)
    again = [step for step in moving(r.log.steps) if step.step > 20]
    assert again[0].step == 21 + r.settings.resume_after_steps - 1 + LEAD  # held until it is fresh again, then asked
    assert again[0].plan_step is not None and again[0].plan_step > 20
    first = next(request for request in r.planner.requests if request.step > 20)
    np.testing.assert_array_equal(first.images[0], first.images[1])  # the robot stood still; no picture from before


@pytest.mark.parametrize("what", ["reading", "picture"])
def test_frozen_sensors_that_still_count_hold_the_robot_until_they_change(what: str) -> None:
    r = rig(picture_travel=4.0)
    frozen: list[RobotObservation] = []

    def twist(observation: RobotObservation) -> RobotObservation:
        if not 1001.05 < r.clock() < 1004.05:
            return observation
        frozen.append(observation)
        proprio = frozen[0].proprio if what == "reading" else observation.proprio
        return replace(observation, image=frozen[0].image, proprio=proprio)

    r.robot.twist = twist
    report = r.armed().run(7)
    held = [step for step in r.log.steps if step.state is State.HOLDING]
    assert report.holds == 1 and held[0].step < 25 and held[-1].step >= 40
    assert not any(taken(step).any() for step in held)
    assert [step.plan_step for step in moving(r.log.steps) if step.step > 40][0] >= 41  # type: ignore[operator]


def test_single_lost_observation_costs_one_stop_action_and_no_hold() -> None:
    r = rig()
    last: list[RobotObservation] = []

    def twist(observation: RobotObservation) -> RobotObservation:
        if 1001.05 < r.clock() < 1001.15:
            return last[-1]
        last.append(observation)
        return observation

    r.robot.twist = twist
    report = r.armed().run(2)
    assert [i for i, moves in enumerate(r.moving) if not moves] == [0, 1, 11] and report.holds == 0


def test_reading_older_than_the_stated_latency_certifies_nothing() -> None:
    r = rig()
    r.robot.twist = lambda o: replace(o, stamp=o.stamp - 0.05)
    r.armed().run(1)
    assert not any(r.moving)
    r.shield.limits = ShieldLimits(latency=0.05)
    r.loop.arm()
    r.loop.run(1)
    assert any(r.moving)
    r = rig(reading_age_s=0.02)  # the rest of the latency is the action's
    r.robot.twist = lambda o: replace(o, stamp=o.stamp - 0.05)
    r.shield.limits = ShieldLimits(latency=0.05)
    r.armed().run(1)
    assert not any(r.moving)


def test_surprising_observation_holds_the_robot_until_it_is_over() -> None:
    r = rig()
    r.surprise = lambda observation: 1001.05 < observation.stamp < 1001.55
    r.build()
    report = r.armed().run(4)
    held = [step.step for step in r.log.steps if step.state is State.HOLDING]
    assert held == list(range(11, 15 + r.settings.resume_after_steps)) and report.holds == 1
    assert "running -> holding (hold: surprising observation)" in report.history
    assert [step for step in moving(r.log.steps) if step.step > 11][0].plan_step == held[-1] + 1


def test_plan_of_before_a_hold_is_not_executed_after_it() -> None:
    r = rig(plan_timeout_s=100, resume_after_steps=1)
    r.planner.takes_s = 0.19
    loop = r.armed()
    r.clock.after(0.52, lambda: loop.hold())  # a request of step 5 is under way
    r.clock.after(0.62, lambda: loop.resume())
    report = loop.run(3)
    assert report.plans["discarded"] == 1
    assert [step for step in moving(r.log.steps) if step.step > 5][0].plan_step == 7


def test_pictures_of_a_hold_are_not_planned_with() -> None:
    r = rig(plan_timeout_s=100, resume_after_steps=1)
    loop = r.armed()
    r.clock.after(0.52, lambda: loop.hold())
    r.clock.after(1.22, lambda: loop.resume())
    loop.run(3)
    first = next(request for request in r.planner.requests if request.step > 8)
    before = next(request for request in r.planner.requests if request.step == 5)
    assert len(np.unique(before.images)) == 2  # each picture here is of one level, its number
    assert len(np.unique(first.images)) == 1  # the first one since


class FreeRunningRobot(MovingRobot):
    """That ticks on its own, ``phase`` seconds after the loop, whose readings come up to 4 ms late.

    Between two ticks its readings are the same, with the tick's number and stamp or, ``renumbered``, with new ones.
    """

    phase, renumbered = 0.0, False

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.held, self.ticks, self.rng = STOP, 0, np.random.default_rng(0)
        self.began: float | None = None

    def tick(self) -> None:
        if self.began is None:
            self.began = self.clock() + self.phase
        while self.began + self.ticks * PERIOD <= self.clock():
            super().send_action(self.held)
            self.ticks += 1

    def get_observation(self) -> RobotObservation:
        self.clock.sleep(0.004 * self.rng.random())
        self.tick()
        seen = super().get_observation()
        if self.renumbered or self.began is None or self.ticks == 0:
            return seen
        return replace(seen, stamp=self.began + (self.ticks - 1) * PERIOD, sequence=1000 + self.ticks)

    def send_action(self, action: np.ndarray) -> np.ndarray:
        self.tick()
        self.held = action.copy()
        return action.copy()

    def stop(self) -> None:
        self.tick()
        self.held = STOP
        super().stop()


@pytest.mark.parametrize("phase", [0.004, 0.005, 0.006])
@pytest.mark.parametrize("renumbered", [False, True])
def test_robot_whose_ticks_fall_into_the_jitter_of_its_readings_is_not_held(
    renumbered: bool, phase: float, rng: np.random.Generator
) -> None:
    r = certified_rig(0, ShieldLimits(latency=2 * PERIOD))
    r.settings = replace(r.settings, reading_age_s=PERIOD)
    r.robot = robot = FreeRunningRobot(r.clock)
    robot.phase, robot.renumbered = phase, renumbered
    way = rng.uniform(-0.3, 0.3, 2)
    r.planner.answer = lambda request: replace(
        r.planner.plan(request),
        actions=np.concatenate([request.committed, np.tile(way, (20 - len(request.committed), 1))]),
    )
    r.build()
    report = r.armed().run(10)
    seen = [step.observation for step in r.log.steps if step.observation is not None]
    again = sum(np.array_equal(a.proprio, b.proprio) and a.proprio[2:].any() for a, b in itertools.pairwise(seen))
    assert again >= 10, "the tick misses the jitter"
    assert (report.holds, report.contradictions, report.uncertified) == (0, 0, 0)
    assert report.state is State.IDLE and smallest_true_margin(r) >= 0.0


KEEP_OUT = KeepOutDiscs([[400.0, 256.0]], [40.0], 15.0)


def certified_rig(late: int = 0, limits: ShieldLimits | None = None) -> Rig:
    """The real shield and a robot that moves towards a keep-out, which is 145 px away."""
    r = rig()
    r.robot = MovingRobot(r.clock)
    r.robot.late = late
    rules = [WorkspaceBox((0.0, 0.0), (512.0, 512.0), 15.0), KEEP_OUT]
    limits = limits or ShieldLimits(latency=late * PERIOD)
    r.settings = replace(r.settings, reading_age_s=max(0.0, limits.latency - late * PERIOD))  # the rest is the action's
    r.shield = Shield(KINEMATICS, ACTION, rules, limits)  # type: ignore[assignment]
    r.planner.action = np.array([1.0, 0.0])
    r.build()
    return r


def smallest_true_margin(r: Rig) -> float:
    assert isinstance(r.robot, MovingRobot)
    return float(np.linalg.norm(np.array(r.robot.path) - KEEP_OUT.centers[0].numpy(), axis=1).min()) - 55.0


@pytest.mark.parametrize(("late", "stated"), [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)])
@pytest.mark.parametrize("what", ["place", "place and velocity"])
def test_position_sensor_that_sticks_while_the_camera_is_alive_drives_the_robot_into_nothing(
    what: str, late: int, stated: int
) -> None:
    for first in (0, 3, 4, 5, 7, 9):
        r = certified_rig(late, ShieldLimits(stated * PERIOD))
        begin, stuck = r.clock() + first * PERIOD - 0.01, []

        def stick(observation: RobotObservation, begin: float = begin, stuck: list[np.ndarray] = stuck) -> Any:
            if r.clock() < begin:  # noqa: B023
                return observation
            stuck.append(observation.proprio)
            same = 4 if what == "place and velocity" else 2
            return replace(observation, proprio=np.concatenate([stuck[0][:same], observation.proprio[same:]]))

        r.robot.twist = stick
        report = r.armed().run(3)
        assert report.state is State.IDLE and smallest_true_margin(r) >= 0.0, first
        assert (report.holds >= 1 and not any(r.moving[20:])) or first >= 9, first  # by then it hardly moves


def test_reading_outside_of_the_stated_bounds_stops_and_holds_until_readings_are_calm() -> None:
    r = certified_rig()
    r.planner.action = np.array([-0.2, 0.3])

    def shove(observation: RobotObservation) -> RobotObservation:
        away = 1001.05 < r.clock() < 1001.15
        return replace(observation, proprio=observation.proprio + np.float32(5.0)) if away else observation

    r.robot.twist = shove
    report = r.armed().run(3)
    (first,) = (step for step in r.log.steps if step.outside > 0)
    assert first.step == 11 and first.outside > 4 and first.why.endswith("outside of what the stated bounds allow")
    assert (first.kind, first.rule, first.by) == ("uncertified_stop", CONTRADICTED, first.outside)
    held = [step for step in r.log.steps if step.state is State.HOLDING]
    assert [step.step for step in held] == [11, *range(12, 12 + r.settings.resume_after_steps)]
    assert not any(taken(step).any() for step in held)
    assert next(step for step in moving(r.log.steps) if step.step > 11).plan_step == 15
    assert (report.holds, report.contradictions, report.outside, report.uncertified) == (1, 1, first.outside, 1)
    assert report.first_uncertified == f"{CONTRADICTED} by {first.outside:.1f} in control step 11"


@pytest.mark.parametrize(("late", "stated"), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)])
def test_position_sensor_that_sticks_drives_the_robot_no_farther_than_the_stated_errors_hide(
    late: int, stated: int
) -> None:
    """Twice 5 px, and what 50 px/s are until the robot has come to rest."""
    for first in (0, 6, 7, 9, 11):
        r = certified_rig(late, ShieldLimits(stated * PERIOD, position_error=5.0, velocity_error=50.0))
        begin, stuck = r.clock() + first * PERIOD - 0.01, []

        def stick(observation: RobotObservation, begin: float = begin, stuck: list[np.ndarray] = stuck) -> Any:
            if r.clock() >= begin:  # noqa: B023
                stuck.append(observation.proprio)
            return replace(observation, proprio=stuck[0]) if stuck else observation

        r.robot.twist = stick
        assert r.armed().run(6).state is State.IDLE and smallest_true_margin(r) > -14.0, first


@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("error", [0.0, 2.0])
def test_readings_on_time_and_within_the_stated_errors_never_hold(
    late: int, error: float, rng: np.random.Generator
) -> None:
    limits = ShieldLimits(late * PERIOD, position_error=error, velocity_error=10 * error)
    r = certified_rig(late, limits)
    r.planner.answer = lambda request: replace(
        r.planner.plan(request),
        actions=np.concatenate([request.committed, rng.uniform(-1, 1, (20 - len(request.committed), 2))]),
    )

    def noisy(observation: RobotObservation) -> RobotObservation:
        noise = rng.uniform(-1, 1, 4) * error * np.array([1, 1, 10, 10]) / np.sqrt(2)
        return replace(observation, proprio=(observation.proprio + noise).astype(np.float32))

    r.robot.twist = noisy
    report = r.armed().run(10)
    assert report.state is State.IDLE and report.holds == 0 and any(r.moving)
    assert {step.outside for step in r.log.steps} == {0.0} and (report.contradictions, report.outside) == (0, 0.0)
    assert report.uncertified == 0 and smallest_true_margin(r) >= 0.0
