"""Held-out push-T tasks: a start and a goal picture out of freshly collected episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wm.datasets.collect.pusht import BlockSeekingPolicy
from wm.datasets.collect.runner import record
from wm.envs.pusht.physics import BAR, STEM, WORLD_SIZE
from wm.errors import BadInputError
from wm.experiments.episode import Task
from wm.experiments.worlds.tasks import evaluation_seeds, picture, solved

MOVED_PX = 20.0
"""A goal whose block lies further than this from where it starts needs the block moved."""

STEPS = 100
"""Control steps that starts are drawn from, as long as a logged episode."""

_SETTLED = 5  # control steps before the earliest start
_LONGEST = 1000  # control steps from start to goal
_TRIES = 40  # episodes per wanted task, and as many again, before an offset is given up
_RECORDING_SIZE = 16  # px; the pictures on the way to a start are not kept


def logged_tasks(
    make_env: Callable[[int | None], Any], seed: int, count: int, offset: int, image_size: int | None = None
) -> list[Task]:
    """Tasks from fresh episodes of the collection policy, at most one from each episode.

    An episode gives the state at a random control step t >= 5 as the start (the pusher's velocity included; what came
    before t is not available to a controller) and the state ``offset`` control steps later as the goal. Rejected are
    starts that the environment's success test already accepts, and goals whose block is not wholly in the picture.

    At least half of the goals need the block moved by more than 20 px: a goal that does not is taken only while fewer
    of its kind than of the other have been taken, else its episode is skipped. This is decided in order, so that it
    holds for every prefix, and the first n tasks of a longer list are the list of n.

    Task i depends on (seed, offset, i) alone.

    Args:
        make_env: Makes an environment with pictures of a size.
        seed: Of the list, >= 0.
        count: Number of tasks, >= 1.
        offset: Control steps from start to goal, 1 … 1000.
        image_size: Side of the goal pictures, pixels; None means the environment's default.

    Raises:
        BadInputError: a number is out of its range, or the offset is too short for such goals.
    """
    if seed < 0 or count < 1 or offset < 1:
        raise BadInputError(f"goals: expected seed >= 0, count >= 1, offset >= 1, came {seed}, {count}, {offset}.")
    if offset > _LONGEST:
        raise BadInputError(f"goals: expected an offset of at most {_LONGEST} control steps, came {offset}.")
    recorder, painter = make_env(_RECORDING_SIZE), make_env(image_size)
    tasks: list[Task] = []
    moving = tried = 0
    for episode, first, planner in evaluation_seeds(seed):
        if len(tasks) == count:
            break
        if tried == _TRIES * (count + 1):
            raise BadInputError(
                f"goals: only {len(tasks)} of {count} found in {tried} episodes; "
                f"goals {offset} control steps ahead seldom move the block, use a larger offset."
            )
        tried += 1
        latest = max(STEPS - offset, 4 * _SETTLED)
        start_step = int(np.random.default_rng(first).integers(_SETTLED, latest + 1))
        states = record(recorder, BlockSeekingPolicy(episode), start_step + offset, episode).state
        start, goal = states[start_step], states[start_step + offset]
        moves = block_shift(start, goal) > MOVED_PX
        if (not moves and len(tasks) - moving >= moving) or not in_picture(goal) or solved(recorder, start, goal):
            continue
        moving += moves
        tasks.append(Task(start, picture(painter, goal), goal, planner))
    return tasks


def block_shift(start: np.ndarray, goal: np.ndarray) -> float:
    """How far the block's origin is to be moved, px."""
    return float(np.linalg.norm(np.subtract(goal, start)[2:4]))


def in_picture(state: np.ndarray) -> bool:
    """Every corner of the block lies in the picture."""
    cos, sin = np.cos(state[4]), np.sin(state[4])
    corners = np.concatenate([BAR, STEM]) @ np.array([[cos, sin], [-sin, cos]]) + state[2:4]
    return bool(((corners >= 0.0) & (corners <= WORLD_SIZE)).all())
