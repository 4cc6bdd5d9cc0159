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
        soft: True where a margin rests on something learned (a read-out, a predicted reading): the search treats it
            like any other rule, but nothing is guaranteed. False where it rests on the robot's kinematics alone.
    """

    name: str
    unit: str
    soft: bool = False

    @abstractmethod
    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S H"]:
        """Smallest margin inside each latent step of each candidate; >= 0 is safe, NaN counts as unsafe."""


class PathGuardrail(Guardrail):
    """A rule on each state ``x, y, vx, vy`` of the robot, which is known without any learned part.

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
        return self.margin_of(path_of(self, trajectory)).amin(-1)


class PlaceGuardrail(PathGuardrail):
    """A rule on the robot's position alone: the signed distance of its disc to what it must not touch.

    Its margin changes by at most as much as the position does (it is 1-Lipschitz), so that a bound on the error of a
    position is a bound on the error of the margin.
    """

    @abstractmethod
    def margin_at(self, place: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
        """Margin of each position x, y [length unit]."""

    def margin_of(self, path: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
        """Margin of each robot state; its velocity does not count."""
        return self.margin_at(path[..., :2])


def path_of(rule: Guardrail, trajectory: Trajectory) -> Float[Tensor, "B S H K 4"]:
    """The robot's path.

    Raises:
        BadInputError: the trajectory has none, so the rule cannot be checked.
    """
    if trajectory.path is None:
        raise BadInputError(f"guardrail '{rule.name}' needs the robot's path, but the robot declares no kinematics.")
    return trajectory.path


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


def pairs(values: object, what: str) -> Tensor:
    """Float32 tensor ``(M, 2)`` of ``values``, M >= 1.

    Raises:
        BadInputError: another shape, or not finite numbers.
    """
    tensor = finite(values, what)
    if tensor.ndim != 2 or tensor.shape[1] != 2 or len(tensor) == 0:
        raise BadInputError(f"{what} must have the shape (M, 2), M >= 1, came {tuple(tensor.shape)}.")
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


def norm(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean length of vectors; NaN where a component is NaN (`torch.hypot` of NaN and infinity is infinite).

    The slope of a square root is infinite at 0, and NaN times 0: where gradients pass, a length of 0 has the slope 0.
    """
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return torch.linalg.vector_norm(torch.stack([x, y], dim=-1), dim=-1)
    return (x * x + y * y).sqrt()


def least(margins: list[Tensor]) -> Tensor:
    """Elementwise smallest of margins of one shape; NaN where one of them is NaN."""
    return margins[0] if len(margins) == 1 else torch.stack(margins).amin(0)
