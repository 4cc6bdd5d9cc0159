"""What soft rules on an object share: its place is a read-out of the latent."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import Guardrail
from wm.readout import StateReadout
from wm.types import Trajectory


class ObjectGuardrail(Guardrail):
    """A soft rule on where the model imagines an object.

    No guarantee: the object's place comes from a linear read-out of imagined state tokens, after each latent step and
    not between two. Rules keep ``r_h``, the read-out's calibrated radius h latent steps ahead, as a margin: a new
    window, exchangeable with the held-out log, has the object within r_h of where it is read with probability
    >= 1 - alpha, on average over held-out logs and windows (marginal coverage of split conformal prediction; Vovk,
    Gammerman & Shafer 2005; Lei et al. 2018, see `wm.conformal`), for each h on its own. A planner's actions are not
    drawn like the log's, so a plan is not such a window, and the level is an estimate.

    Args:
        readout: Calibrated read-out of the object's x and y [length unit of the path], in this order.
        unit: Of the margins.
        name: Key of the margins.

    Attributes:
        readout: As given.
        radii: ``(L,)`` [length unit], r_1 … r_L.

    Raises:
        BadInputError: the read-out has not two numbers.
    """

    soft = True

    def __init__(self, readout: StateReadout, unit: str, name: str) -> None:
        self.name, self.unit, self.readout = name, unit, readout
        if len(readout.names) != 2:
            raise BadInputError(f"guardrail '{name}' needs a read-out of x and y, came one of {readout.names}.")
        self.radii = readout.radii[1:]

    def places(self, trajectory: Trajectory) -> Float[Tensor, "B S H 2"]:
        """The object's position after each latent step."""
        return self.readout(trajectory.tokens)
