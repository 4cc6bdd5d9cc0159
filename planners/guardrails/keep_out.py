"""The robot's disc stays out of forbidden discs."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import PlaceGuardrail, finite, least, non_negative, norm, pairs


class KeepOutDiscs(PlaceGuardrail):
    """``margin = min_m (|p - c_m| - radius_m - robot_radius) >= 0``, m over the forbidden discs.

    Args:
        centers: ``(M, 2)`` centres x, y [length unit of the path, e.g. px], M >= 1.
        radii: ``(M,)`` radii >= 0 [same].
        robot_radius: Radius of the robot's disc [same], >= 0; push-T's pusher has 15 px.
        unit: Name of the length unit.
        name: Key of the margins.

    Raises:
        BadInputError: a shape is wrong, a number is not finite, or a radius is negative.
    """

    def __init__(
        self, centers: object, radii: object, robot_radius: float | int = 15.0, unit: str = "px", name: str = "keep_out"
    ) -> None:
        self.name, self.unit = name, unit
        self.centers = pairs(centers, f"guardrail '{name}': centers")
        self.radii = finite(radii, f"guardrail '{name}': radii")
        self.robot_radius = non_negative(robot_radius, f"guardrail '{name}': robot_radius")
        if self.radii.shape != self.centers.shape[:1]:
            raise BadInputError(
                f"guardrail '{name}': expected {len(self.centers)} radii, came the shape {tuple(self.radii.shape)}."
            )
        if bool((self.radii < 0).any()):
            raise BadInputError(f"guardrail '{name}': radii must be >= 0, came {self.radii.tolist()}.")
        reach = (self.radii + self.robot_radius).tolist()
        self._discs = [(x, y, r) for (x, y), r in zip(self.centers.tolist(), reach, strict=True)]

    def margin_at(self, place: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
        """Distance of the robot's disc to the nearest forbidden disc; negative inside."""
        x, y = place[..., 0], place[..., 1]
        return least([norm(x - cx, y - cy) - reach for cx, cy, reach in self._discs])
