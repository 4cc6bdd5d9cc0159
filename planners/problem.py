"""A planning problem: all that a solver sees."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.energies import Energy
from wm.planners.guardrails.base import Guardrail
from wm.types import Trajectory


@dataclass(frozen=True)
class Problem:
    """B planning problems that share a horizon, bounds, energies and guardrails.

    Attributes:
        rollout: ``(B, S, H, A)`` actions in raw units, inside the bounds, to their imagined trajectory; any S. Problem
            b's outcome must not depend on the other problems.
        energies: Terms to minimise, at least one.
        guardrails: Rules to keep; may be empty.
        low: ``(A,)`` lower bounds of a latent step's action, raw units.
        high: ``(A,)`` upper bounds, raw units.
        horizon: H, latent steps, >= 1.
        batch: B, >= 1.
        stay: ``(B, A)`` raw action of a latent step that leaves the robot where it is; None means zeros, which is right
            for relative actions. It is always a candidate, so that a plan is feasible where staying is.
        enough: Energy at or below which a feasible plan is good enough: a solver that thinks only as much as it has to
            (`Solver.enough`) ends there. -inf: none is.

    Raises:
        BadInputError: bounds that are not finite, crossed or of different shapes; a size below 1; no energy; two terms
            or two rules of one name; a ``stay`` of the wrong shape or not finite; ``enough`` is NaN.
    """

    rollout: Callable[[Tensor], Trajectory]
    energies: Sequence[Energy]
    guardrails: Sequence[Guardrail]
    low: Float[Tensor, " A"]
    high: Float[Tensor, " A"]
    horizon: int
    batch: int = 1
    stay: Float[Tensor, "B A"] | None = None
    enough: float = -math.inf

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise BadInputError(f"bounds must be (A,), came {tuple(self.low.shape)} and {tuple(self.high.shape)}.")
        if not bool((torch.isfinite(self.low) & torch.isfinite(self.high) & (self.low <= self.high)).all()):
            raise BadInputError(
                f"bounds must be finite, low <= high, came {self.low.tolist()} and {self.high.tolist()}."
            )
        if math.isnan(self.enough):
            raise BadInputError("enough: expected an energy, came nan.")
        if self.horizon < 1 or self.batch < 1:
            raise BadInputError(f"horizon and batch must be >= 1, came {self.horizon} and {self.batch}.")
        if len(self.energies) == 0:
            raise BadInputError("planning needs at least one energy, came none.")
        for kind, parts in (("energies", self.energies), ("guardrails", self.guardrails)):
            twice = [name for name, count in Counter(part.name for part in parts).items() if count > 1]
            if twice:
                raise BadInputError(f"{kind} must have different names, came '{twice[0]}' more than once.")
        if self.stay is not None:
            self.check("stay", self.stay, (self.batch, len(self.low)))

    @property
    def width(self) -> int:
        """A, numbers in one latent step's action."""
        return len(self.low)

    @property
    def half_range(self) -> Float[Tensor, " A"]:
        """Half the distance between the bounds, raw units: what solvers measure their steps in."""
        return (self.high - self.low) / 2

    def check(self, what: str, value: Tensor, shape: tuple[int, ...]) -> None:
        """Refuse a tensor of actions that is misshapen or not finite.

        Args:
            what: Its name in the message.
            value: The tensor.
            shape: Its shape as it should be; -1 stands for any size.

        Raises:
            BadInputError: another shape, NaN or infinity.
        """
        if value.ndim != len(shape) or any(s not in (-1, v) for s, v in zip(shape, value.shape, strict=True)):
            raise BadInputError(f"{what}: expected the shape {shape}, came {tuple(value.shape)}.")
        if not bool(torch.isfinite(value).all()):
            raise BadInputError(f"{what} must be finite, came NaN or infinity.")

    def clip(self, actions: Float[Tensor, "*n A"]) -> Float[Tensor, "*n A"]:
        """Into the bounds, in raw units."""
        return torch.minimum(torch.maximum(actions, self.low), self.high)

    def staying(self) -> Float[Tensor, "B H A"]:
        """The sequence that stays, inside the bounds."""
        stay = self.low.new_zeros(self.batch, self.width) if self.stay is None else self.stay.to(self.low)
        return self.clip(stay)[:, None].expand(-1, self.horizon, -1)
