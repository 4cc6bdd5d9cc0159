"""The oracle of push-T: the same solver, but on the true simulator. An upper bound for a planner in a learned model.

It reads the simulator's full state and knows the goal's; no other controller does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.envs.pusht.physics import PushTPhysics
from wm.envs.pusht.success import ANGLE_TOLERANCE_RAD, POSITION_TOLERANCE_PX
from wm.experiments.episode import EARLIER_WEIGHT, PlanningController
from wm.kinematics import PointKinematics
from wm.planners.energies import GoalDistance
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC
from wm.specs import ActionSpec
from wm.types import Trajectory

ANGLE_RADIUS = 0.5 / math.sin(ANGLE_TOLERANCE_RAD / 2)
"""Radius of the circle that the angle lives on: its chord over the tolerance of π/9 is 1."""

PUSHER_SCALE = 0.3
"""How far the pusher counts beside the block: with 1 it rests at its own goal and leaves the block where it is."""

_PROPRIO = (0, 1, 5, 6)  # the pusher's x, y, vx, vy in the full state


def embed(state: Float[Tensor, "*n X"]) -> Float[Tensor, "*n 1 6"]:
    """One token of six numbers in which the success test's tolerances for the block, 20 px and π/9, are distances of 1.

    Pusher x, y (times `PUSHER_SCALE`) and block x, y in units of 20 px, then the block's angle as a point on a circle.

    Args:
        state: X >= 5 numbers: pusher x, y, block x, y [px], block angle [rad].
    """
    places, angle = state[..., :4] / POSITION_TOLERANCE_PX, state[..., 4:5]
    turned = [ANGLE_RADIUS * angle.cos(), ANGLE_RADIUS * angle.sin()]
    return torch.cat([PUSHER_SCALE * places[..., :2], places[..., 2:], *turned], dim=-1).unsqueeze(-2)


class OracleController(PlanningController):
    """Plans on copies of the true push-T simulator, from its true state to the true goal state.

    The one thing a copy does not know is the contact solver's memory of the last simulation step.

    Args:
        action: One control step's action.
        mpc: Solver and receding horizon.
        goal_state: ``(>= 5,)`` state of the goal.
        full_state: Gives the simulator's full state ``(10,)`` now.
        kinematics: How an action becomes the pusher's target, and its path for the guardrails.
        guardrails: On the pusher's path.
        earlier_weight: Of each latent step before the last in the goal distance.
        budget: Control steps of the episode, or None (see `PlanningController`).
        deadline_ms: Per search.
        seed: Of the noise.
    """

    def __init__(
        self,
        action: ActionSpec,
        mpc: MPC,
        goal_state: np.ndarray,
        full_state: Callable[[], np.ndarray],
        kinematics: PointKinematics,
        *,
        guardrails: list[Guardrail] | None = None,
        earlier_weight: float = EARLIER_WEIGHT,
        budget: int | None = None,
        deadline_ms: float | None = None,
        seed: int = 0,
    ) -> None:
        goal = embed(torch.from_numpy(np.asarray(goal_state, np.float64)).float()[None])
        distance = GoalDistance(goal, earlier_weight=earlier_weight)
        super().__init__(
            action, mpc, [distance], guardrails=guardrails, budget=budget, deadline_ms=deadline_ms, seed=seed
        )
        self.full_state, self.kinematics, self.physics = full_state, kinematics, PushTPhysics()

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Nothing: the oracle looks at the simulator when it plans."""

    def imagination(self) -> Callable[[Tensor], Trajectory]:
        """The true outcome of every candidate; its tokens are `embed` of the states."""
        state = np.array(self.full_state())

        def rollout(actions: Tensor) -> Trajectory:
            _, candidates, horizon, _ = actions.shape
            flat = actions[0].double().reshape(candidates, horizon * self.mpc.frameskip, -1)
            states = simulate(self.physics, state, flat.numpy(), self.kinematics)
            kept = torch.from_numpy(states[:, self.mpc.frameskip - 1 :: self.mpc.frameskip]).float()[None]
            path = None
            if self.guardrails:
                start = torch.from_numpy(state[list(_PROPRIO)]).float()[None]
                path = self.kinematics.path(start, actions, self.mpc.frameskip)
            return Trajectory(actions, embed(kept), kept[..., list(_PROPRIO)], path)

        return rollout


def simulate(physics: PushTPhysics, state: np.ndarray, actions: np.ndarray, kinematics: PointKinematics) -> np.ndarray:
    """True states after every control step of every candidate.

    Args:
        physics: Simulator to use; its own state is lost.
        state: ``(10,)`` full state to start from.
        actions: ``(S, T, 2)`` raw actions inside the bounds.
        kinematics: Scale of an action, and whether it is relative to the pusher.

    Returns:
        ``(S, T, 10)`` full states.
    """
    states = np.empty((*actions.shape[:2], len(state)))
    targets = (kinematics.scale * actions).tolist()
    for row, sequence in zip(states, targets, strict=True):
        physics.set_state(state)
        for step, (x, y) in enumerate(sequence):
            if kinematics.relative:
                at = physics.agent.position
                x, y = x + at[0], y + at[1]
            physics.step((x, y))
            row[step] = physics.state()
    return states
