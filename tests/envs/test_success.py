from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm.envs.pusht.success import ANGLE_TOLERANCE_RAD, POSITION_TOLERANCE_PX, block_reached, reached, wrap

GOAL = np.array([100.0, 120.0, 300.0, 280.0, 0.4])
angles = st.floats(-50.0, 50.0)


@given(angles)
def test_wrapping_keeps_the_direction_and_the_range(angle: float) -> None:
    assert -math.pi <= wrap(angle) < math.pi
    assert math.cos(wrap(angle)) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.sin(wrap(angle)) == pytest.approx(math.sin(angle), abs=1e-9)


@pytest.mark.parametrize("turns", [-2, -1, 1, 2])
def test_whole_turns_do_not_count(turns: int) -> None:
    turned = GOAL + [0, 0, 0, 0, 2 * math.pi * turns]
    assert reached(turned, GOAL) and reached(GOAL, turned) and block_reached(turned, GOAL)
    away = turned + [0, 0, 0, 0, 2 * ANGLE_TOLERANCE_RAD]
    assert not reached(away, GOAL) and not block_reached(away, GOAL)


@pytest.mark.parametrize("across", [-1.0, 1.0])
def test_angles_on_both_sides_of_half_a_turn_are_near(across: float) -> None:
    one, other = GOAL.copy(), GOAL.copy()
    one[4], other[4] = across * (math.pi - 0.1), -across * (math.pi - 0.1)
    assert reached(one, other)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_bounds_of_position_and_angle(sign: float) -> None:
    for place in range(4):
        offset = np.eye(5)[place] * sign
        assert reached(GOAL + (POSITION_TOLERANCE_PX - 1e-6) * offset, GOAL)
        assert not reached(GOAL + (POSITION_TOLERANCE_PX + 1e-6) * offset, GOAL)
    turn = np.eye(5)[4] * sign
    assert reached(GOAL + (math.pi / 9 - 1e-6) * turn, GOAL)
    assert not reached(GOAL + (math.pi / 9 + 1e-6) * turn, GOAL)
    assert POSITION_TOLERANCE_PX == 20.0


def test_distances_of_pusher_and_block_add_up() -> None:
    assert not reached(GOAL + [15.0, 0.0, 0.0, 15.0, 0.0], GOAL)
    assert reached(GOAL + [14.0, 0.0, 0.0, 14.0, 0.0], GOAL)


def test_block_alone_ignores_the_pusher() -> None:
    away = GOAL + [200.0, -50.0, 0.0, 19.0, 0.0]
    assert block_reached(away, GOAL) and not reached(away, GOAL)
    assert not block_reached(GOAL + [0, 0, 15.0, 15.0, 0], GOAL)


@given(st.lists(st.floats(-30.0, 30.0), min_size=4, max_size=4), angles)
def test_is_symmetric_and_ignores_velocities(offset: list[float], turn: float) -> None:
    other = GOAL + [*offset, turn]
    assert reached(other, GOAL) == reached(GOAL, other)
    assert block_reached(other, GOAL) == block_reached(GOAL, other)
    assert reached(np.append(other, [99.0, -99.0]), GOAL) == reached(other, GOAL)
