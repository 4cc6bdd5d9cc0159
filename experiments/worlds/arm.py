"""The arm as the commands see it: reaching a place, and pushing a cube to one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from wm.datasets.collect.arm import PushPolicy, ReachPolicy
from wm.datasets.collect.runner import Policy
from wm.envs.arm.env import arm_spec
from wm.envs.arm.goals import SUCCESS_M, distance, target_state
from wm.envs.arm.scene import HIGH, LOW, TOOL_RADIUS
from wm.envs.arm.scene import Task as ArmTask
from wm.envs.arm.scripted import LinePusher, StraightReacher
from wm.experiments.baselines import StatePolicy
from wm.experiments.episode import Task
from wm.experiments.episode_log import Record
from wm.experiments.rules import RobotShape
from wm.experiments.worlds.base import Baseline, Panel, Planning, World
from wm.experiments.worlds.tasks import fresh_tasks

TIP = RobotShape(
    TOOL_RADIUS,
    "m",
    arena=(
        round(LOW["push"][0] - TOOL_RADIUS, 6),
        round(LOW["push"][1] - TOOL_RADIUS, 6),
        round(HIGH["push"][0] + TOOL_RADIUS, 6),
        round(HIGH["push"][1] + TOOL_RADIUS, 6),
    ),
    pictured=1.15,
    walled=True,
    digits=4,
)
"""The tool's tip when pushing: its middle, the set-point, goes as far as the environment's workspace and stops there.

The picture is 0.69 m wide at the camera's aim, half as much again along a table that is seen at 42 degrees, and a
little more where that is far away.
"""

_KNOWS = {"sees": "the simulator's true state and the goal's, no picture"}


class _Arm(World):
    """Starts and goals are the environment's own. Measure: `distance_m`, of what counts from the goal's, at the end.

    There is no oracle: a control step of this simulator takes milliseconds, a plan would take minutes. What plays
    beside the model instead is a hand-written controller that sees the true state.
    """

    task: ArmTask
    moved: str  # what the task is about, in words
    steps = 60
    frameskip = 5
    goal_offset = None
    averaged = ("distance_m",)
    planning = Planning()

    def logged(self, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
        """How far what counts was from where it began."""
        way = np.mean([distance(self.task, last, first) for first, last in ends])
        return f"{self.moved} ended {100 * way:.0f} cm from its start on average"

    def rest_action(self) -> np.ndarray:
        """No displacement."""
        return np.zeros(arm_spec(self.task).action.width, np.float32)

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
    moved = "the tip"
    budget_steps = 30
    goal_kinds = ("reach",)
    policy_name = ReachPolicy.name

    def policy(self, seed: int) -> Policy:
        """From one random place to the next."""
        return ReachPolicy(seed)

    def baselines(self, env: Any) -> dict[str, Baseline]:
        """Straight to the goal's true place."""
        return {"straight": Baseline(lambda task: StatePolicy(StraightReacher(_goal(task)), env.get_state), _KNOWS)}


class ArmPush(_Arm):
    """Push a cube to where a picture shows it."""

    name = "arm-push"
    task: ArmTask = "push"
    moved = "the cube"
    budget_steps = 60
    goal_kinds = ("push",)
    policy_name = PushPolicy.name
    robot = TIP

    def policy(self, seed: int) -> Policy:
        """Noisy cube-seeking."""
        return PushPolicy(seed)

    def baselines(self, env: Any) -> dict[str, Baseline]:
        """Round the cube, then along the line to the goal."""
        return {"line": Baseline(lambda task: StatePolicy(LinePusher(_goal(task)), env.get_state), _KNOWS)}


def _goal(task: Task) -> np.ndarray:
    assert task.goal_state is not None
    return task.goal_state
