"""I-JEPA: the hidden blocks of a picture, predicted in latent space."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wm.objectives.masked import MaskedConfig


@dataclass(frozen=True)
class IjepaConfig(MaskedConfig):
    """Assran et al. 2023, arXiv 2301.08243: four blocks of 15 to 20 % of the picture, squared distance."""

    name = "ijepa"

    @property
    def frames(self) -> int:
        """One picture."""
        return 1

    def distance(self, predicted: Float[Tensor, "K D"], target: Float[Tensor, "K D"]) -> Float[Tensor, ""]:
        """Mean square."""
        return (predicted - target).square().mean()
