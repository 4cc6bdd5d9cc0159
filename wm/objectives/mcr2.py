"""Maximal coding rate reduction, self-supervised: many bits for all views together, few for those of one picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wm.objectives.base import Figures
from wm.objectives.multiview import MultiViewConfig


@dataclass(frozen=True)
class Mcr2Config(MultiViewConfig):
    """Yu et al. 2020, arXiv 2006.08558, where every picture is a class of its own.

    Attributes:
        precision: ε², of the rate; embeddings have length 1.
        expansion: Weight of the rate of all views.
    """

    name = "mcr2"

    views: int = 4
    embedding: int = 64
    precision: float = 0.5
    expansion: float = 1.0

    def embedding_loss(
        self, embeddings: Float[Tensor, "V B E"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Figures]:
        """Mean rate of a picture's views minus the rate of all views, per number."""
        z, width = functional.normalize(embeddings, dim=-1), embeddings.shape[-1]
        everything = coding_rate(z.flatten(0, 1), self.precision) / width
        each = coding_rate(z.transpose(0, 1), self.precision).mean() / width
        figures = {"rate": everything.detach(), "picture_rate": each.detach()}
        return each - self.expansion * everything, figures

    def unregulated(self) -> Mcr2Config:
        """Compression alone."""
        return replace(self, expansion=0.0)


def coding_rate(z: Float[Tensor, "*n M E"], precision: float) -> Float[Tensor, "*n"]:
    """R(Z) = ½ log det(I + E / (M ε²) Zᵀ Z) of M vectors, in nats (eq. 1).

    Args:
        z: Vectors.
        precision: ε².
    """
    m, e = z.shape[-2:]
    gram = z @ z.mT if m < e else z.mT @ z  # both have the same determinant
    return 0.5 * torch.logdet(torch.eye(min(m, e), dtype=z.dtype) + e / (m * precision) * gram)
