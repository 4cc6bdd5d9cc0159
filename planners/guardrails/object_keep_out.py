"""An object is not moved into a region."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.planners.guardrails.base import PlaceGuardrail
from wm.planners.guardrails.objects import ObjectGuardrail
from wm.planners.guardrails.tightening import tighten
from wm.readout import StateReadout
from wm.types import Trajectory


class ObjectKeepOut(ObjectGuardrail):
    """``margin_h = region(o_h) - r_h >= 0``: o_h where the object is read after latent step h, r_h its radius of error.

    Soft, with no guarantee; `ObjectGuardrail` says what the radius means.

    Args:
        readout: Calibrated read-out of the object's x and y.
        region: What the object has to keep, as if it were the robot: keep-out discs, boxes or polygons (or a workspace
            box to stay in) whose robot radius is the object's bounding radius about the point that is read.
        name: Key of the margins.

    Raises:
        BadInputError: the read-out has not two numbers; at the call, the horizon is longer than it was calibrated for.
    """

    def __init__(self, readout: StateReadout, region: PlaceGuardrail, name: str = "object_keep_out") -> None:
        super().__init__(readout, region.unit, name)
        self.region = region

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Distance of the object to the region, less the calibrated error, after each latent step."""
        return tighten(self.region.margin_at(self.places(trajectory)), self.radii, self.name)
