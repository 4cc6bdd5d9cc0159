"""Push-T as the commands see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pymunk

from wm.datasets.collect.pusht import BlockSeekingPolicy
from wm.datasets.collect.runner import Policy
from wm.envs.pusht.physics import WORLD_SIZE
from wm.envs.pusht.success import POSITION_TOLERANCE_PX, block_reached, wrap
from wm.experiments.episode import Actor, Task
from wm.experiments.episode_log import Record
from wm.experiments.rules import PUSHER
from wm.experiments.worlds.base import Flag, Panel, Planning, World
from wm.experiments.worlds.pusht_oracle import PUSHER_SCALE, OracleController
from wm.experiments.worlds.pusht_tasks import MOVED_PX, block_shift, wanted
from wm.experiments.worlds.tasks import STEPS, logged_tasks
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC


class PushT(World):
    """Push a T-shaped block to where a picture shows it; goals are states of fresh episodes of the collection policy.

    Measures: `agent_error_px`, `block_error_px` (distance from the goal at the end), `angle_error_rad` (the block's, at
    the end, 0 … π), and `block_reached`, the success test for the block alone, at any control step.
    """

    name = "pusht"
    steps = STEPS
    frameskip = 5
    goal_offset = 25
    budget_steps = 50
    goal_kinds = ("logged",)
    planning = Planning(think="auto")
    policy_name = BlockSeekingPolicy.name
    view = WORLD_SIZE
    robot = PUSHER
    flags = {"block_reached": Flag("block_success", "block", "block at its goal", "the block was at its place")}
    oracle_facts = {
        "simulator": "true push-T physics, full state and goal state known, no deadline",
        "pusher_scale": PUSHER_SCALE,
    }

    def policy(self, seed: int) -> Policy:
        """Noisy block-seeking."""
        return BlockSeekingPolicy(seed)

    def logged(self, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
        """How far the block was moved."""
        return f"block moved {np.mean([block_shift(*pair) for pair in ends]):.0f} px on average"

    def draw_tasks(self, seed: int, count: int, kind: str, offset: int | None, image_size: int | None) -> list[Task]:
        """See `logged_tasks` and `wm.experiments.worlds.pusht_tasks.wanted`."""
        assert offset is not None
        hint = f"goals {offset} control steps ahead seldom move the block, use a larger offset"
        return logged_tasks(self.make_env, self.policy, seed, count, offset, image_size, wanted=wanted, hint=hint)

    def measures(self, goal: np.ndarray, states: np.ndarray) -> dict[str, float]:
        """See the class."""
        end = states[-1]
        return {
            "agent_error_px": float(np.linalg.norm(end[:2] - goal[:2])),
            "block_error_px": float(np.linalg.norm(end[2:4] - goal[2:4])),
            "angle_error_rad": abs(wrap(float(end[4] - goal[4]))),
            "block_reached": float(any(block_reached(state, goal) for state in states[1:])),
        }

    def rest_action(self) -> np.ndarray:
        """No displacement."""
        return np.zeros(2, np.float32)

    def oracle(self, env: Any, mpc: MPC, task: Task, guardrails: list[Guardrail], budget: int) -> Actor:
        """On copies of the true simulator."""
        assert task.goal_state is not None
        return OracleController(
            env.env_spec.action,
            mpc,
            task.goal_state,
            env.get_state,
            env.kinematics,
            guardrails=guardrails,
            earlier_weight=self.planning.earlier_weight,
            budget=budget,
            seed=task.seed,
        )

    def versions(self) -> dict[str, str]:
        """The physics engine's."""
        return {"pymunk": pymunk.version}

    def goal_metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """How far the goals ask the block to move: mean in px, and the share of more than 20 px."""
        shifts = np.array([block_shift(np.array(r.start), np.array(r.goal)) for r in records])
        return {
            "goal_block_shift_px_mean": float(shifts.mean()),
            "goals_moving_block": float((shifts > MOVED_PX).mean()),
        }

    def failure_note(self, record: Record) -> str:
        """The errors at the end."""
        errors, degrees = record.measures, np.degrees(record.measures["angle_error_rad"])
        return f"pusher {errors['agent_error_px']:.0f} px, block {errors['block_error_px']:.0f} px, {degrees:.0f}°"

    def panels(self, records: Sequence[Record]) -> list[Panel]:
        """The block's error at the end against how far it had to go."""
        shifts = [block_shift(np.array(r.start), np.array(r.goal)) for r in records]
        errors = [r.measures["block_error_px"] for r in records]
        return [Panel("the block", "start to goal [px]", "end to goal [px]", shifts, errors, POSITION_TOLERANCE_PX)]
