from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.planners.control.fakes import KINEMATICS, PERIOD, RATE, FakeClock, MovingRobot
from wm.planners.control.reckoning import Reckoning
from wm.planners.control.shield import ShieldLimits

GO, STAY = np.array([0.5, -0.25]), np.zeros(2)


def reckoned(
    actions: list[np.ndarray], reading: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0), age: float = 0.0, **bounds: float
) -> list[bool]:
    """Whether the robot must have moved after each of these actions."""
    reckoning = Reckoning(KINEMATICS, ShieldLimits(**bounds), RATE, age)
    reckoning.begin(np.array(reading, np.float32))
    found = []
    for k in range(len(actions)):
        reckoning.advance(actions[: k + 1])
        found.append(reckoning.must_have_moved())
    return found


@pytest.mark.parametrize("late", [0, 1, 2])
def test_it_is_where_the_robot_is(late: int, rng: np.random.Generator) -> None:
    robot = MovingRobot(FakeClock())
    robot.late = late
    reckoning = Reckoning(KINEMATICS, ShieldLimits(latency=late * PERIOD), RATE, 0.0)
    reckoning.begin(np.array([*robot.place, 0.0, 0.0]))
    begin = robot.place
    for _ in range(30):
        robot.send_action(rng.uniform(-1, 1, 2))
        reckoning.advance(robot.received)
        np.testing.assert_allclose(reckoning._window[0][late], robot.place - begin, atol=1e-9)


def test_actions_on_their_way_when_the_place_changed_count() -> None:
    for sent, moves in (([GO, GO, STAY], True), ([STAY] * 3, False)):
        reckoning = Reckoning(KINEMATICS, ShieldLimits(latency=2 * PERIOD), RATE, 0.0)
        reckoning.begin(np.array([5.0, 6.0, 0.0, 0.0]))
        reckoning.advance(sent)
        reach = np.linalg.norm(reckoning._window[-1], axis=-1)  # by the latency at the begin
        assert (reach[1:] > 10).all() == moves and reach[0] == 0.0


@pytest.mark.parametrize("latency", [0, 1, 2, 3])
def test_readings_of_whatever_age_within_the_latency_are_no_proof(latency: int, rng: np.random.Generator) -> None:
    same = 0
    for late in range(latency + 1):  # the action's share of the latency; the rest is the readings'
        robot = MovingRobot(FakeClock())
        robot.late = late
        age = (latency - late) * PERIOD
        reckoning = Reckoning(KINEMATICS, ShieldLimits(latency=latency * PERIOD), RATE, age)
        states, shown = [np.array([*robot.place, 0.0, 0.0])], -1
        for k in range(200):
            instant = max(shown, k - int(rng.integers(latency - late + 1)))
            if instant != shown:
                reckoning.begin(states[instant])
            else:
                same += 1
                assert not reckoning.must_have_moved(), (late, k)
            shown = instant
            robot.send_action(rng.uniform(-1, 1, 2))
            reckoning.advance(robot.received)
            states.append(np.array([*robot.place, *robot.velocity]))
    assert (same > 50) == (latency > 0)


def test_robot_that_is_told_to_stand_need_not_move() -> None:
    assert not any(reckoned([STAY] * 50))


@pytest.mark.parametrize("late", [0, 1, 3])
def test_robot_that_is_told_to_move_must_have_moved_once_the_latency_is_over(late: int) -> None:
    for age in range(late + 1):
        for actions in ([GO] * 8, [GO, *[STAY] * 7]):
            found = reckoned(actions, age=age * PERIOD, latency=late * PERIOD)
            assert found == [False] * late + [True] * (8 - late)


def test_robot_that_glides_must_have_moved_whatever_it_is_told() -> None:
    for late in (0, 1, 2):
        for age in range(late + 1):  # until then the readings may all be of the same instant
            found = reckoned([STAY] * 4, (5.0, 6.0, 200.0, 0.0), age=age * PERIOD, latency=late * PERIOD)
            assert found == [False] * age + [True] * (4 - age)


@pytest.mark.parametrize(
    "bounds", [{"position_error": 10.0}, {"disturbance": 20.0}, {"position_error": 5.0, "disturbance": 10.0}]
)
def test_motion_within_the_stated_errors_need_not_show_and_adds_up(bounds: dict[str, float]) -> None:
    creeping = torch.tensor([0.02, 0.0])
    path = KINEMATICS.path(torch.zeros(1, 4), creeping.repeat(1, 1, 40, 1), 1)[0, 0, :, -1, 0]
    found = reckoned([creeping.double().numpy()] * 40, **bounds)
    assert found == (path > 20).tolist() and 10 < found.index(True) < 40


def test_velocity_that_may_be_an_error_moves_nothing_for_sure() -> None:
    assert reckoned([STAY], (0.0, 0.0, 19.0, 0.0), velocity_error=20.0) == [False]
    assert reckoned([STAY], (0.0, 0.0, 40.0, 0.0), velocity_error=20.0) == [True]


def test_less_than_the_sensors_round_need_not_show() -> None:
    assert reckoned([np.array([1e-7, 0.0])], reading=(300.0, 300.0, 0.0, 0.0)) == [False]
    assert reckoned([np.array([1e-4, 0.0])], reading=(300.0, 300.0, 0.0, 0.0)) == [True]
