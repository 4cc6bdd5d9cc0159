"""Held-out tasks: what those of all worlds have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from wm.datasets.collect.runner import Policy, record
from wm.errors import BadInputError
from wm.experiments.episode import Task

EVALUATION = 0x6576616C
"""Second word of every evaluation episode's seed sequence ("eval" in ASCII)."""

STEPS = 100
"""Control steps that starts out of recorded episodes are drawn from, as long as a logged episode."""

_TRIES = 40  # starts per wanted task, and as many again
_SETTLED = 5  # control steps before the earliest start in a recorded episode
_LONGEST = 1000  # control steps from start to goal in it
_RECORDING_SIZE = 16  # px; the pictures on the way to a start are not kept

Candidate = tuple[np.ndarray, np.ndarray, int]
"""A start's state, a goal's state, and the seed of the planner's noise."""


def evaluation_seeds(seed: int) -> Iterator[tuple[int, int, int]]:
    """Seeds of episode 0, 1, …: of its start or recording, of its goal or start step, of the planner's noise.

    The first is 2**32 or more, those of `wm.datasets.collect.runner` less: no evaluation episode is ever a logged one,
    whatever the two runs' seeds.
    """
    index = 0
    while True:
        words = np.random.SeedSequence([seed, EVALUATION, index]).generate_state(3)
        yield 2**32 + int(words[0]), int(words[1]), int(words[2])
        index += 1


def fresh_tasks(
    env: Any, draw_goal: Callable[[np.random.Generator, np.ndarray], np.ndarray], seed: int, count: int
) -> list[Task]:
    """Tasks from the environment's own starts to goals that are drawn; starts that are solved are passed over.

    Args:
        env: Also draws the goals' pictures.
        draw_goal: A goal's state from its generator and the start's state.
        seed: Of the list, >= 0.
        count: Number of tasks, >= 1.

    Raises:
        BadInputError: a number is out of its range, or hardly any start is unsolved.
    """
    if seed < 0 or count < 1:
        raise BadInputError(f"goals: expected seed >= 0, count >= 1, came {seed}, {count}.")

    def candidates() -> Iterator[Candidate]:
        for episode, goal_seed, planner in evaluation_seeds(seed):
            start = env.reset(seed=episode)[1]["state"]
            yield start, draw_goal(np.random.default_rng(goal_seed), start), planner

    return _first_unsolved(candidates(), count, env, env, "nearly every start is solved already")


def logged_tasks(
    make_env: Callable[[int | None], Any],
    policy: Callable[[int], Policy],
    seed: int,
    count: int,
    offset: int,
    image_size: int | None,
    *,
    wanted: Callable[[np.ndarray, np.ndarray, Sequence[Task]], bool] = lambda *_: True,
    hint: str,
) -> list[Task]:
    """Tasks from fresh episodes of the collection policy, at most one from each episode.

    An episode gives the state at a random control step t >= 5 as the start (velocities included; what came before t is
    not available to a controller) and the state ``offset`` control steps later as the goal. Rejected are starts that
    the environment's success test already accepts, and what is not wanted.

    Args:
        make_env: Makes an environment with pictures of a size.
        policy: The collection policy of a seed.
        seed: Of the list, >= 0.
        count: Number of tasks, >= 1.
        offset: Control steps from start to goal, 1 … 1000.
        image_size: Side of the goal pictures, pixels; None means the environment's default.
        wanted: Of a start's and a goal's state, and the tasks that were taken before.
        hint: Why there may be none, for the message.

    Raises:
        BadInputError: a number is out of its range, or hardly any episode gives a task.
    """
    if seed < 0 or count < 1 or not 1 <= offset <= _LONGEST:
        raise BadInputError(
            f"goals: expected seed >= 0, count >= 1, an offset of 1 to {_LONGEST} control steps, came {seed}, {count}, "
            f"{offset}."
        )
    recorder, painter = make_env(_RECORDING_SIZE), make_env(image_size)
    latest = max(STEPS - offset, 4 * _SETTLED)

    def candidates() -> Iterator[Candidate]:
        for episode, first, planner in evaluation_seeds(seed):
            at = int(np.random.default_rng(first).integers(_SETTLED, latest + 1))
            states = record(recorder, policy(episode), at + offset, episode).state
            yield states[at], states[at + offset], planner

    return _first_unsolved(candidates(), count, recorder, painter, hint, wanted)


def _first_unsolved(
    candidates: Iterator[Candidate],
    count: int,
    env: Any,
    painter: Any,
    hint: str,
    wanted: Callable[[np.ndarray, np.ndarray, Sequence[Task]], bool] = lambda *_: True,
) -> list[Task]:
    """The first candidates that are wanted and that the environment does not find solved; decided in order, so that
    the first n tasks of a longer list are the list of n.
    """
    tasks: list[Task] = []
    for _ in range(_TRIES * (count + 1)):
        start, goal, planner = next(candidates)
        if wanted(start, goal, tasks) and not solved(env, start, goal):
            tasks.append(Task(start, picture(painter, goal), goal, planner))
        if len(tasks) == count:
            return tasks
    raise BadInputError(f"goals: only {len(tasks)} of {count} found in {_TRIES * (count + 1)} episodes; {hint}.")


def picture(env: Any, state: np.ndarray) -> np.ndarray:
    """The environment's own picture of a state, ``(H, W, 3)`` uint8."""
    return env.reset(options={"state": state})[0]["image"]


def solved(env: Any, start: np.ndarray, goal: np.ndarray) -> bool:
    """The environment's success test accepts the start."""
    return bool(env.reset(options={"state": start, "goal_state": goal})[1]["is_success"])
