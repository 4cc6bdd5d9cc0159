from __future__ import annotations

import numpy as np
import pytest

from tests.planners.control.fakes import FakeShield
from wm.errors import RobotError
from wm.planners.control.acting import NO_READING, REMEMBERED, Sent, certified, taken


def numbered(*steps: int) -> Sent:
    sent = Sent()
    for step in steps:
        sent.add(step, np.array([float(step), 0.0]))
    return sent


def test_memory_repeats_the_action_over_a_skipped_control_step() -> None:
    assert [a[0] for a in numbered(3, 4, 7).before(9)] == [3, 4, 4, 4, 7, 7]
    assert numbered().before(5) == []


def test_memory_is_bounded() -> None:
    held = numbered(*range(50)).before(50)
    assert [a[0] for a in held] == list(range(50 - REMEMBERED, 50))
    assert len(numbered(0, 1).before(10**9)) == REMEMBERED


def test_shield_is_asked_without_a_reading_too() -> None:
    shield = FakeShield()
    verdict = certified(shield, np.ones(2), None, [np.zeros(2)])
    assert (verdict.kind, verdict.rule, len(shield.held)) == ("stop", NO_READING, 1)


@pytest.mark.parametrize("answer", [np.array([np.nan, 0.0]), np.zeros(1), "no", None])
def test_robot_that_took_something_else_than_an_action_is_refused(answer: object) -> None:
    with pytest.raises(RobotError, match="the robot says it took"):
        taken(answer, np.zeros(2))
