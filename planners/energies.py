"""Energies: what a plan is to make small. Each maps a trajectory to one number per candidate."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wm.errors import BadInputError
from wm.types import Trajectory


@runtime_checkable
class Energy(Protocol):
    """A weighted task term.

    Attributes:
        name: Key of the term in ``Plan.energy_terms``; unique within a problem.
    """

    name: str

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S"]:
        """Weighted energy of every candidate, dimensionless; less is better."""
        ...


class GoalDistance:
    """Squared latent distance to the goal, mean over tokens and width, weighted mean over the latent steps.

    ``E = weight * sum_h w_h mean_{n,d} ((z_h - z_goal) / scale)^2 / sum_h w_h``

    The last step counts ``last_weight`` and each earlier step ``earlier_weight`` unless ``step_weights`` gives all of
    them; the default works for any horizon. A little weight on the earlier steps rewards arriving soon.

    Args:
        goal_tokens: ``(B, N, D)``; B may be 1 for one goal shared by all problems.
        last_weight: Weight of the last latent step, >= 0.
        earlier_weight: Weight of each earlier latent step, >= 0.
        step_weights: ``(H,)`` weights >= 0 of every latent step, instead of the two above.
        scale: Latent units that count as 1: a positive number, or a positive tensor that broadcasts to ``(N, D)``.
        weight: Factor of the whole term, >= 0.
        name: Key of the term.

    Raises:
        BadInputError: a weight is negative or not finite, all weights are zero, the scale is not positive, or the goal
            is not finite; at the call, the horizon is not that of ``step_weights``.
    """

    def __init__(
        self,
        goal_tokens: Float[Tensor, "B N D"],
        last_weight: float | int = 1.0,
        earlier_weight: float | int = 0.1,
        step_weights: Float[Tensor, " H"] | Sequence[float | int] | None = None,
        scale: float | int | Tensor | None = None,
        weight: float | int = 1.0,
        name: str = "goal",
    ) -> None:
        if not bool(torch.isfinite(goal_tokens).all()):
            raise BadInputError(f"energy '{name}': the goal's tokens must be finite, came NaN or infinity.")
        self.name = name
        self.goal_tokens = goal_tokens
        self.last_weight = _weight(last_weight, f"energy '{name}': last_weight")
        self.earlier_weight = _weight(earlier_weight, f"energy '{name}': earlier_weight")
        self.weight = _weight(weight, f"energy '{name}': weight")
        self.step_weights = None if step_weights is None else torch.as_tensor(step_weights).to(goal_tokens)
        self.scale = None if scale is None else torch.as_tensor(scale).to(goal_tokens)
        if self.scale is not None and not bool(((self.scale > 0) & torch.isfinite(self.scale)).all()):
            raise BadInputError(f"energy '{name}': scale must be positive and finite, came {scale}.")
        for value in [] if self.step_weights is None else self.step_weights.tolist():
            _weight(value, f"energy '{name}': step weights")
        if not any(self._weights_of(2 if self.step_weights is None else len(self.step_weights))):
            raise BadInputError(f"energy '{name}': at least one step weight must be positive, all are 0.")

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S"]:
        """Energy of every candidate; see the class."""
        squared = self.step_energy(trajectory.tokens)
        weights = self._weights_of(squared.shape[-1])
        factors = [self.weight * w / sum(weights) for w in weights]
        return squared @ torch.tensor(factors, dtype=squared.dtype, device=squared.device)

    def step_energy(self, tokens: Float[Tensor, "B S H N D"]) -> Float[Tensor, "B S H"]:
        """Squared distance of every latent step, not weighted."""
        difference = tokens - self.goal_tokens[:, None, None]
        if self.scale is not None:
            difference = difference / self.scale
        # One pass over the latents, without a second tensor of their size.
        return torch.linalg.vector_norm(difference, dim=(-2, -1)).square() / difference[0, 0, 0].numel()

    def _weights_of(self, horizon: int) -> list[float]:
        if self.step_weights is None:
            return [self.earlier_weight] * (horizon - 1) + [self.last_weight]
        if len(self.step_weights) != horizon:
            raise BadInputError(
                f"energy '{self.name}': expected {horizon} step weights for horizon {horizon}, "
                f"came {len(self.step_weights)}."
            )
        return self.step_weights.tolist()


class ReadOutDistance(GoalDistance):
    """`GoalDistance` of what is read out of the latents, instead of the latents themselves.

    Args:
        goal_tokens: ``(B, N, D)``.
        read: Latents ``(..., N, D)`` to ``(..., M, R)``; gradients pass through it.
        last_weight: As in `GoalDistance`; so are the others.

    Raises:
        BadInputError: as `GoalDistance`.
    """

    def __init__(
        self,
        goal_tokens: Float[Tensor, "B N D"],
        read: Callable[[Tensor], Tensor],
        last_weight: float | int = 1.0,
        earlier_weight: float | int = 0.1,
        scale: float | int | Tensor | None = None,
        weight: float | int = 1.0,
        name: str = "goal",
    ) -> None:
        super().__init__(read(goal_tokens), last_weight, earlier_weight, scale=scale, weight=weight, name=name)
        self.read = read

    def step_energy(self, tokens: Float[Tensor, "B S H N D"]) -> Float[Tensor, "B S H"]:
        """See the class."""
        return super().step_energy(self.read(tokens))


class GridDistance(GoalDistance):
    """Latent distance to the goal of tokens that form a grid, at every scale of it.

    ``e_h = sum_k k^2 sum_windows mean_d (pool_k(z_h - z_goal))^2 / (N sum_k k^2),  k = 1, 2, 4, … <= grid``

    ``pool_k`` averages over every window of k × k cells, also over those that reach over the border (zero there). A
    distance cell by cell doesn't tell how far a thing is from where it should be, only that it is not there; with the
    large windows it falls with every bit of the way. That is the embedding of the earth mover's distance of Indyk &
    Thaper 2003 ("Fast image retrieval via embeddings") over all shifts of its grids, squared instead of absolute. All
    of it is one quadratic form, so that a candidate costs one product with an N × N matrix. The steps' weights are
    those of `GoalDistance`.

    Args:
        goal_tokens: ``(B, N, D)``, N = grid², row by row.
        grid: Side of the grid.
        last_weight: As in `GoalDistance`; so are the others.

    Raises:
        BadInputError: as `GoalDistance`, or N is not grid².
    """

    def __init__(
        self,
        goal_tokens: Float[Tensor, "B N D"],
        grid: int,
        last_weight: float | int = 1.0,
        earlier_weight: float | int = 0.1,
        weight: float | int = 1.0,
        name: str = "goal",
    ) -> None:
        super().__init__(goal_tokens, last_weight, earlier_weight, weight=weight, name=name)
        if goal_tokens.shape[1] != grid * grid:
            raise BadInputError(f"energy '{name}': expected {grid * grid} goal tokens, came {goal_tokens.shape[1]}.")
        self.root = _scales(grid).to(goal_tokens)

    def step_energy(self, tokens: Float[Tensor, "B S H N D"]) -> Float[Tensor, "B S H"]:
        """See the class."""
        difference = (tokens - self.goal_tokens[:, None, None]).movedim(-1, -2)  # (B, S, H, D, N)
        return (difference @ self.root).square().sum(-1).mean(-1)


@functools.lru_cache(maxsize=8)
def _scales(grid: int) -> Float[Tensor, "N N"]:
    """A root R of `GridDistance`'s quadratic form: the energy of a difference z is ``|z R|²``."""
    cells = torch.eye(grid * grid, dtype=torch.float64).reshape(-1, 1, grid, grid)
    form, total_weight, size = torch.zeros(grid * grid, grid * grid, dtype=torch.float64), 0, 1
    while size <= grid:
        wider = functional.pad(cells, [size - 1] * 4)
        windows = functional.avg_pool2d(wider, size, stride=1).flatten(1)  # (N, windows); each cell is in size² of them
        form += size**2 * windows @ windows.T / len(cells)
        total_weight, size = total_weight + size**2, 2 * size
    return torch.linalg.cholesky(form / total_weight)


class Effort:
    """Mean squared action, ``E = weight * mean_{h,a} a_h^2``.

    Args:
        weight: Energy per squared raw action unit, >= 0.
        name: Key of the term.

    Raises:
        BadInputError: the weight is negative or not finite.
    """

    def __init__(self, weight: float | int, name: str = "effort") -> None:
        self.name = name
        self.weight = _weight(weight, f"energy '{name}': weight")

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S"]:
        """Energy of every candidate; see the class."""
        return self.weight * trajectory.actions.square().mean((-2, -1))


def total(
    energies: Sequence[Energy], trajectory: Trajectory
) -> tuple[Float[Tensor, "B S"], dict[str, Float[Tensor, "B S"]]]:
    """Sum of the energies, and every weighted term by name (the terms add up to the sum).

    Raises:
        BadInputError: there is no energy, or a term is not one number per candidate.
    """
    terms = {energy.name: energy(trajectory) for energy in energies}
    if not terms:
        raise BadInputError("planning needs at least one energy, came none.")
    shape = trajectory.actions.shape[:2]
    for name, term in terms.items():
        if term.shape != shape:
            raise BadInputError(f"energy '{name}': expected the shape {tuple(shape)}, came {tuple(term.shape)}.")
    values = list(terms.values())
    return sum(values[1:], values[0]), terms


def _weight(value: float | int, what: str) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise BadInputError(f"{what} must be finite and >= 0, came {value}.")
    return float(value)
