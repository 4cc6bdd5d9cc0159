"""What rules on the change of the robot's velocity share: they look at a whole path, not at one state of it."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners.guardrails.base import Guardrail, norm, path_of
from wm.types import Trajectory

_SINGULAR = 0.05
"""Least |1 - kv dt| with which the velocity before a simulation step follows from the one after it."""


class MotionGuardrail(Guardrail):
    """``margin = limit - |d^n v / dt^n| >= 0``: a bound on a derivative of the velocity, n = ``order``.

    The derivative is the n-th backward difference of the exact path's velocity at the simulation step dt, over dt^n.
    For n = 1 that is no approximation: semi-implicit Euler moves the velocity by ``(kp (target - x) - kv v) dt``, so
    the difference is the very acceleration that the PD control applied; and it holds for executed motion too, whose
    targets need not be known. It is the control's acceleration that is bounded, what the motors do: where something
    else pushes the robot as well, the push's own acceleration does not count, and of executed motion it has to be taken
    off. Every simulation step is checked, across control steps and latent steps alike, and so is
    the step from the start state into the plan: a trajectory does not carry its start, but the kinematics' first step
    can be undone, which gives the velocity before it.

    float32 paths bound the resolution: an error of 1e-4 px/s in the velocity is 0.02 px/s^2 of acceleration and
    4 px/s^3 of jerk at dt = 0.01 s.

    Args:
        limit: Largest magnitude (Euclidean norm over x and y), >= 0.
        kinematics: The robot's motion; its ``dt`` and ``substeps`` are those of the path.
        unit: Of the limit and the margins.
        name: Key of the margins.

    Raises:
        BadInputError: a step of these kinematics cannot be undone.
    """

    order: ClassVar[int]

    def __init__(self, limit: float, kinematics: PointKinematics, unit: str, name: str) -> None:
        self.name, self.unit, self.limit, self.kinematics = name, unit, limit, kinematics
        if abs(1 - kinematics.kv * kinematics.dt) < _SINGULAR:
            raise BadInputError(
                f"guardrail '{name}' needs |1 - kv dt| >= {_SINGULAR} to know the velocity at the start, "
                f"came kv {kinematics.kv}, dt {kinematics.dt}."
            )

    def margin_along(self, velocity: Float[Tensor, "*n T 2"]) -> Float[Tensor, "*n M"]:
        """Margin at every simulation step of a planned or executed motion, M = T - order.

        Args:
            velocity: [length unit per second] at consecutive simulation steps, T > order, less what was not the
                control's doing.
        """
        derivative = torch.diff(velocity, n=self.order, dim=-2) / self.kinematics.dt**self.order
        return self.limit - norm(derivative[..., 0], derivative[..., 1])

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Smallest margin over the simulation steps of each latent step.

        Raises:
            BadInputError: the trajectory has no path, or one that is not sampled at these kinematics' simulation steps.
        """
        path = path_of(self, trajectory)
        b, s, h, k, _ = path.shape
        width = trajectory.actions.shape[-1]
        if 2 * k != width * self.kinematics.substeps:
            raise BadInputError(
                f"guardrail '{self.name}' needs a path with {self.kinematics.substeps} instants per control step, "
                f"came {k} instants for {width // 2} control steps."
            )
        before = self.before(*self._start(path[:, :, 0, 0], trajectory.actions[:, :, 0, :2]))
        velocity = torch.cat([before, path[..., 2:].reshape(b, s, h * k, 2)], dim=2)
        margins = self.margin_along(velocity)
        unknown = margins.new_full((b, s, h * k - margins.shape[2]), torch.inf)  # where `before` knows too little
        return torch.cat([unknown, margins], dim=2).unflatten(2, (h, k)).amin(-1)

    def before(self, place: Float[Tensor, "B S 2"], velocity: Float[Tensor, "B S 2"]) -> Float[Tensor, "B S E 2"]:
        """Velocities at the last E simulation steps before the plan, E <= order, up to and with the start state's."""
        return velocity[:, :, None]

    def undone(self, velocity: Float[Tensor, "*n 2"], gap: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Velocity one simulation step earlier, when the target was ``gap`` away; v' = v + (kp gap - kv v) dt."""
        robot = self.kinematics
        return (velocity - robot.kp * gap * robot.dt) / (1 - robot.kv * robot.dt)

    def _start(self, first: Float[Tensor, "B S 4"], action: Float[Tensor, "B S 2"]) -> tuple[Tensor, Tensor]:
        """Position and velocity at the start, from the first simulation step and the first control step's action."""
        robot = self.kinematics
        place = first[..., :2] - first[..., 2:] * robot.dt  # x' = x + v' dt
        reach = robot.scale * action
        return place, self.undone(first[..., 2:], reach if robot.relative else reach - place)
