"""Push-T goals and the guardrails that an operator would set for them, all of which allow start and goal.

Ordinary ones have their keep-out disc far from the task; hard ones have it in the middle of the pusher's way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from wm.envs.pusht.env import push_t_spec
from wm.envs.pusht.physics import AGENT_RADIUS, WORLD_SIZE
from wm.experiments.delayed_planner import PlannerSetup
from wm.experiments.episode import Task
from wm.experiments.goals import sample_tasks
from wm.experiments.robots import at_rest
from wm.experiments.rules import Rules, on_states

OFFSET = 25
"""Control steps from a start to its goal."""

WORKSPACE = (0.0, 0.0, WORLD_SIZE, WORLD_SIZE)
MAX_SPEED = 400.0
"""px/s; the pusher reaches 427 px/s along an axis."""

KEEP_OUT_RADIUS = 30.0
"""px, of a disc as far as possible from where pusher and block start and have to go; at most, of a hard one."""

HARD_RADIUS = 10.0
"""px, of a hard disc at least; where it would be smaller the task is left out."""

CLEAR = 10.0
"""px between the pusher at start and goal, and a hard disc."""


@dataclass(frozen=True, eq=False)
class Ordinary:
    """A task with its guardrails.

    Attributes:
        task: From rest.
        keep_out: The disc, x, y, radius [px].
    """

    task: Task
    keep_out: tuple[float, float, float]

    @property
    def rules(self) -> Rules:
        """Workspace, disc and speed limit."""
        return Rules((self.keep_out,), workspace=WORKSPACE, max_speed=MAX_SPEED)

    def setup(self, setup: PlannerSetup, guarded: bool) -> PlannerSetup:
        """A planner to this goal, with the guardrails or without."""
        return dataclasses.replace(
            setup,
            goal_image=self.task.goal_image,
            seed=self.task.seed,
            rules=self.rules,
            guarded=guarded,
        )


def ordinary_tasks(seed: int, count: int, image_size: int) -> list[Ordinary]:
    """The first ``count`` held-out tasks of a seed (`sample_tasks`) whose start and goal the guardrails allow."""
    return _tasks(seed, count, image_size, lambda states: (*farthest(states), KEEP_OUT_RADIUS))


def hard_tasks(seed: int, count: int, image_size: int) -> list[Ordinary]:
    """As `ordinary_tasks`, those where a disc fits half-way between the pusher's start and its goal (`between`).

    The pusher can always get around it. Whether the block can be pushed to its goal from outside of the disc is not
    known: what the oracle reaches under the same guardrails says how often.
    """
    return _tasks(seed, count, image_size, between)


def _tasks(
    seed: int, count: int, image_size: int, disc_of: Callable[[np.ndarray], tuple[float, float, float] | None]
) -> list[Ordinary]:
    wanted, spec = count, push_t_spec()
    while True:
        found = []
        for task in sample_tasks("pusht", seed, wanted, OFFSET, image_size):
            assert task.goal_state is not None
            disc = disc_of(np.stack([task.start_state, task.goal_state]))
            if disc is None:
                continue
            each = Ordinary(dataclasses.replace(task, start_state=at_rest(task.start_state, spec)), disc)
            places = torch.tensor(np.stack([task.start_state[:2], task.goal_state[:2]]))
            path = torch.cat([places, torch.zeros(2, 2)], dim=1)
            if all(bool((rule.margin_of(path) > 0).all()) for rule in on_states(each.rules.guardrails())):
                found.append(each)
        if len(found) >= count:
            return found[:count]
        wanted += 2 * (count - len(found))


def between(states: np.ndarray) -> tuple[float, float, float] | None:
    """The disc half-way between the pusher's first and last place in ``(2, >= 2)``: x, y, radius [px].

    As large as `KEEP_OUT_RADIUS` and the distance allow; None where it would be smaller than `HARD_RADIUS`, or leave
    the pusher no way around it inside the workspace.
    """
    (x, y), half = states[:, :2].mean(axis=0), float(np.linalg.norm(states[1, :2] - states[0, :2])) / 2
    radius = min(KEEP_OUT_RADIUS, half - AGENT_RADIUS - CLEAR)
    around = radius + 2 * AGENT_RADIUS + CLEAR
    inside = min(x, y, WORLD_SIZE - x, WORLD_SIZE - y) >= around
    return (float(x), float(y), radius) if radius >= HARD_RADIUS and inside else None


def farthest(states: np.ndarray) -> tuple[float, float]:
    """The place inside the picture that is farthest from pusher and block in all of the states ``(K, >= 4)`` [px]."""
    line = np.linspace(AGENT_RADIUS + KEEP_OUT_RADIUS, WORLD_SIZE - AGENT_RADIUS - KEEP_OUT_RADIUS, 43)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    places = states[:, :4].reshape(-1, 2)
    distance = np.linalg.norm(grid[:, None] - places, axis=-1).min(1)
    x, y = grid[distance.argmax()].tolist()
    return x, y
