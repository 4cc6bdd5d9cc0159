"""V-JEPA: hidden tubes of a clip, predicted in latent space."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from wm.objectives.masked import MaskedConfig
from wm.objectives.masks import MaskConfig


@dataclass(frozen=True)
class VjepaConfig(MaskedConfig):
    """Bardes et al. 2024, arXiv 2404.08471: the same places are hidden in all frames; absolute distance.

    Our encoder sees one frame at a time; it is the predictor that joins a clip's frames.

    Attributes:
        clip: T, frames, one latent step apart.
        mask: What is hidden of each frame: eight blocks, about two thirds of the picture.
    """

    name = "vjepa"

    clip: int = 4
    mask: MaskConfig = field(default_factory=lambda: MaskConfig(blocks=8, least=0.12, most=0.18, visible=0.2))

    @property
    def frames(self) -> int:
        """T."""
        return self.clip

    def distance(self, predicted: Float[Tensor, "K D"], target: Float[Tensor, "K D"]) -> Float[Tensor, ""]:
        """Mean absolute difference."""
        return (predicted - target).abs().mean()
