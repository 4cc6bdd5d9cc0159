"""SimCLR, the contrastive counter-example: collapse is prevented by pushing apart every two pictures of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wm.objectives.base import Figures
from wm.objectives.multiview import MultiViewConfig


@dataclass(frozen=True)
class SimclrConfig(MultiViewConfig):
    """Chen et al. 2020, arXiv 2002.05709. How well it does depends on how many negatives a batch holds.

    Attributes:
        temperature: Of the similarities.
        repulsion: Weight of the negatives: 1 is NT-Xent, 0 attraction alone.
    """

    name = "simclr"

    temperature: float = 0.2
    repulsion: float = 1.0

    def embedding_loss(
        self, embeddings: Float[Tensor, "V B E"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Figures]:
        """NT-Xent of the first view with each other one."""
        pairs = [nt_xent_terms(embeddings[0], other, self.temperature) for other in embeddings[1:]]
        attraction, repulsion = (torch.stack(term).mean() for term in zip(*pairs, strict=True))
        figures = {"attraction": attraction.detach(), "repulsion": repulsion.detach()}
        return attraction + self.repulsion * repulsion, figures

    def unregulated(self) -> SimclrConfig:
        """Attraction alone."""
        return replace(self, repulsion=0.0)


def nt_xent_terms(
    one: Float[Tensor, "B E"], other: Float[Tensor, "B E"], temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """NT-Xent (eq. 1), taken apart: its mean over 2B views is attraction + repulsion.

    Returns:
        - similarity / temperature of the positives, and log-sum-exp over a view's 2B - 1 others.
    """
    z = functional.normalize(torch.cat([one, other]), dim=-1)
    similarity = z @ z.T / temperature
    positive = (z[: len(one)] * z[len(one) :]).sum(-1).mean() / temperature
    itself = torch.eye(len(z), dtype=torch.bool)
    return -positive, similarity.masked_fill(itself, -torch.inf).logsumexp(-1).mean()
