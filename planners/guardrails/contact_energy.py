"""The robot is slow where it may touch an object."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wm.planners.guardrails.base import non_negative, path_of
from wm.planners.guardrails.object_distance import gaps
from wm.planners.guardrails.objects import ObjectGuardrail
from wm.planners.guardrails.tightening import of_horizon
from wm.readout import StateReadout
from wm.types import Trajectory


class ContactEnergy(ObjectGuardrail):
    """``margin_h = max_energy - max_k (mass / 2) |v_hk|^2 [gap_hk <= reach + r_h] >= 0``.

    gap_hk is the distance between robot and object at instant k of latent step h,
    ``|p_hk - o| - object_radius - robot_radius``, with the robot's exact path and the object's place o as read before
    and after that step, the nearer of both; r_h is the read-out's radius of error. Out of reach the margin is
    ``max_energy``.

    A proxy, not a force: the robot's kinetic energy on arrival bounds what an impact can pass on, but contact force
    depends on stiffness, friction and the controller's push, none of which is modelled.

    Soft, with no guarantee; `ObjectGuardrail` says what the radius means.

    Args:
        readout: Calibrated read-out of the object's x and y.
        max_energy: Largest kinetic energy within reach [unit], >= 0.
        mass: Of the robot [kg], >= 0; effective mass at the point of contact.
        object_radius: Bounding radius of the object about the point that is read [length unit of the path], >= 0.
        robot_radius: Radius of the robot's disc [same], >= 0; push-T's pusher has 15 px.
        reach: Distance between both below which they may touch [same], >= 0.
        unit: Of the energy.
        name: Key of the margins.

    Raises:
        BadInputError: a number is negative or not finite, or the read-out has not two numbers; at the call, the
            trajectory has no path, or the horizon is longer than the read-out was calibrated for.
    """

    def __init__(
        self,
        readout: StateReadout,
        max_energy: float | int,
        mass: float | int,
        object_radius: float | int,
        robot_radius: float | int = 15.0,
        reach: float | int = 0.0,
        unit: str = "kg px^2/s^2",
        name: str = "contact_energy",
    ) -> None:
        super().__init__(readout, unit, name)
        self.max_energy = non_negative(max_energy, f"guardrail '{name}': max_energy")
        self.mass = non_negative(mass, f"guardrail '{name}': mass")
        self.object_radius = non_negative(object_radius, f"guardrail '{name}': object_radius")
        self.robot_radius = non_negative(robot_radius, f"guardrail '{name}': robot_radius")
        self.reach = non_negative(reach, f"guardrail '{name}': reach")

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Smallest margin over the K instants of each latent step."""
        path = path_of(self, trajectory)
        gap = gaps(path, self.places(trajectory)) - self.object_radius - self.robot_radius  # (B, S, H, K)
        near = gap <= self.reach + of_horizon(self.radii, path.shape[2], self.name).to(gap)[:, None]
        energy = 0.5 * self.mass * (path[..., 2].square() + path[..., 3].square())
        # Where the gap is NaN, so is the margin; where it is known and wide, the energy does not count.
        counted = torch.where(near | gap.isnan(), energy + 0.0 * gap, 0.0 * energy)
        return self.max_energy - counted.amax(-1)
