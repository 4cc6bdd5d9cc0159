"""The robot keeps its distance from an object."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wm.planners.guardrails.base import non_negative, norm, path_of
from wm.planners.guardrails.objects import ObjectGuardrail
from wm.planners.guardrails.tightening import tighten
from wm.readout import StateReadout
from wm.types import Trajectory


class ObjectDistance(ObjectGuardrail):
    """``margin_h = min_k |p_hk - o| - object_radius - robot_radius - min_distance - r_h >= 0``.

    p_hk is the robot's exact path at instant k of latent step h, o where the object is read before and after that step,
    the nearer of both (before the first step it is not imagined, only after), and r_h the read-out's radius of error.

    Soft, with no guarantee; `ObjectGuardrail` says what the radius means.

    Args:
        readout: Calibrated read-out of the object's x and y.
        object_radius: Bounding radius of the object about the point that is read [length unit of the path], >= 0.
        robot_radius: Radius of the robot's disc [same], >= 0; push-T's pusher has 15 px.
        min_distance: To keep between both [same], >= 0.
        unit: Name of the length unit.
        name: Key of the margins.

    Raises:
        BadInputError: a length is negative or not finite, or the read-out has not two numbers; at the call, the
            trajectory has no path, or the horizon is longer than the read-out was calibrated for.
    """

    def __init__(
        self,
        readout: StateReadout,
        object_radius: float | int,
        robot_radius: float | int = 15.0,
        min_distance: float | int = 0.0,
        unit: str = "px",
        name: str = "object_distance",
    ) -> None:
        super().__init__(readout, unit, name)
        self.object_radius = non_negative(object_radius, f"guardrail '{name}': object_radius")
        self.robot_radius = non_negative(robot_radius, f"guardrail '{name}': robot_radius")
        self.min_distance = non_negative(min_distance, f"guardrail '{name}': min_distance")

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Smallest margin over the K instants of each latent step."""
        gap = gaps(path_of(self, trajectory), self.places(trajectory)).amin(-1)
        return tighten(gap - self.object_radius - self.robot_radius - self.min_distance, self.radii, self.name)


def gaps(path: Float[Tensor, "B S H K 4"], places: Float[Tensor, "B S H 2"]) -> Float[Tensor, "B S H K"]:
    """Distance of the robot's centre to the object's, the nearer of its places before and after each latent step."""
    before = torch.cat([places[:, :, :1], places[:, :, :-1]], dim=2)
    x, y = path[..., 0], path[..., 1]
    near = [norm(x - place[..., 0, None], y - place[..., 1, None]) for place in (before, places)]
    return torch.minimum(*near)
