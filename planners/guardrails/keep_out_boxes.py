"""The robot's disc stays out of forbidden boxes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import PlaceGuardrail, least, non_negative, norm, pairs


class KeepOutBoxes(PlaceGuardrail):
    """``margin = min_m (sd_m(p) - robot_radius) >= 0``, m over the forbidden axis-aligned boxes.

    ``sd_m`` is the signed distance to box m: with ``d = max(low_m - p, p - high_m)``, x and y each for itself, it is
    ``|max(d, 0)|`` outside and ``max(d_x, d_y)`` inside.

    Args:
        lows: ``(M, 2)`` lower corners x, y [length unit of the path, e.g. px], M >= 1.
        highs: ``(M, 2)`` upper corners [same], above the lower ones in x and in y.
        robot_radius: Radius of the robot's disc [same], >= 0; push-T's pusher has 15 px.
        unit: Name of the length unit.
        name: Key of the margins.

    Raises:
        BadInputError: a shape is wrong, a number is not finite, the radius is negative, or a box is empty.
    """

    def __init__(
        self,
        lows: object,
        highs: object,
        robot_radius: float | int = 15.0,
        unit: str = "px",
        name: str = "keep_out_boxes",
    ) -> None:
        self.name, self.unit = name, unit
        self.lows = pairs(lows, f"guardrail '{name}': lows")
        self.highs = pairs(highs, f"guardrail '{name}': highs")
        self.robot_radius = non_negative(robot_radius, f"guardrail '{name}': robot_radius")
        if self.lows.shape != self.highs.shape:
            raise BadInputError(f"guardrail '{name}': expected {len(self.lows)} highs, came {len(self.highs)}.")
        if not bool((self.lows < self.highs).all()):
            raise BadInputError(
                f"guardrail '{name}': lows must be below highs, "
                f"came lows {self.lows.tolist()}, highs {self.highs.tolist()}."
            )
        self._boxes = list(zip(self.lows.tolist(), self.highs.tolist(), strict=True))

    def margin_at(self, place: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
        """Distance of the robot's disc to the nearest forbidden box; negative inside."""
        x, y = place[..., 0], place[..., 1]
        margins = []
        for (low_x, low_y), (high_x, high_y) in self._boxes:
            dx, dy = torch.maximum(low_x - x, x - high_x), torch.maximum(low_y - y, y - high_y)
            outside = norm(dx.clamp(min=0.0), dy.clamp(min=0.0))
            margins.append(outside + torch.maximum(dx, dy).clamp(max=0.0) - self.robot_radius)
        return least(margins)
