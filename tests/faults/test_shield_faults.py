"""What the shield promises under attack, one promise a test; each fails when the guard that keeps it is deleted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from wm.experiments.studies import shield_fuzz
from wm.experiments.studies.launch import MISSED
from wm.experiments.studies.point_robot import (
    KICK_TRAVEL,
    PUSH_SPEED,
    PUSHER,
    PUSHER_ACTION,
    Errors,
    PointRobot,
    Troubles,
)
from wm.experiments.studies.shield_fuzz import Scene, Tally, executed_margins, play, random_adversary, random_scene, run
from wm.planners.control.shield import Certified, Shield, ShieldLimits
from wm.planners.guardrails import (
    AccelerationLimit,
    Guardrail,
    JerkLimit,
    KeepOutDiscs,
    KeepOutPolygons,
    SpeedLimit,
    WorkspaceBox,
)

pytestmark = pytest.mark.real_time

BOX = WorkspaceBox((0, 0), (512, 512), 15.0)
DISC = KeepOutDiscs([[256, 256]], [60.0], 15.0)
TRIANGLE = KeepOutPolygons([[[380, 100], [470, 140], [390, 200]]], 15.0)
CENTRE = np.array([[256.0, 256.0]])
numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
directions = st.floats(0, 2 * np.pi)
FEW = settings(max_examples=30)


def drive(
    rules: list[Guardrail],
    troubles: Troubles,
    place: tuple[float, float],
    asked: list[np.ndarray],
    seed: int = 0,
    max_rate: float | None = None,
    lost: float = 0.0,
) -> tuple[np.ndarray, list[Certified]]:
    """Executed true states of every simulation step, and the answers; a share of the readings is ``lost``."""
    shield = Shield(PUSHER, PUSHER_ACTION, rules, troubles.limits, max_rate=max_rate)
    robot = PointRobot(np.array(place), CENTRE, troubles, np.random.default_rng(seed))
    assert shield.certify(robot.reading(), np.zeros(2)).kind == "passed"
    robot.step(np.zeros(2))
    states, answers, luck = [], [], np.random.default_rng([seed, 1])
    for action in asked:
        reading = robot.reading()
        answers.append(shield.certify(np.full(4, np.nan) if luck.random() < lost else reading, action))
        states.append(robot.step(answers[-1].action)[1:])
    return np.concatenate(states), answers


def assert_safe(rules: list[Guardrail], states: np.ndarray, answers: list[Certified]) -> None:
    for rule in rules:
        assert executed_margins(rule, states).min() >= 0, rule.name
    assert "uncertified_stop" not in {answer.kind for answer in answers}
    assert max(answer.outside for answer in answers) == 0.0
    sent = np.array([answer.action for answer in answers])
    assert (np.abs(sent) <= 1).all()


def towards(angle: float, size: float = 1.0) -> np.ndarray:
    return size * np.array([np.cos(angle), np.sin(angle)])


@FEW
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_no_command_breaks_the_action_bounds_or_raises(commands: list[tuple[float, float]]) -> None:
    _, answers = drive([BOX, DISC], Troubles(ShieldLimits()), (100.0, 100.0), [np.array(c) for c in commands])
    for command, answer in zip(commands, answers, strict=True):
        assert np.isfinite(answer.action).all() and (np.abs(answer.action) <= 1).all()
        if not np.isfinite(command).all():
            assert answer.rule == "non-finite command" and not answer.action.any()


@FEW
@given(st.lists(st.tuples(directions, st.floats(0, 2)), min_size=5, max_size=25), st.floats(0.1, 0.6))
def test_no_command_breaks_the_action_rate(commands: list[tuple[float, float]], rate: float) -> None:
    asked = [towards(*command) for command in commands]
    states, answers = drive([BOX], Troubles(ShieldLimits()), (256.0, 100.0), asked, max_rate=rate)
    assert_safe([BOX], states, answers)
    last = np.zeros(2)
    for answer in answers:
        if answer.kind != "stop":
            assert np.abs(answer.action - last).max() <= rate + 1e-6
        last = answer.action


@FEW
@given(st.lists(st.tuples(directions, st.floats(0, 1.4)), min_size=5, max_size=20), st.floats(60, 350))
def test_no_command_breaks_the_speed_limit(commands: list[tuple[float, float]], limit: float) -> None:
    rules: list[Guardrail] = [BOX, SpeedLimit(limit)]
    states, answers = drive(rules, Troubles(ShieldLimits()), (256.0, 100.0), [towards(*c) for c in commands])
    assert_safe(rules, states, answers)


@FEW
@given(st.lists(st.tuples(directions, st.floats(0, 1.4)), min_size=5, max_size=20), st.floats(2000, 9000))
def test_no_command_breaks_the_acceleration_limit(commands: list[tuple[float, float]], limit: float) -> None:
    rules: list[Guardrail] = [BOX, AccelerationLimit(limit, PUSHER)]
    states, answers = drive(rules, Troubles(ShieldLimits()), (256.0, 100.0), [towards(*c) for c in commands])
    assert_safe(rules, states, answers)


@FEW
@given(st.lists(st.tuples(directions, st.floats(0, 1.4)), min_size=5, max_size=20), st.floats(2e5, 1e6))
def test_no_command_breaks_the_jerk_limit_not_even_across_two_control_steps(
    commands: list[tuple[float, float]], limit: float
) -> None:
    rules: list[Guardrail] = [BOX, JerkLimit(limit, PUSHER)]
    states, answers = drive(rules, Troubles(ShieldLimits()), (256.0, 100.0), [towards(*c) for c in commands])
    assert_safe(rules, states, answers)


LATE: list[tuple[float, int | None, int]] = [
    (0.0, 0, 0),
    (0.1, 1, 0),
    (0.1, None, 0),
    (0.1, 1, 1),
    (0.1, None, 1),
    (0.2, None, 1),
]
"""Stated latency, what there is of it, and what of that is the age of readings (see `Troubles`)."""


@pytest.mark.parametrize(("latency", "late", "aged"), LATE)
@pytest.mark.parametrize(("lost", "error"), [(0.0, 0.0), (0.3, 0.0), (0.3, 1.0)])
def test_jerk_limit_is_kept_whichever_readings_are_lost_or_old(
    latency: float, late: int | None, aged: int, lost: float, error: float
) -> None:
    """What accelerated the robot before a reading is part of the jerk, and no reading tells it."""
    limits = ShieldLimits(latency, 0.1 * error, 20 * error)
    moved = 0.0
    for seed in range(20):
        asked = list(np.random.default_rng(seed).uniform(-1, 1, (12, 2)))
        rules: list[Guardrail] = [JerkLimit(6e5, PUSHER)]
        troubles = Troubles(limits, late=late, aged=aged)
        states, answers = drive(rules, troubles, (256.0, 200.0), asked, seed, lost=lost)
        assert_safe(rules, states, answers)
        moved += float(np.mean([np.linalg.norm(answer.action) for answer in answers])) / 20
    assert moved > 0.15  # it is not that the robot stands


@FEW
@given(directions, st.floats(76, 200), st.integers(1, 30))
def test_full_speed_at_a_keep_out_ends_beside_it(angle: float, distance: float, steps: int) -> None:
    place = CENTRE[0] - towards(angle, distance)
    states, answers = drive([BOX, DISC], Troubles(ShieldLimits()), tuple(place), [towards(angle)] * steps)
    assert_safe([BOX, DISC], states, answers)
    if steps == 30:
        assert executed_margins(DISC, states)[-1] < 0.1  # as near as allowed


@FEW
@given(directions, directions)
def test_between_two_instants_no_corner_is_cut(angle: float, drift: float) -> None:
    place = np.array([413.0, 147.0]) + towards(angle, 95.0)
    asked = [-towards(angle)] * 4 + [towards(drift)] * 4 + [-towards(angle)] * 3
    shield = Shield(PUSHER, PUSHER_ACTION, [TRIANGLE], ShieldLimits())
    robot = PointRobot(place, CENTRE, Troubles(shield.limits), np.random.default_rng(0))
    for action in asked:
        states = robot.step(shield.certify(robot.reading(), action).action)
        for share in np.linspace(0, 1, 9):
            between = states[:-1] + share * (states[1:] - states[:-1])
            assert executed_margins(TRIANGLE, between).min() >= 0


@FEW
@given(st.integers(0, 10_000), st.sampled_from(["random", "constant", "flattering"]), st.integers(0, 2))
def test_errors_of_readings_at_their_bounds_break_nothing(seed: int, errors: Errors, latency: int) -> None:
    limits = ShieldLimits(latency / 10, position_error=2.0, velocity_error=15.0)
    rules: list[Guardrail] = [BOX, DISC, SpeedLimit(250.0)]
    aim = np.random.default_rng(seed).uniform(0, 2 * np.pi, 4)
    asked = [towards(angle) for angle in aim for _ in range(6)]
    states, answers = drive(rules, Troubles(limits, errors, latency), (150.0, 200.0), asked, seed)
    assert_safe(rules, states, answers)


@FEW
@given(st.integers(0, 10_000), st.integers(0, 3), st.booleans())
def test_latency_fixed_or_changing_breaks_nothing(seed: int, latency: int, changing: bool) -> None:
    rng = np.random.default_rng(seed)
    asked = [towards(angle) for angle in rng.uniform(0, 2 * np.pi, 4) for _ in range(5)]
    rules: list[Guardrail] = [BOX, DISC]
    troubles = Troubles(ShieldLimits(latency / 10), late=None if changing else latency)
    states, answers = drive(rules, troubles, (140.0, 200.0), asked, seed)
    assert_safe(rules, states, answers)


def pushed(excess: float, seed: int) -> tuple[np.ndarray, list[Certified]]:
    push = 4.0
    limits = ShieldLimits(disturbance=push, velocity_disturbance=push * PUSH_SPEED)
    rng = np.random.default_rng(seed)
    asked = [np.array([1.0, 0.0]) + 0.3 * rng.normal(size=2) for _ in range(25)]
    # What a kick beyond the bound moves may be within it again when it is seen.
    troubles = Troubles(limits, excess=excess, pushes=("shove",) if excess > 1 else ("shove", "kick"))
    return drive([BOX, DISC], troubles, (120.0, 256.0), asked, seed)


@FEW
@given(st.integers(0, 10_000))
def test_disturbances_at_their_bound_break_nothing(seed: int) -> None:
    states, answers = pushed(1.0, seed)
    assert_safe([BOX, DISC], states, answers)


def test_a_push_leads_no_farther_than_the_stated_bounds() -> None:
    """Whenever it comes, what a shove and a kick bring about later is within the other's bound."""
    kicks = Troubles(ShieldLimits(disturbance=KICK_TRAVEL, velocity_disturbance=1.0), pushes=("kick",))
    shoves = Troubles(ShieldLimits(disturbance=1.0, velocity_disturbance=PUSH_SPEED), pushes=("shove",))
    for troubles in (kicks, shoves):
        bounds = troubles.limits
        for seed in range(30):
            robot = PointRobot(np.zeros(2), CENTRE, troubles, np.random.default_rng(seed))
            action = np.full(2, 1e-9)  # as good as none, but pushes spare a robot at rest
            states = np.concatenate([robot.step(action if step == 0 else np.zeros(2)) for step in range(5)])
            assert np.linalg.norm(states[:, :2], axis=1).max() <= bounds.disturbance + 1e-6
            assert np.linalg.norm(states[:, 2:4], axis=1).max() <= bounds.velocity_disturbance + 1e-6


@pytest.mark.parametrize("latency", [0, 1])
@pytest.mark.parametrize(
    "rule", [AccelerationLimit(3500, PUSHER), JerkLimit(6e5, PUSHER)], ids=["acceleration", "jerk"]
)
def test_control_keeps_limits_of_its_acceleration_and_jerk_whatever_pushes(rule: Guardrail, latency: int) -> None:
    """At full speed to and fro, kicks and shoves at their bounds; the push's own acceleration does not count."""
    kick, fastest = 40.0, 0.0
    limits = ShieldLimits(latency / 10, disturbance=KICK_TRAVEL * kick, velocity_disturbance=kick)
    asked = [towards(step // 3 * 2.4) for step in range(40)]
    for seed in range(8):
        troubles = Troubles(limits, late=None, pushes=("kick",) if seed % 2 else ("shove", "kick"))
        states, answers = drive([rule], troubles, (256.0, 200.0), asked, seed)
        assert_safe([rule], states, answers)
        fastest = max(fastest, float(np.linalg.norm(states[:, 2:4], axis=1).max()))
        assert not np.allclose(states[:, 2:4], states[:, 4:])  # it was kicked
    assert fastest > 60  # it is not that the robot stands


@FEW
@given(st.integers(0, 10_000))
def test_disturbances_beyond_their_bound_are_reported(seed: int) -> None:
    # A push decays to 97 % of itself or more until the next reading; 10 % beyond the bound cannot hide.
    _, answers = pushed(1.6, seed)
    assert any(answer.outside > 0 for answer in answers)


def test_a_robot_carried_into_a_keep_out_is_reported_as_not_certified() -> None:
    _, answers = pushed(30.0, 1)
    carried = next(answer for answer in answers if answer.outside > 0)
    assert carried.kind == "uncertified_stop" and carried.rule == "keep_out" and carried.by > 0
    assert not carried.action.any()


@FEW
@given(st.integers(0, 10_000))
def test_once_certified_there_is_always_a_certified_stop(seed: int) -> None:
    """Recursive feasibility: whatever was certified, whatever the next reading says within its bounds."""
    rng = np.random.default_rng(seed)
    limits = ShieldLimits(0.1 * (seed % 2), position_error=3.0, velocity_error=20.0)
    troubles = Troubles(limits, ("random", "constant", "flattering")[seed % 3], None)
    asked = [towards(rng.uniform(0, 2 * np.pi)) if rng.random() < 0.9 else np.full(2, np.nan) for _ in range(20)]
    states, answers = drive([BOX, DISC], troubles, (150.0, 150.0), asked, seed)
    assert_safe([BOX, DISC], states, answers)


@FEW
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_lost_readings_end_in_the_stop_that_was_certified(seed: int, lost: int) -> None:
    rng = np.random.default_rng(seed)
    shield = Shield(PUSHER, PUSHER_ACTION, [BOX, DISC], ShieldLimits())
    robot = PointRobot(np.array([170.0, 256.0]), CENTRE, Troubles(shield.limits), rng)
    for step in range(12):
        reading = np.full(4, np.nan) if step % 7 >= 7 - lost else robot.reading()
        answer = shield.certify(reading, towards(rng.uniform(-0.5, 0.5)))
        assert answer.kind != "uncertified_stop"
        assert not np.isnan(reading).any() or not answer.action.any()
        assert executed_margins(DISC, robot.step(answer.action)).min() >= 0


@pytest.mark.parametrize("meanwhile", ["goes on", "brakes", "stands still"])
@pytest.mark.parametrize(("latency", "late", "aged"), LATE)
def test_after_a_skipped_control_period_nothing_called_certified_breaks(
    latency: float, late: int | None, aged: int, meanwhile: str
) -> None:
    """Whatever a robot does while its loop is away: a breach follows only after an answer called uncertified."""
    rules: list[Guardrail] = [BOX, DISC, SpeedLimit(350.0), JerkLimit(1.2e6, PUSHER)]
    limits, kinds = ShieldLimits(latency), Counter[str]()
    for seed in range(12):
        rng = np.random.default_rng([seed, 8])
        shield = Shield(PUSHER, PUSHER_ACTION, rules, limits, max_rate=1.0)
        robot = PointRobot(np.array([150.0, 200.0]), CENTRE, Troubles(limits, late=late, aged=aged), rng)
        states, covered, action = [], [], np.zeros(2)
        for _ in range(40):
            skipped = int(rng.integers(1, 4)) * int(rng.random() < 0.15)
            shield.skipped(skipped)
            for _ in range(skipped):
                held = {"goes on": action, "brakes": np.zeros(2)}.get(meanwhile)
                if held is not None:
                    states.append(robot.step(held)[1:])
                    covered.append(False)
            reading = np.full(4, np.nan) if rng.random() < 0.2 else robot.reading()
            answer = shield.certify(reading, towards(rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 1)))
            action = answer.action
            states.append(robot.step(action)[1:])
            covered.append(answer.kind != "uncertified_stop")
            kinds[answer.kind] += 1
        for rule in rules:
            margins = executed_margins(rule, np.concatenate(states)).reshape(len(covered), -1)
            assert (margins[covered] >= 0).all(), rule.name
    assert min(kinds[kind] for kind in ("passed", "corrected", "stop", "uncertified_stop")) > 20, kinds


def test_an_infeasible_filter_stops_and_says_so() -> None:
    # Two keep-outs that leave no room where the robot stands.
    rules: list[Guardrail] = [KeepOutDiscs([[240, 256], [272, 256]], [10.0, 10.0], 15.0)]
    shield = Shield(PUSHER, PUSHER_ACTION, rules, ShieldLimits())
    for _ in range(3):
        answer = shield.certify(np.array([256.0, 256.0, 0.0, 0.0]), np.array([0.3, 0.3]))
        assert answer.kind == "uncertified_stop" and answer.rule == "keep_out" and not answer.action.any()
        assert answer.by == pytest.approx(9.0, abs=0.01)


@pytest.mark.parametrize("seed", range(12))
def test_an_adversarial_planner_executes_no_breach(seed: int) -> None:
    rng, tally = np.random.default_rng([seed, 5]), Tally()
    scene = random_scene(rng)
    played = play(scene, random_adversary(scene, rng), 60, tally, rng)
    assert tally.breaches == 0
    assert not played or tally.steps == 60
    assert "uncertified_stop" not in tally.kinds


def test_the_fuzz_finds_breaches_when_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(self: Shield, proprio: np.ndarray, asked: np.ndarray, held: object = ()) -> Certified:
        action = np.clip(np.nan_to_num(asked), -1, 1)
        return Certified(action, "passed", None, 0.0, 0.0, 0.0)

    monkeypatch.setattr(Shield, "certify", unchecked)
    assert run(600, 0)["executed_breaches"] != 0  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("wrong", [{}, {"kind": "uncertified_stop"}, {"outside": 0.1}], ids=lambda w: "".join(w))
def test_the_fuzz_fails_on_whatever_the_stated_bounds_exclude(
    wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = Shield.certify

    def certify(self: Shield, proprio: np.ndarray, asked: np.ndarray, held: object = ()) -> Certified:
        answer = honest(self, proprio, asked)
        return dataclasses.replace(answer, **wrong) if asked.any() else answer

    monkeypatch.setattr(Shield, "certify", certify)
    with pytest.raises(typer.Exit) as ended:
        shield_fuzz.main(steps=40, seed=0, out=tmp_path / "fuzz.json")
    assert ended.value.exit_code == (MISSED if wrong else 0)


def test_the_fuzz_counts_scenes_whose_start_cannot_be_certified() -> None:
    rng, tally = np.random.default_rng(0), Tally()
    scene = Scene([DISC], CENTRE, Troubles(ShieldLimits()), None, CENTRE[0])
    assert not play(scene, lambda step, state: np.zeros(2), 10, tally, rng)
    assert (tally.rejected, tally.steps) == (1, 0)
