from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm.errors import BadInputError
from wm.planners.guardrails import JointLimits
from wm.types import Trajectory

ANGLE = st.floats(-4, 4, width=32)


def predicted(proprio: torch.Tensor | None) -> Trajectory:
    return Trajectory(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 1, 1), proprio)


@given(ANGLE, ANGLE, ANGLE)
def test_margin_is_what_is_left_to_the_nearest_limit(a: float, b: float, c: float) -> None:
    rule = JointLimits((2, 0), (-1, -2), (1, 3))
    found = rule.margin_of(torch.tensor([a, b, c])).item()
    assert found == pytest.approx(min(c + 1, 1 - c, a + 2, 3 - a), abs=1e-5)
    assert (found >= 0) == (-1 <= c <= 1 and -2 <= a <= 3)


def test_positions_and_velocities_are_two_rules() -> None:
    positions = JointLimits((0, 1), (-2.9, -1.8), (2.9, 1.8))
    velocities = JointLimits((2, 3), (-2, -2), (2, 2), unit="rad/s", name="joint_velocities")
    proprio = torch.tensor([[[[0.0, 0.0, 1.0, -1.5], [2.9, 1.9, 0.0, 0.0], [0.0, -1.0, 3.0, 0.0]]]])
    torch.testing.assert_close(positions(predicted(proprio)), torch.tensor([[[1.8, -0.1, 0.8]]]))
    torch.testing.assert_close(velocities(predicted(proprio)), torch.tensor([[[0.5, 2.0, -1.0]]]))
    assert (velocities.name, velocities.unit, velocities.soft) == ("joint_velocities", "rad/s", True)
    assert (positions.indices, positions.low.tolist()) == ((0, 1), pytest.approx([-2.9, -1.8]))


@pytest.mark.parametrize("joint", [0, 1])
def test_nan_never_looks_safe(joint: int) -> None:
    proprio = torch.zeros(1, 1, 3, 2)
    proprio[0, 0, 1, joint] = torch.nan
    assert (JointLimits((0, 1), (-1, -1), (1, 1))(predicted(proprio)) >= 0).tolist() == [[[True, False, True]]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), (), ()), r"indices must be different numbers >= 0, came \(\)"),
        (((0, 0), (0, 0), (1, 1)), "indices must be different numbers >= 0"),
        (((-1,), (0,), (1,)), "indices must be different numbers >= 0"),
        (((0,), (0, 0), (1, 1)), r"expected 1 numbers as low, came the shape \(2,\)"),
        (((0,), (0,), 1.0), r"expected 1 numbers as high, came the shape \(\)"),
        (((0,), (1,), (1,)), r"low must be below high, came low \[1.0\], high \[1.0\]"),
        (((0,), (float("-inf"),), (1,)), "guardrail 'joints': low must be finite"),
    ],
)
def test_bad_settings_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        JointLimits(*arguments)


def test_a_reading_that_is_not_there_is_an_error() -> None:
    rule = JointLimits((5,), (-1,), (1,))
    with pytest.raises(BadInputError, match="guardrail 'joints' needs proprioception, but the robot reports none"):
        rule(predicted(None))
    with pytest.raises(BadInputError, match="looks at number 5 of proprioception, which has 2 numbers"):
        rule(predicted(torch.zeros(1, 1, 3, 2)))
