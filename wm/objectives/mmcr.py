"""Maximum manifold capacity: the mean views of all pictures span as much as they can."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wm.objectives.base import Figures
from wm.objectives.multiview import MultiViewConfig


@dataclass(frozen=True)
class MmcrConfig(MultiViewConfig):
    """Yerxa et al. 2023, arXiv 2303.03307, without its optional local term.

    Attributes:
        expansion: Weight of the centroids' nuclear norm; where it is 0, the lengths of the centroids count instead,
            which ask for agreement alone.
    """

    name = "mmcr"

    views: int = 4
    expansion: float = 1.0

    def embedding_loss(
        self, embeddings: Float[Tensor, "V B E"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Figures]:
        """Minus the nuclear norm of the centroids, as a share of the largest possible."""
        centroids = functional.normalize(embeddings, dim=-1).mean(0)
        length = centroids.norm(dim=-1).mean()
        capacity = nuclear_share(centroids)
        figures = {"capacity": capacity.detach(), "centroid_length": length.detach()}
        return (-self.expansion * capacity if self.expansion else -length), figures

    def unregulated(self) -> MmcrConfig:
        """Agreement alone."""
        return replace(self, expansion=0.0)


def nuclear_share(centroids: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Nuclear norm over its bound √(B min(B, E)) for B vectors of length at most 1, 0 … 1 (eq. 4)."""
    b, e = centroids.shape
    return torch.linalg.svdvals(centroids).sum() / (b * min(b, e)) ** 0.5
