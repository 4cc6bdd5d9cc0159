"""Where no kinematics are declared: actions are clipped, nothing is certified, and all that is told says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.planners.control.fakes import (  # noqa: F401
    ACTION,
    KINEMATICS,
    OBSERVATION,
    PERIOD,
    PLANNER,
    RATE,
    FakeShield,
    Rig,
    no_collection,
    rig,
)
from wm.errors import BadInputError, MismatchError
from wm.planners.control.acting import NO_READING
from wm.planners.control.bounds_filter import ACTION_BOUNDS, BoundsFilter
from wm.planners.control.parts import Certifier
from wm.planners.control.shield import ShieldLimits
from wm.planners.control.states import State
from wm.robot import RobotObservation
from wm.specs import ActionSpec, ProprioSpec

SPEC = ActionSpec(("a", "b", "c"), "1", (-1.0, 0.0, -2.0), (1.0, 4.0, 2.0), RATE)
REST = np.array([0.0, 2.0, 0.0])
FELT = np.array([0.3])


def bounds_filter() -> BoundsFilter:
    return BoundsFilter(SPEC, ShieldLimits(), REST)


def test_it_stands_in_the_shield_s_place() -> None:
    assert isinstance(bounds_filter(), Certifier) and bounds_filter().kinematics is None


def test_an_action_is_sent_as_it_is_or_as_the_closest_one_inside_its_bounds(rng: np.random.Generator) -> None:
    low, high = np.array(SPEC.low), np.array(SPEC.high)
    kinds = set()
    for asked in rng.normal(0.0, 2.0, (200, 3)):
        answer = bounds_filter().certify(FELT, asked)
        within = bool((asked >= low).all() and (asked <= high).all())
        kinds.add(answer.kind)
        np.testing.assert_array_equal(answer.action, np.clip(asked, low, high))
        assert answer.moved == pytest.approx(np.linalg.norm(answer.action - asked))
        if within:
            assert (answer.kind, answer.rule, answer.by) == ("passed", None, 0.0)
        else:
            over = np.maximum(low - asked, asked - high).max()
            assert (answer.kind, answer.rule, answer.by) == ("corrected", ACTION_BOUNDS, pytest.approx(over))
        assert answer.margin == -np.inf and answer.outside == 0.0
    assert kinds == {"passed", "corrected"}


@pytest.mark.parametrize(
    ("proprio", "asked"),
    [
        (np.array([np.nan]), np.zeros(3)),
        (np.array([0.0, np.inf]), np.zeros(3)),
        (FELT, np.array([0.0, np.nan, 0.0])),
        (FELT, np.array([np.inf, 0.0, 0.0])),
        (FELT, np.zeros(2)),
    ],
)
def test_without_a_reading_or_a_finite_action_it_rests(proprio: np.ndarray, asked: np.ndarray) -> None:
    answer = bounds_filter().certify(proprio, asked)
    np.testing.assert_array_equal(answer.action, REST)
    assert answer.kind == "uncertified_stop" and answer.rule is not None and answer.margin == -np.inf


def test_a_robot_may_feel_anything_or_nothing() -> None:
    for width in (0, 1, 7):
        assert bounds_filter().certify(np.zeros(width), REST).kind == "passed"


def test_its_answers_are_its_own_copies() -> None:
    asked, kept = REST.copy(), bounds_filter()
    kept.certify(FELT, asked).action[:] = 9.0
    kept.stop_action()[:] = 9.0
    np.testing.assert_array_equal(asked, REST)
    np.testing.assert_array_equal(kept.stop_action(), REST)


@pytest.mark.parametrize("rest", [np.zeros(2), np.array([0.0, -1.0, 0.0]), np.array([0.0, np.nan, 0.0])])
def test_a_rest_action_outside_of_the_bounds_is_refused(rest: np.ndarray) -> None:
    with pytest.raises(BadInputError, match=r"rest action: expected 3 numbers inside .*, came \["):
        BoundsFilter(SPEC, ShieldLimits(), rest)


# In the loop.

AT_REST = np.array([0.25, 0.5])


def uncertified(proprio: ProprioSpec | None) -> Rig:
    """A rig whose robot declares no kinematics and feels what it does."""
    r = rig()
    seen = replace(OBSERVATION, proprio=proprio)
    r.robot.kinematics, r.robot.observation_spec = None, seen
    r.planner.spec = replace(PLANNER, observation=seen)
    r.robot.twist = lambda o: replace(o, proprio=feeling(o, proprio))
    r.shield = BoundsFilter(ACTION, ShieldLimits(), AT_REST)  # type: ignore[assignment]
    r.build()
    return r


def feeling(observation: RobotObservation, proprio: ProprioSpec | None) -> np.ndarray | None:
    return None if proprio is None else np.full(proprio.width, observation.sequence, np.float32)


@pytest.mark.parametrize("proprio", [None, ProprioSpec(("angle",), ("rad",)), ProprioSpec((*"abcdef",), ("1",) * 6)])
def test_a_loop_drives_it_and_says_that_nothing_was_certified(proprio: ProprioSpec | None) -> None:
    r = uncertified(proprio)
    r.planner.action = np.array([0.5, -0.25])
    report = r.armed().run(2)
    assert report.state is State.IDLE and report.actions == {"passed": 20}
    assert not report.certified and report.uncertified == 20 and report.as_values()["uncertified"] == 20
    assert (report.interventions, report.contradictions, report.holds) == (0, 0, 0)
    received = np.array(r.robot.received)
    np.testing.assert_array_equal(received[:2], [AT_REST] * 2)  # until there is a plan
    np.testing.assert_array_equal(received[2:], [r.planner.action] * 18)
    assert all(step.margin == -np.inf for step in r.log.steps)


def test_a_shield_s_report_counts_its_stops_alone() -> None:
    report = rig().armed().run(1)
    assert report.certified and report.uncertified == 0


def test_a_stale_reading_is_answered_with_the_rest_action() -> None:
    r = uncertified(None)
    first: list[RobotObservation] = []

    def sticking(observation: RobotObservation) -> RobotObservation:
        seen = replace(observation, proprio=None)
        if r.clock() > 1000.95:  # from the eleventh control step on
            return first[-1]
        first.append(seen)
        return seen

    r.robot.twist = sticking
    report = r.armed().run(2)
    lost = [step for step in r.log.steps if step.rule == NO_READING]
    assert [step.step for step in lost] == list(range(10, 20))
    for step in lost:
        np.testing.assert_array_equal(step.certified, AT_REST)
    assert r.log.steps[5].kind == "passed" and np.any(r.log.steps[5].certified != AT_REST)
    assert report.actions == {"passed": 10, "uncertified_stop": 10} and report.uncertified == 20
    assert report.first_uncertified == f"{NO_READING} by inf in control step 10"
    assert r.log.steps[-1].state is State.HOLDING and PERIOD * 3 > 0.25  # and it is held for being stale


def test_a_robot_with_kinematics_is_never_driven_without_a_certificate() -> None:
    r = rig()
    r.shield = BoundsFilter(ACTION, ShieldLimits(), AT_REST)  # type: ignore[assignment]
    with pytest.raises(MismatchError, match="kinematics in the shield: expected PointKinematics.*, came None"):
        r.build().arm()
    assert r.robot.events == []


def test_a_shield_is_never_given_a_robot_without_kinematics() -> None:
    r = uncertified(OBSERVATION.proprio)
    r.shield = FakeShield()
    assert r.shield.kinematics == KINEMATICS
    with pytest.raises(MismatchError, match="what the shield certifies with in the robot"):
        r.build().arm()
    assert r.robot.events == []
