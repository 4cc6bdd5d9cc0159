"""Barlow Twins: the correlations of two views' numbers are the identity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wm.objectives.base import Figures
from wm.objectives.multiview import MultiViewConfig


@dataclass(frozen=True)
class BarlowConfig(MultiViewConfig):
    """Zbontar et al. 2021, arXiv 2103.03230.

    Attributes:
        redundancy: Weight of the squared correlations of different numbers. The paper's 0.005 is for 8,192 numbers.
        standardise: Whether each number is standardised over the batch, as correlations are. If not, what is left is
            the mean squared difference of two views.
    """

    name = "barlow"

    redundancy: float = 0.02
    standardise: bool = True

    def embedding_loss(
        self, embeddings: Float[Tensor, "V B E"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Figures]:
        """Barlow Twins' loss of the first view with each other one, per number."""
        if not self.standardise:
            difference = (embeddings[1:] - embeddings[0]).square().mean()
            return difference, {"invariance": difference.detach()}
        pairs = [barlow_terms(embeddings[0], other) for other in embeddings[1:]]
        same, different = (torch.stack(term).mean() for term in zip(*pairs, strict=True))
        figures = {"invariance": same.detach(), "redundancy": different.detach()}
        return same + self.redundancy * different, figures

    def scaled(self, embeddings: Float[Tensor, "M E"]) -> Float[Tensor, "M E"]:
        """As they are: of the order of 1, for the loss does not move their scale."""
        return embeddings

    def unregulated(self) -> BarlowConfig:
        """The agreement alone. Without the redundancy only, numbers repeat each other, but none can become constant."""
        return replace(self, redundancy=0.0, standardise=False)


def barlow_terms(one: Float[Tensor, "B E"], other: Float[Tensor, "B E"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sums of (1 - C_ii)² and of C_ij², i ≠ j, over E, with C the correlations of two views' numbers (eq. 1)."""
    standard = [(z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (one, other)]
    correlation = standard[0].T @ standard[1] / len(one)
    diagonal = correlation.diagonal()
    off = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().mean(), off / len(diagonal)
