"""Any Gymnasium environment as the commands see it: what its declaration says, and goals out of fresh episodes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from wm.datasets.collect.runner import Policy
from wm.datasets.collect.wander import WanderPolicy
from wm.envs.foreign.env import ForeignEnv
from wm.envs.foreign.load import load_world
from wm.envs.foreign.world import ForeignWorld
from wm.errors import BadInputError
from wm.experiments.episode import Task
from wm.experiments.worlds.base import Planning, World
from wm.experiments.worlds.tasks import STEPS, logged_tasks

_LOOKED_AT = 16  # px; the pictures are not kept


class Foreign(World):
    """A foreign environment; goals are states of fresh episodes of random wandering.

    Measure: `distance`, how far the compared numbers are from the goal's at the end. There is no oracle: stepping a
    foreign simulator thousands of times a plan is too slow to be of use.

    Args:
        declaration: What is known of it.
    """

    steps = STEPS
    goal_offset = 25
    budget_steps = 50
    goal_kinds = ("logged",)
    planning = Planning()
    policy_name = WanderPolicy.name
    averaged = ("distance",)

    def __init__(self, declaration: ForeignWorld) -> None:
        self.declaration = declaration
        self.name, self.frameskip = declaration.name, declaration.frameskip
        env = self.make_env(_LOOKED_AT)
        self.action, self.compared = env.env_spec.action, env.goal_width
        env.close()

    def make_env(self, image_size: int | None = None) -> Any:
        """The wrapped environment."""
        return ForeignEnv(self.declaration) if image_size is None else ForeignEnv(self.declaration, image_size)

    def recipe(self) -> dict[str, Any]:
        """The declaration; of a function only its name, and nothing of where the file was."""
        declared = dataclasses.asdict(self.declaration)
        del declared["source"]
        plain = json.dumps(declared, default=lambda value: getattr(value, "__qualname__", type(value).__name__))
        return {"declaration": json.loads(plain)}

    def policy(self, seed: int) -> Policy:
        """Slowly varying random actions."""
        return WanderPolicy(self.action, seed)

    def logged(self, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
        """How far episodes ended from where they began, in the goal's own numbers."""
        goal = self.declaration.goal
        if goal is None:
            return "no goal is declared"
        ways = [goal.distance(last[: self.compared], first[: self.compared]) for first, last in ends]
        return f"{np.mean(ways):.3g} from the start at the end on average (tolerance {goal.tolerance:g})"

    def draw_tasks(self, seed: int, count: int, kind: str, offset: int | None, image_size: int | None) -> list[Task]:
        """See `logged_tasks`.

        Raises:
            BadInputError: as there, or no goal is declared.
        """
        assert offset is not None
        if self.declaration.goal is None:
            raise BadInputError(f"goals: '{self.name}' declares no goal test; add a [goal] to its declaration.")
        hint = (
            f"wandering {offset} control steps seldom leaves a goal's tolerance: use a larger offset, or a smaller "
            "tolerance"
        )
        return logged_tasks(self.make_env, self.policy, seed, count, offset, image_size, hint=hint)

    def measures(self, goal: np.ndarray, states: np.ndarray) -> dict[str, float]:
        """See the class."""
        test = self.declaration.goal
        assert test is not None
        return {"distance": test.distance(states[-1][: self.compared], np.asarray(goal)[: self.compared])}

    def rest_action(self) -> np.ndarray:
        """The middle of the bounds: no force, no velocity, where these are symmetric."""
        return ((np.array(self.action.low) + np.array(self.action.high)) / 2).astype(np.float32)

    def versions(self) -> dict[str, str]:
        """Gymnasium's."""
        return {"gymnasium": gymnasium.__version__}


def foreign_world(text: str) -> Foreign:
    """The world of ``module:Id``, of a Gymnasium id, or of a declaration's file.

    Raises:
        WmError: as `wm.envs.foreign.load.load_world` and `ForeignEnv`.
    """
    return Foreign(load_world(text))
