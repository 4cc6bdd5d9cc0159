from __future__ import annotations

import numpy as np
import pytest

from wm.envs.pusht.draw import draw
from wm.envs.pusht.success import reached
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.goals import sample_tasks
from wm.experiments.worlds import pusht_tasks
from wm.experiments.worlds.pusht_tasks import MOVED_PX, block_shift, in_picture

COUNT = 12


@pytest.fixture(scope="module")
def tasks() -> list:
    return sample_tasks("pusht", 3, COUNT, 25)


def test_a_task_is_a_full_state_and_the_picture_of_its_goal(tasks: list) -> None:
    for task in tasks:
        assert task.start_state.shape == task.goal_state.shape == (7,)
        assert task.goal_image.shape == (96, 96, 3) and task.goal_image.dtype == np.uint8
        assert np.array_equal(task.goal_image, draw(task.goal_state, 96))
    assert any(np.linalg.norm(task.start_state[5:]) > 1.0 for task in tasks), "no start in motion"
    assert len({task.seed for task in tasks}) == COUNT


def test_no_start_is_solved_and_every_goal_is_wholly_visible(tasks: list) -> None:
    for task in tasks:
        assert not reached(task.start_state, task.goal_state)
        assert in_picture(task.goal_state)


def test_at_least_half_of_every_prefix_moves_the_block() -> None:
    moves = [block_shift(t.start_state, t.goal_state) > MOVED_PX for t in sample_tasks("pusht", 0, 16, 8)]
    assert not all(moves)
    for n in range(1, len(moves) + 1):
        assert 2 * sum(moves[:n]) >= n


def test_a_list_is_a_prefix_of_a_longer_one_and_depends_on_the_seed(tasks: list) -> None:
    shorter, other = sample_tasks("pusht", 3, 4, 25), sample_tasks("pusht", 4, 4, 25)
    for a, b, c in zip(shorter, tasks, other, strict=False):
        assert np.array_equal(a.start_state, b.start_state) and np.array_equal(a.goal_state, b.goal_state)
        assert np.array_equal(a.goal_image, b.goal_image) and a.seed == b.seed
        assert not np.array_equal(a.start_state, c.start_state)


def test_the_picture_has_the_asked_size() -> None:
    assert sample_tasks("pusht", 0, 1, 25, image_size=64)[0].goal_image.shape == (64, 64, 3)


def test_a_block_that_sticks_out_is_not_in_the_picture() -> None:
    assert in_picture(np.array([0, 0, 256, 256, 0.3]))
    assert not in_picture(np.array([0, 0, 256, 450, 0.0]))  # the stem's end is 120 px below the origin
    assert in_picture(np.array([0, 0, 256, 450, np.pi]))


def test_errors_say_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="unknown environment 'pushT'. Did you mean 'pusht'"):
        sample_tasks("pushT", 0, 1, 25)
    with pytest.raises(BadInputError, match="an offset of 1 to 1000 control steps, came 0, 1, 100000"):
        sample_tasks("pusht", 0, 1, 100_000)
    with pytest.raises(BadInputError, match="expected seed >= 0, count >= 1, an offset of 1 to 1000 .* came 0, 1, 0"):
        sample_tasks("pusht", 0, 1, 0)
    monkeypatch.setattr(pusht_tasks, "MOVED_PX", 1e9)
    with pytest.raises(BadInputError, match="only 0 of 1 found in 80 episodes; goals 2 control steps ahead seldom"):
        sample_tasks("pusht", 0, 1, 2)
