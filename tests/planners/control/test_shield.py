from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from wm.errors import BadInputError
from wm.experiments.studies.point_robot import PUSHER, PUSHER_ACTION, PointRobot, Troubles
from wm.kinematics import PointKinematics
from wm.planners.control import qp
from wm.planners.control.qp import ClosestAction
from wm.planners.control.shield import Certified, Shield, ShieldLimits
from wm.planners.guardrails import (
    AccelerationLimit,
    Guardrail,
    JerkLimit,
    KeepOutBoxes,
    KeepOutDiscs,
    PathGuardrail,
    SpeedLimit,
    WorkspaceBox,
)
from wm.specs import ActionSpec

BOX = WorkspaceBox((0, 0), (512, 512), 15.0)
DISC = KeepOutDiscs([[256, 256]], [60.0], 15.0)
CENTRE = np.array([[256.0, 256.0]])
STOP = np.zeros(2)


def shield_of(*rules: Guardrail, limits: ShieldLimits | None = None, max_rate: float | None = None) -> Shield:
    return Shield(PUSHER, PUSHER_ACTION, rules, limits or ShieldLimits(), max_rate=max_rate)


def at_rest(x: float, y: float) -> np.ndarray:
    return np.array([x, y, 0.0, 0.0])


def margin_with(rules: Sequence[PathGuardrail], state: np.ndarray, action: np.ndarray) -> float:
    """Smallest margin when ``action`` acts for one control step and then the stop, by kinematics and guardrails."""
    actions = torch.from_numpy(np.array([action, STOP, STOP, STOP])).reshape(1, 1, 4, 2)
    path = PUSHER.path(torch.from_numpy(state)[None], actions, 1)[0, 0]
    return min(float(rule.margin_of(path).min()) for rule in rules)


def closest_by_search(rules: Sequence[PathGuardrail], state: np.ndarray, asked: np.ndarray) -> float:
    """Distance of the asked action to the closest safe one, on a grid."""
    axis = np.linspace(-1, 1, 161)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    actions = torch.zeros(1, len(grid), 3, 2, dtype=torch.float64)
    actions[0, :, 0] = torch.from_numpy(grid)
    path = PUSHER.path(torch.from_numpy(state)[None], actions, 1)[0].flatten(1, 2)
    margins = torch.stack([rule.margin_of(path).amin(-1) for rule in rules]).amin(0).numpy()
    return float(np.linalg.norm(grid[margins >= 0] - asked, axis=1).min())


def test_an_admissible_action_passes_unchanged_and_without_a_qp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClosestAction, "__call__", lambda *_: pytest.fail("a QP for an admissible action"))
    asked = np.array([0.3, -0.2])
    answer = shield_of(BOX, DISC, SpeedLimit(300.0)).certify(at_rest(100, 100), asked)
    assert (answer.kind, answer.rule, answer.by, answer.moved) == ("passed", None, 0.0, 0.0)
    assert np.array_equal(answer.action, asked)
    assert 0 < answer.margin <= 85.0


@pytest.mark.parametrize("asked", [(1.0, 1.0), (1.0, 0.0), (0.7, -0.1), (2.0, 0.5), (-1.0, 0.3)])
@pytest.mark.parametrize("place", [(175.0, 240.0), (30.0, 40.0), (330.0, 230.0)])
def test_correction_is_the_closest_safe_action(place: tuple[float, float], asked: tuple[float, float]) -> None:
    rules, state, wanted = (BOX, DISC, SpeedLimit(200.0)), at_rest(*place), np.array(asked)
    answer = shield_of(*rules).certify(state, wanted)
    assert answer.kind == "corrected"
    assert margin_with(rules, state, answer.action) >= 0
    assert answer.moved == pytest.approx(np.linalg.norm(answer.action - wanted))
    # Within the polygon in the norm's circle, the bend between instants and the grid of the search.
    assert answer.moved <= closest_by_search(rules, state, wanted) + 0.03


def test_answer_names_the_rule_that_is_broken_first_and_by_how_much() -> None:
    # Full speed at (20, 256) to the left breaks the speed limit only after it has broken the workspace.
    answer = shield_of(BOX, SpeedLimit(250.0)).certify(at_rest(16, 256), np.array([-1.0, 0.0]))
    expected = -margin_with([BOX], at_rest(16, 256), np.array([-1.0, 0.0]))
    assert answer.rule == "workspace"
    assert answer.by == pytest.approx(expected, abs=0.5)
    answer = shield_of(BOX, SpeedLimit(250.0)).certify(at_rest(256, 256), np.array([-1.0, 0.0]))
    assert answer.rule == "speed"


def test_actions_stay_inside_their_bounds() -> None:
    answer = shield_of().certify(at_rest(100, 100), np.array([1.5, -7.0]))
    assert (answer.kind, answer.rule, answer.by) == ("corrected", "action bounds", 6.0)
    assert np.allclose(answer.action, [1.0, -1.0], atol=1e-3) and (np.abs(answer.action) <= 1).all()


def test_actions_change_no_faster_than_the_rate() -> None:
    shield = shield_of(max_rate=0.25)
    answer = shield.certify(at_rest(100, 100), np.array([1.0, 0.0]))
    assert (answer.kind, answer.rule) == ("corrected", "action rate")
    assert answer.by == pytest.approx(0.75)
    assert np.allclose(answer.action, [0.25, 0.0], atol=1e-3) and np.abs(answer.action).max() <= 0.25 + 1e-6


def test_a_stop_is_exempt_from_the_rate() -> None:
    shield = shield_of(max_rate=0.6)
    shield.certify(at_rest(100, 100), np.array([0.6, 0.0]))
    answer = shield.certify(np.full(4, np.nan), STOP)
    assert answer.kind == "stop" and np.array_equal(answer.action, STOP)


def test_a_stop_that_was_asked_for_is_exempt_where_nothing_slower_is_safe() -> None:
    shield, state = shield_of(BOX, max_rate=0.3), at_rest(410, 256)
    for push in (0.3, 0.6, 0.9):
        sent = shield.certify(state, np.array([push, 0.0])).action
        actions = torch.from_numpy(sent)[None, None, None]
        state = PUSHER.path(torch.from_numpy(state)[None], actions, 1)[0, 0, 0, -1].numpy()
    assert sent[0] > 0.8 and margin_with([BOX], state, sent - [0.3, 0.0]) < 0  # slowing down at the rate would not do
    answer = shield.certify(state, STOP)
    assert np.array_equal(answer.action, STOP) and margin_with([BOX], state, STOP) >= 0


def test_certified_means_then_braking_stays_inside() -> None:
    # 40 px to the wall: the action itself ends 10 px before it, but not even braking would then help.
    state = np.array([40.0, 256.0, -300.0, 0.0])
    rules, asked = [BOX], np.array([-0.55, 0.0])
    first = PUSHER.path(
        torch.from_numpy(state)[None], torch.from_numpy(asked)[None, None, None], 1
    )  # the control step itself
    assert float(BOX.margin_of(first).min()) > -1.0
    assert margin_with(rules, state, asked) < -5.0
    answer = shield_of(BOX).certify(state, asked)
    assert answer.kind != "passed"
    assert margin_with(rules, state, answer.action) >= 0


@pytest.mark.parametrize("failing", ["none", "nan", "wrong", "raises"])
def test_what_the_solver_says_is_never_sent_unchecked(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer_of(*_: object) -> np.ndarray | None:
        return {"none": None, "nan": np.full(2, np.nan), "wrong": np.array([1.0, 0.0])}[failing]

    shield, state = shield_of(BOX, DISC), at_rest(175.0, 256.0)
    if failing == "raises":

        def broken(**_: object) -> None:
            raise RuntimeError("solver")

        monkeypatch.setattr(qp, "_BY_HAND", 0)
        monkeypatch.setattr(shield._closest._solver, "update", broken)
    else:
        monkeypatch.setattr(ClosestAction, "__call__", answer_of)
    answer = shield.certify(state, np.array([1.0, 0.0]))
    assert answer.kind == "stop" and answer.rule == "keep_out"
    assert np.array_equal(answer.action, STOP)


def test_a_start_inside_a_keep_out_is_an_uncertified_stop_that_says_so() -> None:
    answer = shield_of(BOX, DISC).certify(at_rest(256, 200), np.array([1.0, 0.0]))
    assert answer.kind == "uncertified_stop" and np.array_equal(answer.action, STOP)
    assert answer.rule == "keep_out" and answer.by == pytest.approx(19.0, abs=0.01)
    assert answer.margin == pytest.approx(-19.0, abs=0.01)


def test_without_a_certificate_a_lost_reading_is_an_uncertified_stop() -> None:
    answer = shield_of(BOX).certify(np.full(4, np.nan), np.array([0.1, 0.0]))
    assert (answer.kind, answer.rule) == ("uncertified_stop", "non-finite proprio")
    assert np.array_equal(answer.action, STOP)


def test_a_remembered_certificate_covers_the_stop_when_readings_are_lost() -> None:
    shield = shield_of(BOX)
    shield.certify(at_rest(100, 100), np.array([0.5, 0.0]))
    for _ in range(5):
        assert shield.certify(np.full(4, np.inf), np.array([0.5, 0.0])).kind == "stop"
    shield.reset()
    assert shield.certify(np.full(4, np.inf), np.array([0.5, 0.0])).kind == "uncertified_stop"


def test_a_reading_that_contradicts_the_certificate_is_reported_and_voids_it() -> None:
    limits = ShieldLimits(position_error=1.0, disturbance=2.0)
    shield = shield_of(BOX, DISC, limits=limits)
    assert shield.certify(at_rest(150, 256), STOP).outside == 0.0
    inside = shield.certify(at_rest(150 + 3.9, 256), STOP)
    assert inside.outside == 0.0
    shield = shield_of(BOX, DISC, limits=limits)
    shield.certify(at_rest(150, 256), STOP)
    pushed = shield.certify(at_rest(190, 256), np.array([-0.5, 0.0]))
    assert pushed.outside == pytest.approx(36.0, abs=0.01)
    assert pushed.kind == "uncertified_stop" and pushed.rule == "keep_out"


def test_noise_at_the_edge_of_a_rule_ends_in_a_covered_stop_and_not_in_an_uncertified_one() -> None:
    limits = ShieldLimits(position_error=2.0)
    shield = shield_of(BOX, limits=limits)
    assert shield.certify(at_rest(17.01, 256), STOP).kind == "passed"
    answer = shield.certify(at_rest(13.5, 256), np.array([-1.0, 0.0]))  # the truth may be 15.2
    assert answer.kind == "stop" and answer.outside == 0.0


def test_the_robot_can_leave_a_rule_it_is_close_to_although_readings_are_noisy() -> None:
    shield = shield_of(BOX, DISC, limits=ShieldLimits(position_error=2.0))
    assert shield.certify(at_rest(17.01, 256), STOP).kind == "passed"
    answer = shield.certify(at_rest(14.0, 256), np.array([0.6, 0.3]))
    assert answer.kind == "passed"
    shield.reset()
    shield.certify(at_rest(256 - 77.01, 256), STOP)
    answer = shield.certify(at_rest(256 - 75.0, 256), np.array([0.1, 0.6]))
    assert answer.kind == "corrected" and answer.action[1] > 0.5
    assert answer.action[0] < 0  # away, by what the noise may turn the normal
    shield.reset()
    shield.certify(at_rest(256 - 77.01, 256), STOP)
    assert shield.certify(at_rest(256 - 75.0, 256), np.array([-0.001, 0.6])).kind == "corrected"


def test_under_a_disturbance_a_reserve_is_held_back_from_rules() -> None:
    limits = ShieldLimits(disturbance=3.0)
    shield = shield_of(BOX, limits=limits)
    state = at_rest(60, 256)
    answer = shield.certify(state, np.array([-1.0, 0.0]))
    assert margin_with([BOX], state, answer.action) == pytest.approx(6.0, abs=0.2)
    shield.reset()
    assert shield.certify(at_rest(19.0, 256), np.array([0.5, 0.0])).kind == "passed"  # leads away
    shield.reset()
    assert shield.certify(at_rest(19.0, 256), np.array([-0.1, 0.0])).kind == "stop"


def test_under_a_disturbance_an_action_that_leads_away_is_certified_itself() -> None:
    shield = shield_of(BOX, limits=ShieldLimits(disturbance=3.0))
    state = at_rest(18.0005, 256)  # half a thousandth of a px is left beside the disturbance
    assert shield.certify(state, np.array([1e-5, 0.9])).kind == "stop"  # along the wall, bent between two instants
    assert shield.certify(state, np.array([0.5, 0.5])).kind == "passed"


def test_actions_on_their_way_are_looked_ahead_through() -> None:
    limits = ShieldLimits(latency=0.2)
    asked, held = np.array([-0.4, 0.0]), [np.array([-0.9, 0.0]), np.array([-0.9, 0.0])]
    far = shield_of(BOX, limits=limits).certify(at_rest(300, 256), asked, held)
    assert far.kind == "passed"
    near = shield_of(BOX, limits=limits).certify(at_rest(98, 256), asked, held)
    assert near.kind != "passed"
    assert shield_of(BOX, limits=limits).certify(at_rest(98, 256), asked, [STOP, STOP]).kind == "passed"


def test_latency_counts_an_action_that_acts_twice() -> None:
    asked = np.array([-0.6, 0.0])
    state = at_rest(60, 256)
    assert shield_of(BOX).certify(state, asked).kind == "passed"
    assert shield_of(BOX, limits=ShieldLimits(latency=0.1)).certify(state, asked).kind == "corrected"


def test_something_else_than_was_certified_voids_the_certificate() -> None:
    shield = shield_of(BOX)
    shield.certify(at_rest(100, 100), np.array([0.5, 0.0]))
    answer = shield.certify(np.full(4, np.nan), STOP, held=[np.array([0.9, 0.0])])
    assert answer.kind == "uncertified_stop"
    shield.reset()
    answer = shield.certify(at_rest(100, 100), STOP, held=[np.array([np.nan, 0.0])])
    assert (answer.kind, answer.rule) == ("uncertified_stop", "non-finite sent action")


def test_after_a_skipped_control_period_no_certificate_covers_the_stop() -> None:
    """A robot that goes on with its last action gets into the disc; the certificate of before says 20 px beside it."""
    shield, asked = shield_of(BOX, DISC), np.array([0.6, 0.0])
    robot = PointRobot(np.array([136.0, 256.0]), CENTRE, Troubles(shield.limits), np.random.default_rng(0))
    answer = shield.certify(robot.reading(), asked)
    assert answer.kind == "passed" and answer.margin > 20
    robot.step(asked)
    robot.step(asked)
    shield.skipped(1)
    answer = shield.certify(np.full(4, np.nan), asked, held=[asked, asked])
    assert (answer.kind, answer.margin) == ("uncertified_stop", -np.inf) and np.array_equal(answer.action, STOP)
    assert float(DISC.margin_of(torch.from_numpy(robot.step(STOP)[:, :4])).min()) < 0
    assert shield.certify(at_rest(136, 256), asked).kind == "passed"  # a good reading is enough


def test_a_period_that_was_not_skipped_changes_nothing() -> None:
    shield = shield_of(BOX)
    shield.certify(at_rest(100, 100), np.array([0.5, 0.0]))
    shield.skipped(0)
    assert shield.certify(np.full(4, np.nan), STOP).kind == "stop"


def test_after_a_skipped_period_what_was_sent_before_may_still_act_for_the_latency() -> None:
    shield, asked = shield_of(BOX, limits=ShieldLimits(latency=0.2)), np.array([0.1, 0.0])
    shield.certify(at_rest(256, 256), asked)
    shield.skipped(3)
    kinds = [shield.certify(at_rest(256, 256), asked, held=[asked] * 4).kind for _ in range(3)]
    assert kinds == ["uncertified_stop", "uncertified_stop", "passed"]


def test_after_a_skipped_period_a_jerk_limit_waits_until_the_robot_rests() -> None:
    shield, asked = shield_of(JerkLimit(1e6, PUSHER)), np.array([0.3, 0.0])
    robot = PointRobot(np.array([256.0, 256.0]), CENTRE, Troubles(shield.limits), np.random.default_rng(0))
    robot.step(shield.certify(robot.reading(), asked).action)
    robot.step(asked)
    shield.skipped(1)
    answers = []
    for _ in range(8):
        answers.append(shield.certify(robot.reading(), asked))
        robot.step(answers[-1].action)
    waiting = [answer for answer in answers if answer.kind == "uncertified_stop"]
    assert 2 <= len(waiting) <= 5 and [answer.kind for answer in answers[len(waiting) :]].count("passed") >= 3
    assert {(answer.rule, answer.by) for answer in waiting} == {("jerk", np.inf)}


@pytest.mark.parametrize(
    "asked",
    [np.array([np.nan, 0.0]), np.array([np.inf, 0.0]), np.zeros(3), np.zeros((2, 1)), None, "left", [1, "x"], object()],
    ids=["NaN", "infinite", "three numbers", "a column", "None", "a word", "a list", "an object"],
)
def test_a_command_that_is_no_action_is_a_stop(asked: object) -> None:
    answer = shield_of(BOX).certify(at_rest(100, 100), asked)
    assert (answer.kind, answer.rule, answer.by, answer.moved) == ("stop", "non-finite command", np.inf, np.inf)
    assert np.array_equal(answer.action, STOP)


@pytest.mark.parametrize("proprio", [np.zeros(3), np.array([1e308, -1e308, 1e308, 0.0]), "here", None], ids=str)
def test_a_reading_that_is_no_state_is_an_uncertified_stop(proprio: object) -> None:
    answer = shield_of(BOX, DISC, SpeedLimit(1.0)).certify(proprio, STOP)
    assert answer.kind == "uncertified_stop" and np.array_equal(answer.action, STOP)


def test_float32_readings_do_not_lock_the_robot_at_a_wall() -> None:
    shield = shield_of(BOX, DISC)
    robot = PointRobot(np.array([400.3, 380.7]), np.zeros((1, 2)), Troubles(shield.limits), np.random.default_rng(0))
    answers: list[Certified] = []
    for step in range(60):
        asked = np.array([1.0, 1.0]) if step < 40 else np.array([-0.5, -0.4])
        answers.append(shield.certify(robot.reading(), asked))
        robot.step(answers[-1].action)
        if step == 39:
            assert np.abs(robot.place - 497).max() < 0.05  # as near as the guardrail allows
    assert all(answer.kind == "passed" for answer in answers[40:43])


def test_wrong_parts_are_refused_with_what_was_expected() -> None:
    with pytest.raises(BadInputError, match="shield limit 'latency' must be finite and >= 0, came -1.0"):
        ShieldLimits(latency=-1.0)
    with pytest.raises(BadInputError, match="shield limit 'position_error' must be finite"):
        ShieldLimits(position_error=float("nan"))
    with pytest.raises(BadInputError, match="max_rate must be finite and > 0, came 0"):
        shield_of(max_rate=0.0)
    with pytest.raises(BadInputError, match="guardrail names must differ, came workspace, workspace"):
        shield_of(BOX, BOX)
    with pytest.raises(BadInputError, match="control_hz: expected 10 by the kinematics, came 20"):
        Shield(PUSHER, ActionSpec(("x", "y"), "", (-1.0, -1.0), (1.0, 1.0), 20.0), [], ShieldLimits())
    with pytest.raises(BadInputError, match="the stop, action zero, must be inside the action's bounds"):
        Shield(PUSHER, ActionSpec(("x", "y"), "", (0.5, -1.0), (1.0, 1.0), 10.0), [], ShieldLimits())
    with pytest.raises(BadInputError, match="two bounded numbers per action"):
        Shield(PUSHER, ActionSpec(("x",), "", (-1.0,), (1.0,), 10.0), [], ShieldLimits())
    with pytest.raises(BadInputError, match="two bounded numbers per action"):
        Shield(PUSHER, ActionSpec(("x", "y"), "", (-np.inf, -1.0), (1.0, 1.0), 10.0), [], ShieldLimits())
    with pytest.raises(BadInputError, match="relative actions"):
        Shield(PointKinematics(100.0, 20.0, 0.01, 10, 1.0, False), PUSHER_ACTION, [], ShieldLimits())


def test_an_acceleration_limit_bounds_braking_too() -> None:
    # At 300 px/s braking itself takes 6,000 px/s^2, so the robot never gets that fast.
    limit = AccelerationLimit(4000.0, PUSHER)
    shield = shield_of(BOX, limit)
    robot = PointRobot(np.array([60.0, 256.0]), np.zeros((1, 2)), Troubles(shield.limits), np.random.default_rng(0))
    velocity = [np.zeros((1, 2))]
    for step in range(30):
        answer = shield.certify(robot.reading(), np.array([1.0 if step < 15 else -1.0, 0.0]))
        assert answer.kind != "uncertified_stop"
        velocity.append(robot.step(answer.action)[1:, 2:4])
    speed = np.concatenate(velocity)
    assert float(limit.margin_along(torch.from_numpy(speed)).min()) >= 0
    assert 80 < np.abs(speed).max() < 240  # without the limit 427


@pytest.mark.parametrize(
    ("rule", "size"),
    [(SpeedLimit(200.0), 1.0), (SpeedLimit(200.0), 0.5333), (AccelerationLimit(4000.0, PUSHER), 0.395)],
    ids=["speed", "speed just so", "acceleration just so"],
)
def test_limits_hold_for_every_velocity_within_the_error_of_the_reading(rule: Guardrail, size: float) -> None:
    """At the smaller sizes the action keeps the limit just so when the reading is true."""
    limits = ShieldLimits(velocity_error=25.0)
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        wanted = size * np.array([np.cos(angle), np.sin(angle)])
        action = shield_of(rule, limits=limits).certify(at_rest(256, 256), wanted).action
        assert action.any()
        for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            true = np.array([256, 256, 25 * np.cos(turn), 25 * np.sin(turn)])
            actions = torch.from_numpy(np.array([action, STOP, STOP])).reshape(1, 1, 3, 2)
            path = PUSHER.path(torch.from_numpy(true)[None], actions, 1)[0, 0].reshape(-1, 4)
            if isinstance(rule, AccelerationLimit):
                speeds = torch.cat([torch.from_numpy(true)[None, 2:], path[:, 2:]])
                assert float(rule.margin_along(speeds).min()) >= 0
            else:
                assert isinstance(rule, SpeedLimit)
                assert float(rule.margin_of(path).min()) >= 0


def test_boxes_are_gone_around_and_not_through() -> None:
    # One control step at full speed is longer than this box is thick.
    box = KeepOutBoxes([[200, 100]], [[202, 400]], 1.0)
    shield = shield_of(box)
    robot = PointRobot(np.array([190.0, 250.0]), np.zeros((1, 2)), Troubles(shield.limits), np.random.default_rng(0))
    for _ in range(20):
        states = robot.step(shield.certify(robot.reading(), np.array([1.0, 0.0])).action)
        assert float(box.margin_of(torch.from_numpy(states[:, :4])).min()) >= 0
    assert robot.place[0] < 200


@pytest.mark.parametrize(
    ("degrees", "away"), [(0, True), (60, True), (84, True), (88, False), (92, False), (180, False)]
)
def test_a_retreat_leads_away_wherever_within_its_error_the_robot_is(degrees: float, away: bool) -> None:
    """Seen 76 px right of the disc's centre, 5 px uncertain: the disc lies within 3.8 degrees of straight left."""
    shield = shield_of(DISC, limits=ShieldLimits(position_error=5.0))
    seen = at_rest(332, 256)
    futures = shield._look_ahead(seen, shield._errors(seen), (seen[:2], 5.0))
    angle = np.radians(degrees)
    action = 0.02 * np.array([np.cos(angle), np.sin(angle)])
    margins = futures.margins(action)
    assert futures.first_broken(margins) is not None
    assert futures.retreats(action, margins) is away
    nearer = []
    for turn in np.linspace(0, 2 * np.pi, 73):
        place = np.array([332, 256]) + 5 * np.array([np.cos(turn), np.sin(turn)])
        start = np.linalg.norm(place - 256) - 75
        nearer.append(start >= 0 and margin_with([DISC], at_rest(*place), action) < start - 1e-3)
    assert away is not any(nearer)
