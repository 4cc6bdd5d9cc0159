"""Goals of the arm's tasks."""

from __future__ import annotations

import numpy as np
import pytest

from wm.envs.arm.goals import PUSH_BY, SUCCESS_M, distance, random_state, target_state
from wm.envs.arm.scene import HIGH, LOW


@pytest.mark.parametrize("task", ["reach", "push"])
def test_goals_are_not_reached_at_the_start_and_inside(task: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        start = random_state(task, rng)
        goal = target_state(task, start, rng)
        assert goal.shape == start.shape and distance(task, start, goal) > SUCCESS_M
        axes = 3 if task == "reach" else 2
        assert (goal[:axes] >= LOW[task][:axes]).all() and (goal[:axes] <= HIGH[task][:axes]).all()


def test_a_pushed_cube_lies_before_the_tip() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        start = random_state("push", rng)
        goal = target_state("push", start, rng)
        way, gap = goal[2:4] - start[2:4], goal[2:4] - goal[:2]
        assert PUSH_BY[0] - 1e-9 <= np.linalg.norm(way) <= PUSH_BY[1] + 1e-9
        assert way @ gap == pytest.approx(np.linalg.norm(way) * np.linalg.norm(gap))
        assert 0.05 < np.linalg.norm(gap) < 0.07


def test_a_cube_beyond_the_walls_still_gets_a_goal() -> None:
    start = np.array([0.3, 0.0, 0.75, 0.3, 0.0, 0.0, 0.0])
    goal = target_state("push", start, np.random.default_rng(2))
    assert np.isfinite(goal).all() and distance("push", start, goal) >= PUSH_BY[0]


def test_the_same_generator_gives_the_same_goal() -> None:
    start = random_state("push", np.random.default_rng(3))
    one, other = (target_state("push", start, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
