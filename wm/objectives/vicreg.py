"""VICReg: the views of a picture agree, each number keeps its variance, no two numbers say the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wm.losses import variance_covariance
from wm.objectives.base import Figures
from wm.objectives.multiview import MultiViewConfig


@dataclass(frozen=True)
class VicregConfig(MultiViewConfig):
    """Bardes et al. 2022, arXiv 2105.04906.

    Attributes:
        invariance: Weight of the agreement.
        variance: Weight of the hinge on each number's standard deviation.
        covariance: Weight of the squared covariances.
    """

    name = "vicreg"

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def embedding_loss(
        self, embeddings: Float[Tensor, "V B E"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Figures]:
        """The weighted sum of the terms, divided by the weight of the agreement."""
        agreement, variance, covariance = vicreg_terms(embeddings)
        value = self.invariance * agreement + self.variance * variance + self.covariance * covariance
        terms = {"invariance": agreement, "variance": variance, "covariance": covariance}
        return value / self.invariance, {name: term.detach() for name, term in terms.items()}

    def scaled(self, embeddings: Float[Tensor, "M E"]) -> Float[Tensor, "M E"]:
        """As they are: the hinge asks for a standard deviation of 1."""
        return embeddings

    def unregulated(self) -> VicregConfig:
        """The agreement alone."""
        return replace(self, variance=0.0, covariance=0.0)


def vicreg_terms(
    embeddings: Float[Tensor, "V B E"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """VICReg's three terms (eqs. 1, 4 and 5), over all pairs of views.

    Returns:
        Mean squared difference of two views per number, and means over views of the hinge on the standard deviation and
        of the squared off-diagonal covariances over E.
    """
    v = len(embeddings)
    agreement = 2 * v / (v - 1) * (embeddings - embeddings.mean(0)).square().mean()
    terms = [variance_covariance(of_view) for of_view in embeddings]
    variance, covariance = (torch.stack(term).mean() for term in zip(*terms, strict=True))
    return agreement, variance, covariance
