"""The robot stays below an acceleration."""

from __future__ import annotations

from wm.kinematics import PointKinematics
from wm.planners.guardrails.base import non_negative
from wm.planners.guardrails.motion import MotionGuardrail


class AccelerationLimit(MotionGuardrail):
    """``margin = max_acceleration - |v_k - v_{k-1}| / dt >= 0`` at every simulation step k, the first one included.

    See `MotionGuardrail` for why this difference is the exact acceleration of the PD control. That one is bounded; what
    a push adds is not.

    Args:
        max_acceleration: Largest acceleration [length unit of the path per s^2, e.g. px/s^2], >= 0.
        kinematics: The robot's motion.
        unit: Name of that unit.
        name: Key of the margins.

    Raises:
        BadInputError: the limit is negative or not finite, or a step of these kinematics cannot be undone.
    """

    order = 1

    def __init__(
        self,
        max_acceleration: float | int,
        kinematics: PointKinematics,
        unit: str = "px/s^2",
        name: str = "acceleration",
    ) -> None:
        self.max_acceleration = non_negative(max_acceleration, f"guardrail '{name}': max_acceleration")
        super().__init__(self.max_acceleration, kinematics, unit, name)
