"""The arm as the commands see it: reaching a place, and pushing a cube to one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from wm.datasets.collect.arm import PushPolicy, ReachPolicy
from wm.datasets.collect.runner import Policy
from wm.envs.arm.goals import SUCCESS_M, distance, target_state
from wm.envs.arm.scene import Task as ArmTask
from wm.envs.arm.scripted import LinePusher, StraightReacher
from wm.experiments.baselines import StatePolicy
from wm.experiments.episode import Task
from wm.experiments.episode_log import Record
from wm.experiments.rules import Rules
from wm.experiments.worlds.base import Baseline, Panel, Planning, World
from wm.experiments.worlds.tasks import fresh_tasks
from wm.kinematics import PointKinematics
from wm.planners.guardrails import Guardrail

_KNOWS = {"sees": "the simulator's true state and the goal's, no picture"}


class _Arm(World):
    """Starts and goals are the environment's own. Measure: `distance_m`, of what counts from the goal's, at the end.

    There is no oracle: a control step of this simulator takes milliseconds, a plan would take minutes. What plays
    beside the model instead is a hand-written controller that sees the true state.
    """

    task: ArmTask
    steps = 60
    frameskip = 5
    goal_offset = None
    averaged = ("distance_m",)

    def draw_tasks(self, seed: int, count: int, kind: str, offset: int | None, image_size: int | None) -> list[Task]:
        """The environment's own starts, and `wm.envs.arm.goals.target_state`."""
        env = self.make_env(image_size)
        return fresh_tasks(env, lambda rng, start: target_state(self.task, start, rng), seed, count)

    def measures(self, goal: np.ndarray, states: np.ndarray) -> dict[str, float]:
        """See the class."""
        return {"distance_m": distance(self.task, states[-1], np.asarray(goal))}

    def versions(self) -> dict[str, str]:
        """The physics engine's."""
        return {"pybullet": version("pybullet")}

    def panels(self, records: Sequence[Record]) -> list[Panel]:
        """The distance, beside what counts as success."""
        return [self.start_to_end(records, "distance_m", "distance from the goal [m]", SUCCESS_M)]


class ArmReach(_Arm):
    """Move the tip of the arm's tool to where a picture shows it."""

    name = "arm-reach"
    task: ArmTask = "reach"
    budget_steps = 30
    goal_kinds = ("reach",)
    planning = Planning()
    policy_name = ReachPolicy.name

    def policy(self, seed: int) -> Policy:
        """From one random place to the next."""
        return ReachPolicy(seed)

    def logged(self, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
        """How far the tip was from where it began."""
        return f"the tip ended {_mean_cm(self.task, ends):.0f} cm from its start on average"

    def rest_action(self) -> np.ndarray:
        """No displacement."""
        return np.zeros(3, np.float32)

    def baselines(self, env: Any) -> dict[str, Baseline]:
        """Straight to the goal's true place."""
        return {"straight": Baseline(lambda task: StatePolicy(StraightReacher(_goal(task)), env.get_state), _KNOWS)}


class ArmPush(_Arm):
    """Push a cube to where a picture shows it."""

    name = "arm-push"
    task: ArmTask = "push"
    budget_steps = 60
    goal_kinds = ("push",)
    planning = Planning()
    policy_name = PushPolicy.name
    drivable = True

    def policy(self, seed: int) -> Policy:
        """Noisy cube-seeking."""
        return PushPolicy(seed)

    def logged(self, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
        """How far the cube was moved."""
        return f"the cube ended {_mean_cm(self.task, ends):.0f} cm from its start on average"

    def rest_action(self) -> np.ndarray:
        """No displacement."""
        return np.zeros(2, np.float32)

    def guardrails(self, rules: Rules, kinematics: PointKinematics | None) -> list[Guardrail]:
        """On the tip's path."""
        return rules.guardrails(kinematics)

    def baselines(self, env: Any) -> dict[str, Baseline]:
        """Round the cube, then along the line to the goal."""
        return {"line": Baseline(lambda task: StatePolicy(LinePusher(_goal(task)), env.get_state), _KNOWS)}


def _mean_cm(task: ArmTask, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    return 100 * float(np.mean([distance(task, last, first) for first, last in ends]))


def _goal(task: Task) -> np.ndarray:
    assert task.goal_state is not None
    return task.goal_state
