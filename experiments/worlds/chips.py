"""The chips as the commands see them: fifty chips, one stroke of the blade an action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from wm.datasets.collect.chips import RandomStrokePolicy
from wm.datasets.collect.runner import Policy
from wm.envs.chips.gatherer import GreedyGatherer, SweepGatherer
from wm.envs.chips.goals import SHAPES, target_state
from wm.envs.chips.metrics import SUCCESS_CHAMFER, chamfer, coverage
from wm.envs.chips.physics import ChipsPhysics, chip_places
from wm.experiments.baselines import StatePolicy
from wm.experiments.episode import Actor, Task
from wm.experiments.episode_log import Record
from wm.experiments.worlds.base import Baseline, Panel, Planning, World
from wm.experiments.worlds.chips_oracle import ChipsOracle
from wm.experiments.worlds.tasks import fresh_tasks
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC

_SEES = {"sees": "the simulator's true state, no picture"}
_KNOWS = {"sees": "the simulator's true state and the goal's, no picture"}


class Chips(World):
    """Gather scattered chips into the shape that a picture shows; starts are the environment's own.

    Measures: `chamfer_m`, the Chamfer distance to the goal's chips at the end; `chamfer_fraction`, the same as a
    fraction of the start's; `coverage`, the share of the goal's places with a chip at the end.
    """

    name = "chips"
    steps = 20
    frameskip = 1
    goal_offset = None
    budget_steps = 10
    goal_kinds = SHAPES
    planning = Planning(horizon=1, robot_weight=1.0, population=400, iterations=8, init_std=0.6)
    policy_name = RandomStrokePolicy.name
    averaged = ("chamfer_m", "chamfer_fraction", "coverage")
    oracle_facts = {"simulator": "true chips physics, full state and goal state known, no deadline"}

    def policy(self, seed: int) -> Policy:
        """Random strokes, most of which meet chips."""
        return RandomStrokePolicy(seed)

    def logged(self, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
        """How far the chips were moved."""
        way = [np.linalg.norm(chip_places(last) - chip_places(first), axis=1).mean() for first, last in ends]
        return f"a chip moved {1000 * np.mean(way):.0f} mm on average"

    def draw_tasks(self, seed: int, count: int, kind: str, offset: int | None, image_size: int | None) -> list[Task]:
        """The environment's own starts, and a target of the wanted shape at a random place."""
        env = self.make_env(image_size)
        chips, boxes = env.physics.chips, env.physics.boxes
        return fresh_tasks(env, lambda rng, _: target_state(kind, chips, boxes, rng), seed, count)

    def measures(self, goal: np.ndarray, states: np.ndarray) -> dict[str, float]:
        """See the class."""
        target, start, end = chip_places(goal), chip_places(states[0]), chip_places(states[-1])
        before, after = float(chamfer(start, target)), float(chamfer(end, target))
        fraction = after / before if before > 0 else 0.0
        return {"chamfer_m": after, "chamfer_fraction": fraction, "coverage": coverage(end, target)}

    def rest_action(self) -> np.ndarray:
        """A stroke without length at the table's corner: neither a start's nor a goal's chips are there."""
        return np.ones(4, np.float32)

    def baselines(self, env: Any) -> dict[str, Baseline]:
        """The collection policy, and two hand-written gatherers; all of them see the true state."""

        def state() -> np.ndarray:
            full: np.ndarray = env.get_state()
            return full[: env.physics.width]

        def goal(task: Task) -> np.ndarray:
            assert task.goal_state is not None
            return task.goal_state

        return {
            "random-strokes": Baseline(lambda task: StatePolicy(self.policy(task.seed), state), _SEES),
            "greedy": Baseline(lambda task: StatePolicy(GreedyGatherer(goal(task)), state), _KNOWS),
            "sweep": Baseline(lambda task: StatePolicy(SweepGatherer(goal(task), task.seed), state), _KNOWS),
        }

    def oracle(self, env: Any, mpc: MPC, task: Task, guardrails: list[Guardrail], budget: int) -> Actor:
        """On a copy of the true simulator."""
        assert task.goal_state is not None
        return ChipsOracle(
            env.env_spec.action,
            mpc,
            task.goal_state,
            env.get_state,
            ChipsPhysics(env.physics.chips, env.physics.boxes),
            earlier_weight=self.planning.earlier_weight,
            budget=budget,
            seed=task.seed,
            rest=self.rest_action(),
        )

    def versions(self) -> dict[str, str]:
        """The physics engine's."""
        return {"mujoco": mujoco.__version__}

    def goal_metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """The start's Chamfer distance, mean in m: what `chamfer_m_mean` over it is a share of."""
        starts = [float(chamfer(chip_places(np.array(r.start)), chip_places(np.array(r.goal)))) for r in records]
        return {"start_chamfer_m_mean": float(np.mean(starts))}

    def panels(self, records: Sequence[Record]) -> list[Panel]:
        """Chamfer distance and coverage."""
        return [
            self.start_to_end(records, "chamfer_m", "Chamfer distance [m]", SUCCESS_CHAMFER),
            self.start_to_end(records, "coverage", "coverage"),
        ]
