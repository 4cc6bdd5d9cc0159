"""LeJEPA: every view predicts the mean of its picture's views, and SIGReg makes the embeddings a standard normal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wm.losses import sigreg
from wm.objectives.base import Figures
from wm.objectives.multiview import MultiViewConfig


@dataclass(frozen=True)
class SigregConfig(MultiViewConfig):
    """Balestriero & LeCun 2025, arXiv 2511.08544; no teacher, no stop-gradient, one weight.

    Attributes:
        regulariser: Weight of SIGReg.
    """

    name = "sigreg"

    learning_rate: float = 2e-3
    regulariser: float = 3.0

    def embedding_loss(
        self, embeddings: Float[Tensor, "V B E"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Figures]:
        """Squared distance from the mean view, plus SIGReg of each view."""
        agreement = (embeddings - embeddings.mean(0)).square().mean()
        normality = torch.stack([sigreg(of_view, generator) for of_view in embeddings]).mean()
        figures = {"invariance": agreement.detach(), "sigreg": normality.detach()}
        return agreement + self.regulariser * normality, figures

    def scaled(self, embeddings: Float[Tensor, "M E"]) -> Float[Tensor, "M E"]:
        """As they are: SIGReg asks for a standard deviation of 1."""
        return embeddings

    def unregulated(self) -> SigregConfig:
        """Without SIGReg."""
        return replace(self, regulariser=0.0)
