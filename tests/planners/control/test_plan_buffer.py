from __future__ import annotations

import numpy as np
import pytest

from tests.planners.control.fakes import ACTION
from wm.planners.control.messages import PlanReply, PlanRequest
from wm.planners.control.plan_buffer import PlanBuffer, refusal

COMMITTED = np.array([[0.1, 0.2], [0.3, 0.4]])
REQUEST = PlanRequest(10, np.zeros((1, 8, 8, 3), np.uint8), None, COMMITTED, 100.0)


def reply(step: int, count: int, value: float = 0.0) -> PlanReply:
    return PlanReply(step, np.full((count, 2), value))


def test_splice_keeps_what_comes_before_and_nothing_else_of_the_old_plan() -> None:
    buffer = PlanBuffer()
    buffer.splice(reply(0, 20, 0.1), 2)
    buffer.splice(reply(5, 6, 0.2), 7)
    plans = {step: entry[1] for step in range(25) if (entry := buffer.at(step)) is not None}
    assert plans == dict.fromkeys(range(2, 7), 0) | dict.fromkeys(range(7, 11), 5)
    assert buffer.left(2) == 9 and buffer.left(11) == 0


def test_over_is_forgotten() -> None:
    buffer = PlanBuffer()
    buffer.splice(reply(0, 5), 0)
    buffer.forget_before(3)
    assert buffer.at(2) is None and buffer.at(3) is not None
    buffer.clear()
    assert buffer.at(3) is None


def test_plan_that_begins_with_the_committed_actions_passes_in_single_precision() -> None:
    actions = np.concatenate([COMMITTED, np.ones((3, 2))]).astype(np.float32)
    assert refusal(PlanReply(10, actions), REQUEST, ACTION) is None


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (COMMITTED, "expected more than 2 actions of 2 numbers, came the shape (2, 2)"),
        (np.zeros((5, 3)), "expected more than 2 actions of 2 numbers, came the shape (5, 3)"),
        (np.concatenate([COMMITTED, [[np.nan, 0]]]), "an action is not finite"),
        (np.concatenate([COMMITTED, [[0, 1.01]]]), "an action is out of its bounds"),
        (np.concatenate([COMMITTED, [[0, -1.01]]]), "an action is out of its bounds"),
        (np.zeros((5, 2)), "it does not begin with the committed actions"),
    ],
)
def test_plan_that_must_not_be_executed_is_refused(actions: np.ndarray, message: str) -> None:
    assert refusal(PlanReply(10, actions), REQUEST, ACTION) == message
