"""Held-out tasks: a start and a goal picture out of freshly collected episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from wm.datasets.collect.runner import record
from wm.envs.pusht.physics import BAR, STEM, WORLD_SIZE
from wm.errors import BadInputError
from wm.experiments.assemble import make_env
from wm.experiments.collect import POLICIES
from wm.experiments.episode import Task

EVALUATION = 0x6576616C
"""Second word of every evaluation episode's seed sequence ("eval" in ASCII)."""

MOVED_PX = 20.0
"""A goal whose block lies further than this from where it starts needs the block moved."""

_SETTLED = 5  # control steps before the earliest start
_STEPS = 100  # control steps that starts are drawn from, as long as a logged episode
_LONGEST = 1000  # control steps from start to goal
_TRIES = 40  # episodes per wanted task, and as many again, before an offset is given up
_RECORDING_SIZE = 16  # px; the pictures on the way to a start are not kept


def sample_tasks(env_name: str, seed: int, count: int, offset: int, image_size: int | None = None) -> list[Task]:
    """Tasks from fresh episodes of the collection policy, at most one from each episode.

    An episode gives the state at a random control step t >= 5 as the start (the pusher's velocity included; what came
    before t is not available to a controller) and the state ``offset`` control steps later as the goal. Rejected are
    starts that the environment's success test already accepts, and goals whose block is not wholly in the picture.

    At least half of the goals need the block moved by more than 20 px: a goal that does not is taken only while fewer
    of its kind than of the other have been taken, else its episode is skipped. This is decided in order, so that it
    holds for every prefix, and the first n tasks of a longer list are the list of n.

    Episode seeds are 2**32 and more, those of `wm.datasets.collect.runner` less: no evaluation episode is ever a logged
    one, whatever the two runs' seeds. Task i depends on (env_name, seed, offset, i) alone.

    Args:
        env_name: Environment.
        seed: Of the list, >= 0.
        count: Number of tasks, >= 1.
        offset: Control steps from start to goal, 1 … 1000.
        image_size: Side of the goal pictures, pixels; None means the environment's default.

    Raises:
        UnknownNameError: no such environment.
        BadInputError: a number is out of its range, or the offset is too short for such goals.
    """
    if seed < 0 or count < 1 or offset < 1:
        raise BadInputError(f"goals: expected seed >= 0, count >= 1, offset >= 1, came {seed}, {count}, {offset}.")
    if offset > _LONGEST:
        raise BadInputError(f"goals: expected an offset of at most {_LONGEST} control steps, came {offset}.")
    recorder, painter = make_env(env_name, _RECORDING_SIZE), make_env(env_name, image_size)
    policy = POLICIES[env_name]
    tasks: list[Task] = []
    moving = tried = 0
    for episode, first, planner in _seeds(seed):
        if len(tasks) == count:
            break
        if tried == _TRIES * (count + 1):
            raise BadInputError(
                f"goals: only {len(tasks)} of {count} found in {tried} episodes; "
                f"goals {offset} control steps ahead seldom move the block, use a larger offset."
            )
        tried += 1
        latest = max(_STEPS - offset, 4 * _SETTLED)
        start_step = int(np.random.default_rng(first).integers(_SETTLED, latest + 1))
        states = record(recorder, policy(episode), start_step + offset, episode).state
        start, goal = states[start_step], states[start_step + offset]
        moves = block_shift(start, goal) > MOVED_PX
        if (not moves and len(tasks) - moving >= moving) or not in_picture(goal) or _solved(recorder, start, goal):
            continue
        moving += moves
        tasks.append(Task(start, picture(painter, goal), goal, planner))
    return tasks


def block_shift(start: np.ndarray, goal: np.ndarray) -> float:
    """How far the block's origin is to be moved, px."""
    return float(np.linalg.norm(goal[2:4] - start[2:4]))


def in_picture(state: np.ndarray) -> bool:
    """Every corner of the block lies in the picture."""
    cos, sin = np.cos(state[4]), np.sin(state[4])
    corners = np.concatenate([BAR, STEM]) @ np.array([[cos, sin], [-sin, cos]]) + state[2:4]
    return bool(((corners >= 0.0) & (corners <= WORLD_SIZE)).all())


def picture(env: Any, state: np.ndarray) -> np.ndarray:
    """The environment's own picture of a state, ``(H, W, 3)`` uint8."""
    return env.reset(options={"state": state})[0]["image"]


def _solved(env: Any, start: np.ndarray, goal: np.ndarray) -> bool:
    """The environment's success test accepts the start."""
    return bool(env.reset(options={"state": start, "goal_state": goal})[1]["is_success"])


def _seeds(seed: int) -> Iterator[tuple[int, int, int]]:
    """Seeds of episode 0, 1, …: of its recording, of its start step, of the planner's noise."""
    index = 0
    while True:
        words = np.random.SeedSequence([seed, EVALUATION, index]).generate_state(3)
        yield 2**32 + int(words[0]), int(words[1]), int(words[2])
        index += 1
