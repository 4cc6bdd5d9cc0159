"""What the loop promises when observations are bad, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.planners.control.fakes import (
    LEAD,
    Rig,
    moving,
    no_collection,  # noqa: F401
    rig,
)
from wm.planners.control.shield import ShieldLimits
from wm.planners.control.states import State
from wm.robot import RobotObservation

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
    assert not any(step.fresh or step.sent.any() for step in bad)  # no action without a reading to certify it with
    assert all(step.state is State.HOLDING for step in bad if step.time > 1001.0 + r.settings.stale_after_s + 0.01)
    again = [step for step in moving(r.log.steps) if step.step > 20]
    assert again[0].step == 21 + r.settings.resume_after_steps - 1 + LEAD  # held until it is fresh again, then asked
    assert again[0].plan_step is not None and again[0].plan_step > 20
    first = next(request for request in r.planner.requests if request.step > 20)
    np.testing.assert_array_equal(first.images[0], first.images[1])  # the robot stood still; no picture from before


@pytest.mark.parametrize("what", ["reading", "picture"])
def test_frozen_sensors_that_still_count_hold_the_robot_until_they_change(what: str) -> None:
    r = rig(frozen_after_s=0.5, picture_travel=4.0)
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
    assert not any(step.sent.any() for step in held)
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
