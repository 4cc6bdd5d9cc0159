"""The robot's disc stays inside a box."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import PlaceGuardrail, non_negative, pair


class WorkspaceBox(PlaceGuardrail):
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
        self.low, self.high = pair(low, f"guardrail '{name}': low"), pair(high, f"guardrail '{name}': high")
        self.radius = non_negative(radius, f"guardrail '{name}': radius")
        lower, upper = self.low + self.radius, self.high - self.radius  # of the robot's centre
        self._low, self._high = lower.tolist(), upper.tolist()
        if not bool((lower < upper).all()):
            raise BadInputError(
                f"guardrail '{name}': low + radius must be below high - radius, "
                f"came low {self.low.tolist()}, high {self.high.tolist()}, radius {self.radius}."
            )

    def margin_at(self, place: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
        """Distance of the robot's disc to the nearest wall; negative outside."""
        x, y = place[..., 0], place[..., 1]
        across = torch.minimum(x - self._low[0], self._high[0] - x)
        return torch.minimum(across, torch.minimum(y - self._low[1], self._high[1] - y))
