"""Held-out tasks: what those of all worlds have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from wm.errors import BadInputError
from wm.experiments.episode import Task

EVALUATION = 0x6576616C
"""Second word of every evaluation episode's seed sequence ("eval" in ASCII)."""

_TRIES = 40  # starts per wanted task, and as many again


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
    tasks: list[Task] = []
    for tried, (episode, goal_seed, planner) in enumerate(evaluation_seeds(seed)):
        if len(tasks) == count:
            break
        if tried == _TRIES * (count + 1):
            raise BadInputError(f"goals: only {len(tasks)} of {count} found; nearly every start is solved already.")
        start = env.reset(seed=episode)[1]["state"]
        goal = draw_goal(np.random.default_rng(goal_seed), start)
        if not solved(env, start, goal):
            tasks.append(Task(start, picture(env, goal), goal, planner))
    return tasks


def picture(env: Any, state: np.ndarray) -> np.ndarray:
    """The environment's own picture of a state, ``(H, W, 3)`` uint8."""
    return env.reset(options={"state": state})[0]["image"]


def solved(env: Any, start: np.ndarray, goal: np.ndarray) -> bool:
    """The environment's success test accepts the start."""
    return bool(env.reset(options={"state": start, "goal_state": goal})[1]["is_success"])
