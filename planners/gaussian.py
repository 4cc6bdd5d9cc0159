"""The diagonal Gaussian over action sequences that cross-entropy methods refit to their elites."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wm.planners.candidates import Scored


@dataclass(frozen=True)
class Gaussian:
    """State of a cross-entropy search.

    Attributes:
        mean: ``(B, H, A)`` raw units.
        std: ``(B, H, A)`` standard deviation, raw units.
        elites: ``(B, K, H, A)`` best candidates of the last iteration, best first, raw units; None before the first.
    """

    mean: Float[Tensor, "B H A"]
    std: Float[Tensor, "B H A"]
    elites: Float[Tensor, "B K H A"] | None = None


def elites_of(
    scored: Scored, order: Int[Tensor, "B S"], count: int
) -> tuple[Float[Tensor, "B K H A"], Bool[Tensor, "B K"]]:
    """The ``count`` best candidates, best first, and which of them have a finite energy."""
    top = order[:, :count]
    rows = torch.arange(len(top), device=top.device)[:, None]
    return scored.actions[rows, top], torch.isfinite(scored.energy[rows, top])


def refit(
    gaussian: Gaussian,
    elites: Float[Tensor, "B K H A"],
    finite: Bool[Tensor, "B K"],
    momentum: float,
    min_std: Float[Tensor, " A"],
) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B H A"]]:
    """Mean and std of the finite elites, mixed with the old ones; a problem without a finite elite keeps its own.

    ``new = momentum * old + (1 - momentum) * elites'``, for the mean and for the std, which stays >= ``min_std``.
    """
    count = finite.sum(1)
    weights = (finite / count.clamp(min=1)[:, None]).to(elites)[:, :, None, None]
    mean = (weights * elites).sum(1)
    std = (weights * (elites - mean[:, None]).square()).sum(1).sqrt()
    kept = torch.where(count > 0, momentum, 1.0).to(elites)[:, None, None]
    mean = torch.lerp(mean, gaussian.mean, kept)
    return mean, torch.maximum(torch.lerp(std, gaussian.std, kept), min_std)
