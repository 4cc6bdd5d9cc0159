"""The oracle of the chips: the same solver, but on the true simulator. An upper bound for a planner in a learned model.

It reads the simulator's full state and knows where the goal's chips lie; no other controller does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.envs.chips.metrics import chamfer
from wm.envs.chips.physics import TABLE_HALF, ChipsPhysics, chip_places
from wm.experiments.episode import PlanningController
from wm.planners.mpc import MPC
from wm.specs import ActionSpec
from wm.types import Trajectory


class ChamferDistance:
    """Chamfer distance of the chips to the goal's: weighted mean over the latent steps, the last one having weight 1.

    ``E = sum_h w_h d(chips_h, goal) / sum_h w_h``, in half tables (0.25 m).

    Args:
        goal: ``(m, 2)`` where the goal's chips lie [m].
        earlier_weight: Weight of each latent step before the last.
    """

    name = "goal"

    def __init__(self, goal: np.ndarray, earlier_weight: float | int) -> None:
        self.goal, self.earlier_weight = goal, earlier_weight

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S"]:
        """Energy of every candidate; the trajectory's tokens are the chips' places, one token a chip [m]."""
        distance = torch.from_numpy(chamfer(trajectory.tokens.numpy(), self.goal)) / TABLE_HALF  # (B, S, H)
        weights = torch.full(distance.shape[-1:], float(self.earlier_weight), dtype=distance.dtype)
        weights[-1] = 1.0
        return (distance @ weights / weights.sum()).float()


class ChipsOracle(PlanningController):
    """Plans strokes on a copy of the true simulator, from its true state to the goal's chips.

    Args:
        action: One stroke.
        mpc: Solver and receding horizon, with a frameskip of 1.
        goal_state: ``(3 + 3 n,)`` state of the goal.
        full_state: Gives the simulator's full state now.
        physics: The copy; its own state is lost.
        earlier_weight: Of each latent step before the last.
        **options: As `PlanningController`: budget, deadline_ms, seed, rest.
    """

    def __init__(
        self,
        action: ActionSpec,
        mpc: MPC,
        goal_state: np.ndarray,
        full_state: Callable[[], np.ndarray],
        physics: ChipsPhysics,
        *,
        earlier_weight: float | int,
        **options: Any,
    ) -> None:
        super().__init__(action, mpc, [ChamferDistance(chip_places(goal_state), earlier_weight)], **options)
        self.full_state, self.physics = full_state, physics

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Nothing: the oracle looks at the simulator when it plans."""

    def imagination(self) -> Callable[[Tensor], Trajectory]:
        """The true outcome of every candidate; its tokens are the chips' places."""
        state = np.array(self.full_state())

        def rollout(actions: Tensor) -> Trajectory:
            places = simulate(self.physics, state, actions[0].double().numpy())
            return Trajectory(actions, torch.from_numpy(places).float()[None])

        return rollout


def simulate(physics: ChipsPhysics, state: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """Where the chips truly lie after every stroke of every candidate.

    Args:
        physics: Simulator to use; its own state is lost.
        state: Full state to start from.
        strokes: ``(S, H, 4)`` raw actions inside the bounds.

    Returns:
        ``(S, H, n, 2)`` m.
    """
    places = np.empty((*strokes.shape[:2], physics.chips, 2))
    for row, sequence in zip(places, TABLE_HALF * strokes, strict=True):
        physics.set_state(state)
        for step, stroke in enumerate(sequence):
            physics.stroke(stroke[:2], stroke[2:])
            row[step] = chip_places(physics.state()[: physics.width])
    return places
