"""Ordinary push-T goals and ordinary guardrails: rules that a sensible operator would set, and goals they allow."""

from __future__ import annotations

import dataclasses
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
"""px, of a disc that lies as far as possible from where pusher and block start and have to go."""


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
    wanted, spec = count, push_t_spec()
    while True:
        found = []
        for task in sample_tasks("pusht", seed, wanted, OFFSET, image_size):
            assert task.goal_state is not None
            rested = dataclasses.replace(task, start_state=at_rest(task.start_state, spec))
            each = Ordinary(rested, (*farthest(np.stack([task.start_state, task.goal_state])), KEEP_OUT_RADIUS))
            places = torch.tensor(np.stack([task.start_state[:2], task.goal_state[:2]]))
            path = torch.cat([places, torch.zeros(2, 2)], dim=1)
            if all(bool((rule.margin_of(path) > 0).all()) for rule in on_states(each.rules.guardrails())):
                found.append(each)
        if len(found) >= count:
            return found[:count]
        wanted += 2 * (count - len(found))


def farthest(states: np.ndarray) -> tuple[float, float]:
    """The place inside the picture that is farthest from pusher and block in all of the states ``(K, >= 4)`` [px]."""
    line = np.linspace(AGENT_RADIUS + KEEP_OUT_RADIUS, WORLD_SIZE - AGENT_RADIUS - KEEP_OUT_RADIUS, 43)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    places = states[:, :4].reshape(-1, 2)
    distance = np.linalg.norm(grid[:, None] - places, axis=-1).min(1)
    x, y = grid[distance.argmax()].tolist()
    return x, y
