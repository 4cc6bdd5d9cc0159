"""What every guardrail is: a margin that is >= 0 where the rule is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.types import Trajectory


class Guardrail(ABC):
    """A rule that a plan must keep.

    Attributes:
        name: Key of its margins in ``Plan.margins``; unique within a problem.
        unit: Unit of its margins, e.g. ``"px"``.
    """

    name: str
    unit: str

    @abstractmethod
    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Smallest margin inside each latent step of each candidate; >= 0 is safe, NaN counts as unsafe."""


class PathGuardrail(Guardrail):
    """A rule on the robot's own motion, ``x, y, vx, vy``, which is known without any learned part.

    It is checked at every instant of the path (every simulation step), not between two of them.
    """

    @abstractmethod
    def margin_of(self, path: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
        """Margin of each robot state x, y, vx, vy (length unit, length unit per second), planned or executed."""

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Smallest margin over the K instants of each latent step.

        Raises:
            BadInputError: the trajectory has no path, so the rule cannot be checked.
        """
        if trajectory.path is None:
            raise BadInputError(
                f"guardrail '{self.name}' needs the robot's path, but the robot declares no kinematics."
            )
        return self.margin_of(trajectory.path).amin(-1)


def finite(values: object, what: str) -> Tensor:
    """Float32 tensor of ``values``.

    Raises:
        BadInputError: not numbers, NaN or infinite.
    """
    try:
        tensor = torch.as_tensor(values, dtype=torch.float32).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInputError(f"{what} must be numbers, came {values!r}.") from error
    if not bool(torch.isfinite(tensor).all()):
        raise BadInputError(f"{what} must be finite, came {tensor.tolist()}.")
    return tensor


def pair(values: object, what: str) -> Tensor:
    """Float32 tensor ``(2,)`` of ``values``.

    Raises:
        BadInputError: not two finite numbers.
    """
    tensor = finite(values, what)
    if tensor.shape != (2,):
        raise BadInputError(f"{what} must be two numbers (x, y), came the shape {tuple(tensor.shape)}.")
    return tensor


def non_negative(value: object, what: str) -> float:
    """``value`` as a float.

    Raises:
        BadInputError: not one finite number >= 0.
    """
    tensor = finite(value, what)
    if tensor.numel() != 1 or float(tensor) < 0:
        raise BadInputError(f"{what} must be one number >= 0, came {tensor.tolist()}.")
    return float(tensor)
