"""Which goals of push-T are wanted: most of them shall need the block moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm.envs.pusht.physics import BAR, STEM, WORLD_SIZE
from wm.experiments.episode import Task

MOVED_PX = 20.0
"""A goal whose block lies further than this from where it starts needs the block moved."""


def wanted(start: np.ndarray, goal: np.ndarray, taken: Sequence[Task]) -> bool:
    """A goal whose block is wholly in the picture; and at least half of the goals need the block moved by over 20 px.

    A goal that does not is wanted only while fewer of its kind than of the other have been taken. So it holds for every
    prefix of a list.

    Args:
        start: ``(7,)`` state.
        goal: ``(7,)`` state.
        taken: The tasks before.
    """
    if block_shift(start, goal) <= MOVED_PX:
        moving = sum(block_shift(task.start_state, np.asarray(task.goal_state)) > MOVED_PX for task in taken)
        if len(taken) - moving >= moving:
            return False
    return in_picture(goal)


def block_shift(start: np.ndarray, goal: np.ndarray) -> float:
    """How far the block's origin is to be moved, px."""
    return float(np.linalg.norm(np.subtract(goal, start)[2:4]))


def in_picture(state: np.ndarray) -> bool:
    """Every corner of the block lies in the picture."""
    cos, sin = np.cos(state[4]), np.sin(state[4])
    corners = np.concatenate([BAR, STEM]) @ np.array([[cos, sin], [-sin, cos]]) + state[2:4]
    return bool(((corners >= 0.0) & (corners <= WORLD_SIZE)).all())
