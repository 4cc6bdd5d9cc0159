"""What the commands have to know of a world and no environment tells by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np

import wm.envs
from wm.datasets.collect.runner import Policy
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.episode import EARLIER_WEIGHT, ROBOT_WEIGHT, Actor, Task
from wm.experiments.episode_log import Record
from wm.experiments.rules import RobotShape, Rules
from wm.kinematics import PointKinematics
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC


@dataclass(frozen=True)
class Planning:
    """How a model of the world is planned with.

    Attributes:
        horizon: Latent steps of a plan.
        execute: Latent steps until the next one.
        earlier_weight: Of every latent step before the last in the goal distance, the last having 1.
        robot_weight: Of the read-out of the robot's own place in the goal distance, the rest of the latent having 1.
        population: Samples of the default planner's first iteration.
        iterations: Of its search, at most.
        init_std: Standard deviation that samples begin with, as a share of half the bounds' range.
        think: How much the default planner thinks for a plan where nothing else is asked for, see
            `wm.experiments.assemble.Thinking.parse`; None: `iterations` of `population`, at most.
    """

    horizon: int = 5
    execute: int = 1
    earlier_weight: float | int = EARLIER_WEIGHT
    robot_weight: float | int = ROBOT_WEIGHT
    population: int = 128
    iterations: int = 6
    init_std: float | int = 0.15
    think: str | None = None


@dataclass(frozen=True)
class Flag:
    """A measure that is 1.0 or 0.0: something lesser than the goal that was reached or was not.

    Attributes:
        metric: Its metrics are `<metric>_rate` and `<metric>_ci95`.
        column: Before its rate in the table of `wm eval`.
        label: Before "yes" or "no" in a report.
        comfort: After "goal not reached (but".
    """

    metric: str
    column: str
    label: str
    comfort: str


@dataclass(frozen=True)
class Baseline:
    """What a model is compared with.

    Attributes:
        make: Builds it for a task.
        facts: What `metrics.json` says of it, e.g. what it sees.
    """

    make: Callable[[Task], Actor]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """A scatter of an evaluation's episodes.

    Attributes:
        title, xlabel, ylabel: Words around it.
        x, y: A place for each record.
        line: Height of a dashed line, or None.
    """

    title: str
    xlabel: str
    ylabel: str
    x: list[float]
    y: list[float]
    line: float | None = None


class World(ABC):
    """An environment under its short name, its tasks, its measures, and what it is compared with.

    A world has no state; environments do, and are made by it.

    Attributes:
        name: Short name, which is also its environment's in datasets and models.
        steps: Control steps of a logged episode.
        frameskip: Control steps per latent step of models trained for it.
        goal_offset: Control steps from a start to its goal in logged episodes, unless another number is asked for; None
            where goals are not taken from them.
        budget_steps: Control steps that an episode may take, unless another number is asked for.
        goal_kinds: What goals there are; the first is the default.
        planning: How a model of it is planned with.
        policy_name: Of the policy that collects its logs, as in a log's recipe.
        view: Side of the picture in world units, for films that draw a path in it; None draws none.
        robot: The disc of a robot whose kinematics the environment declares, so that guardrails can be kept and
            `wm control` can certify actions; None where it declares none.
        flags: Measures that are 1.0 or 0.0.
        averaged: Measures whose means are metrics; any other is in the episodes' records alone.
        oracle_facts: What `metrics.json` says of the oracle; None where there is none.
    """

    name: str
    steps: int
    frameskip: int
    goal_offset: int | None
    budget_steps: int
    goal_kinds: tuple[str, ...]
    planning: Planning
    policy_name: str
    view: float | None = None
    robot: RobotShape | None = None
    flags: Mapping[str, Flag] = MappingProxyType({})
    averaged: tuple[str, ...] = ()
    oracle_facts: Mapping[str, Any] | None = None

    @property
    def drivable(self) -> bool:
        """`wm control` can certify actions."""
        return self.robot is not None

    def make_env(self, image_size: int | None = None) -> Any:
        """A new environment; pictures have the environment's own size where no size is asked for [px]."""
        options = {} if image_size is None else {"image_size": image_size}
        return gymnasium.make(wm.envs.ENV_IDS[self.name], disable_env_checker=True, **options).unwrapped

    def recipe(self) -> dict[str, Any]:
        """What else a store's recipe tells of how its logs were made, JSON values."""
        return {}

    @abstractmethod
    def policy(self, seed: int) -> Policy:
        """The policy that collects the logs: from the state to an action."""

    @abstractmethod
    def logged(self, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
        """What to say of recorded episodes, from the first and the last state of each, at least one."""

    @abstractmethod
    def draw_tasks(self, seed: int, count: int, kind: str, offset: int | None, image_size: int | None) -> list[Task]:
        """`sample_tasks`, with arguments that are checked and filled in."""

    @abstractmethod
    def measures(self, goal: np.ndarray, states: np.ndarray) -> dict[str, float]:
        """How an episode went, in the numbers that its record keeps.

        Args:
            goal: ``(S,)`` the goal's state.
            states: ``(steps + 1, S)`` the start and the state after every control step.
        """

    @abstractmethod
    def rest_action(self) -> np.ndarray:
        """``(W,)`` one control step's action that changes as little as any, raw units."""

    def sample_tasks(
        self,
        seed: int,
        count: int,
        *,
        kind: str | None = None,
        offset: int | None = None,
        image_size: int | None = None,
    ) -> list[Task]:
        """Held-out tasks, none of them solved at its start and none out of an episode that a log may hold.

        Task i depends on the seed, the kind, the offset and i alone: the first n tasks of a longer list are the list
        of n.

        Args:
            seed: Of the list, >= 0.
            count: Number of tasks, >= 1.
            kind: One of `goal_kinds`; None: the first.
            offset: Control steps from start to goal in a logged episode; None: `goal_offset`.
            image_size: Side of the goal pictures, pixels; None means the environment's default.

        Raises:
            UnknownNameError: no such kind of goal.
            BadInputError: a number is out of its range, or an offset where goals are not taken from logged episodes.
        """
        if kind is not None and kind not in self.goal_kinds:
            raise UnknownNameError(f"kind of {self.name} goal", kind, self.goal_kinds)
        if offset is not None and self.goal_offset is None:
            raise BadInputError(
                f"goal-offset: goals of '{self.name}' are not taken from logged episodes, came {offset}."
            )
        offset = self.goal_offset if offset is None else offset
        return self.draw_tasks(seed, count, kind or self.goal_kinds[0], offset, image_size)

    def guardrails(self, rules: Rules, kinematics: PointKinematics | None) -> list[Guardrail]:
        """Rules as margins on the robot's path; without kinematics there is no path that any could be read off.

        Raises:
            BadInputError: rules are asked for that cannot be kept.
        """
        if self.robot is not None:
            return rules.guardrails(kinematics, self.robot)
        if rules != Rules():
            raise BadInputError(
                f"guardrails: '{self.name}' declares no kinematics, so none can be kept; expected none."
            )
        return []

    def baselines(self, env: Any) -> dict[str, Baseline]:
        """What plays beside no-op, random actions and the oracle, in an environment of this world."""
        return {}

    def oracle(self, env: Any, mpc: MPC, task: Task, guardrails: list[Guardrail], budget: int) -> Actor:
        """The same solver on the true simulator, towards the true goal state; only where there are `oracle_facts`."""
        raise BadInputError(f"oracle: '{self.name}' has none.")

    def versions(self) -> dict[str, str]:
        """Of the packages that its outcomes depend on."""
        return {}

    def goal_metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """Metrics of the tasks, whoever plays them."""
        return {}

    def failure_note(self, record: Record) -> str:
        """Over a missed episode's pictures."""
        return ", ".join(f"{name} {record.measures[name]:.3g}" for name in self.averaged)

    def panels(self, records: Sequence[Record]) -> list[Panel]:
        """What an evaluation's picture shows beside the steps to success."""
        return [self.start_to_end(records, name, name) for name in self.averaged]

    def start_to_end(self, records: Sequence[Record], name: str, title: str, line: float | None = None) -> Panel:
        """A measure at the end over the same at the start."""
        before = [self.measures(np.array(r.goal), np.array([r.start]))[name] for r in records]
        return Panel(title, "at the start", "at the end", before, [r.measures[name] for r in records], line)
