"""The robot stays below a speed."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.planners.guardrails.base import PathGuardrail, non_negative, norm


class SpeedLimit(PathGuardrail):
    """``margin = max_speed - |v| >= 0``.

    Args:
        max_speed: Largest speed [length unit per second of the path, e.g. px/s], >= 0.
        unit: Name of that unit.
        name: Key of the margins.

    Raises:
        BadInputError: the limit is negative or not finite.
    """

    def __init__(self, max_speed: float | int, unit: str = "px/s", name: str = "speed") -> None:
        self.name, self.unit = name, unit
        self.max_speed = non_negative(max_speed, f"guardrail '{name}': max_speed")

    def margin_of(self, path: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
        """How far the speed is below the limit; negative above it."""
        return self.max_speed - norm(path[..., 2], path[..., 3])
