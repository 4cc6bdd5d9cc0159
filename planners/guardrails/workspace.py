"""The robot's disc stays inside a box."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import PathGuardrail, non_negative, pair


class WorkspaceBox(PathGuardrail):
    """``margin = min_i min(p_i - (low_i + radius), (high_i - radius) - p_i) >= 0``, i over x and y.

    Args:
        low: Lower corner (x, y) [length unit of the path, e.g. px].
        high: Upper corner (x, y) [same].
        radius: Radius of the robot's disc [same], >= 0.
        unit: Name of the length unit.
        name: Key of the margins.

    Raises:
        BadInputError: a number is not finite, the radius is negative, or the box leaves no room for the robot.
    """

    def __init__(
        self, low: object, high: object, radius: float | int = 0.0, unit: str = "px", name: str = "workspace"
    ) -> None:
        self.name, self.unit = name, unit
        lower, upper = pair(low, f"guardrail '{name}': low"), pair(high, f"guardrail '{name}': high")
        self.radius = non_negative(radius, f"guardrail '{name}': radius")
        self._low, self._high = (lower + self.radius).tolist(), (upper - self.radius).tolist()  # of the robot's centre
        if not bool((lower + self.radius < upper - self.radius).all()):
            raise BadInputError(
                f"guardrail '{name}': low + radius must be below high - radius, "
                f"came low {lower.tolist()}, high {upper.tolist()}, radius {self.radius}."
            )

    def margin_of(self, path: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
        """Distance of the robot's disc to the nearest wall; negative outside."""
        x, y = path[..., 0], path[..., 1]
        across = torch.minimum(x - self._low[0], self._high[0] - x)
        return torch.minimum(across, torch.minimum(y - self._low[1], self._high[1] - y))
