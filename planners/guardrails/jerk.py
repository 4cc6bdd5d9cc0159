"""The robot stays below a jerk."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners.guardrails.base import finite, non_negative
from wm.planners.guardrails.motion import MotionGuardrail


class JerkLimit(MotionGuardrail):
    """``margin = max_jerk - |v_k - 2 v_{k-1} + v_{k-2}| / dt^2 >= 0`` at every simulation step k.

    A target that jumps by d between two control steps changes the acceleration by kp d within one dt: the jerk there is
    of the order of kp d / dt (push-T: 1e4 px/s^3 for each px). The control's jerk is bounded; what a push adds is not.

    The first simulation step of a plan needs the acceleration before it, which no state x, y, vx, vy holds. It is
    checked where the last target is known (`following`), and otherwise it is not: then the jump from what was executed
    before into the plan has to be certified when the action is sent.

    Args:
        max_jerk: Largest jerk [length unit of the path per s^3, e.g. px/s^3], >= 0.
        kinematics: The robot's motion.
        unit: Name of that unit.
        name: Key of the margins.

    Attributes:
        last_target: ``(B, 2)`` or ``(1, 2)``, see `following`; None where it is not known.

    Raises:
        BadInputError: the limit is negative or not finite, or a step of these kinematics cannot be undone.
    """

    order = 2

    def __init__(
        self, max_jerk: float | int, kinematics: PointKinematics, unit: str = "px/s^3", name: str = "jerk"
    ) -> None:
        self.max_jerk = non_negative(max_jerk, f"guardrail '{name}': max_jerk")
        self.last_target: Tensor | None = None
        super().__init__(self.max_jerk, kinematics, unit, name)

    def following(self, target: object) -> JerkLimit:
        """This rule for a plan that follows a control step which pursued ``target``.

        Args:
            target: ``(B, 2)`` or ``(2,)`` [length unit], what the control pursued just before the start: scale *
                action, plus the position at the start of that control step where actions are relative. A robot that has
                stood still pursued its own position.

        Raises:
            BadInputError: not finite, or of another shape.
        """
        tensor = finite(target, f"guardrail '{self.name}': target")
        if tensor.ndim not in (1, 2) or tensor.shape[-1] != 2:
            raise BadInputError(
                f"guardrail '{self.name}': target must have the shape (B, 2) or (2,), came {tuple(tensor.shape)}."
            )
        rule = copy.copy(self)
        rule.last_target = tensor.reshape(-1, 2)
        return rule

    def before(self, place: Float[Tensor, "B S 2"], velocity: Float[Tensor, "B S 2"]) -> Float[Tensor, "B S E 2"]:
        """Velocities at the start state and, where the last target is known, one simulation step before it."""
        if self.last_target is None:
            return super().before(place, velocity)
        gap = self.last_target.to(place)[:, None] - (place - velocity * self.kinematics.dt)
        return torch.stack([self.undone(velocity, gap), velocity], dim=2)
