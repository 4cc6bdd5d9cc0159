"""Masked latent prediction, of pictures and clips: what a teacher makes of the hidden part, from what is visible.

The student sees pictures whose hidden tokens' pixels are grey. A small transformer gets its visible tokens, a learned
token in each hidden place, and positions; it predicts the teacher's tokens of the whole picture in the hidden places.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from wm.encoders.base import Encoder, normalise
from wm.logs import Batch
from wm.objectives.base import Figures, Moment, Objective, ObjectiveConfig, Source, run_fast
from wm.objectives.masks import MaskConfig, draw_masks, hide
from wm.objectives.teacher import follow, momentum_at, teacher_of


@dataclass(frozen=True)
class MaskedConfig(ObjectiveConfig):
    """Settings of masked latent prediction.

    Attributes:
        learning_rate: Peak.
        mask: What is hidden.
        momentum: Of the teacher, at the start; it rises to 1. The papers' 0.996 and more are for runs of 10⁵ steps.
        teacher: Whether the targets are a teacher's, without gradient. If not, they are the student's own, and nothing
            keeps it from making all tokens the same.
        hidden: Width of the predictor.
        depth: Its layers.
        heads: Its attention heads.
    """

    learning_rate: float = 1e-3
    mask: MaskConfig = field(default_factory=MaskConfig)
    momentum: float = 0.99
    teacher: bool = True
    hidden: int = 96
    depth: int = 2
    heads: int = 4

    @abstractmethod
    def distance(self, predicted: Float[Tensor, "K D"], target: Float[Tensor, "K D"]) -> Float[Tensor, ""]:
        """What the objective calls close."""

    def build(self, encoder: Encoder, source: Source) -> Masked:
        """The objective around an encoder."""
        return Masked(encoder, self)

    def unregulated(self) -> MaskedConfig:
        """Without a teacher."""
        return replace(self, teacher=False)


class Masked(Objective):
    """Student, teacher and predictor; the teacher is kept, for it has seen whole pictures.

    Args:
        encoder: Trained in place: the student.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, config: MaskedConfig) -> None:
        super().__init__(encoder)
        self.config = config
        self.predictor = MaskedPredictor(encoder.grid**2, encoder.width, config)
        self.teacher = teacher_of(encoder) if config.teacher else None

    def loss(self, batch: Batch, moment: Moment) -> tuple[Float[Tensor, ""], Figures]:
        """Distance of predicted and true tokens in the hidden places; a clip's frames hide the same places."""
        n, t = batch.observations.shape[:2]
        pixels = normalise(batch.observations.flatten(0, 1))
        hidden = draw_masks(n, self.encoder.grid, self.config.mask, moment.generator)
        tubes = hidden[:, None].expand(-1, t, -1)  # (n, T, N)
        target = self._targets(pixels).unflatten(0, (n, t))
        seen = self.tokens(hide(pixels, tubes.flatten(0, 1), self.encoder.grid)).unflatten(0, (n, t))
        predicted = self.predictor(seen, tubes)
        value = self.config.distance(predicted[tubes], target[tubes])
        return value, {"hidden": hidden.float().mean(), "target_std": target.detach().std((0, 1)).mean()}

    def _targets(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M N D"]:
        """Tokens of whole pictures, each of mean 0 and variance 1."""
        if self.teacher is None:
            return functional.layer_norm(self.tokens(pixels), (self.encoder.width,))
        with torch.no_grad():
            tokens = run_fast(self.teacher, pixels, self.bf16)
        return functional.layer_norm(tokens, (self.encoder.width,))

    def after_step(self, share: float) -> None:
        """The teacher follows."""
        if self.teacher is not None:
            follow(self.teacher, self.encoder, momentum_at(share, self.config.momentum))

    @property
    def kept(self) -> Encoder:
        """The teacher."""
        return self.encoder if self.teacher is None else self.teacher

    def embed(self, tokens: Float[Tensor, "M N D"], source: int = 0) -> Float[Tensor, "M E"]:
        """The tokens as targets are made of them."""
        return functional.layer_norm(tokens, (self.encoder.width,)).flatten(1)


class MaskedPredictor(nn.Module):
    """A transformer over the tokens of a clip.

    Args:
        places: N, tokens of a frame.
        width: D.
        config: Sizes.
    """

    def __init__(self, places: int, width: int, config: MaskedConfig) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)
        self.missing = nn.Parameter(torch.zeros(config.hidden))
        self.place = nn.Parameter(0.02 * torch.randn(places, config.hidden))
        self.time = nn.Parameter(0.02 * torch.randn(config.frames, 1, config.hidden))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.hidden, config.heads, 4 * config.hidden, dropout=0.0, activation="gelu", batch_first=True,
                norm_first=True,
            ) for _ in range(config.depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(config.hidden)

    def forward(self, tokens: Float[Tensor, "B T N D"], hidden: Bool[Tensor, "B T N"]) -> Float[Tensor, "B T N D"]:
        """Tokens everywhere, from those that are not hidden."""
        x = torch.where(hidden[..., None], self.missing, self.enter(tokens)) + self.place + self.time
        shape = x.shape[1:3]
        x = x.flatten(1, 2)
        for layer in self.layers:
            x = layer(x)
        result: Tensor = self.leave(self.norm(x)).unflatten(1, shape)
        return result
