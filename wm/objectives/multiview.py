"""What the objectives on views share: two or more views of each picture, one network, an embedding of each view.

The tokens of a picture go through one linear layer together, so that an embedding knows where things are.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wm.encoders.base import Encoder, normalise
from wm.logs import Batch
from wm.objectives.base import Figures, Moment, Objective, ObjectiveConfig, Source
from wm.objectives.views import ViewConfig, view


@dataclass(frozen=True)
class MultiViewConfig(ObjectiveConfig):
    """Settings of every objective on views.

    Attributes:
        learning_rate: Peak.
        views: V, of each picture.
        positive: Control steps between the frames that the views are of; 0: all are of one frame. With 2 views of
            neighbouring frames, what changes slowly is what they share.
        hidden: Width of the projector's hidden layers.
        embedding: E, numbers in an embedding.
        view: How far a view may be from its picture.
    """

    learning_rate: float = 1e-3
    views: int = 2
    positive: int = 0
    hidden: int = 256
    embedding: int = 128
    view: ViewConfig = field(default_factory=ViewConfig)

    @property
    def frames(self) -> int:
        """Frames in a sample: two where positives are temporal."""
        return 2 if self.positive else 1

    @abstractmethod
    def embedding_loss(
        self, embeddings: Float[Tensor, "V B E"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Figures]:
        """What the objective is: the loss of the embeddings of V views of B pictures."""

    def scaled(self, embeddings: Float[Tensor, "M E"]) -> Float[Tensor, "M E"]:
        """In the scale in which a standard deviation of 1 is healthy: here on the sphere of radius √E."""
        return functional.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5

    def build(self, encoder: Encoder, source: Source) -> MultiView:
        """The objective around an encoder."""
        return MultiView(encoder, self)


class MultiView(Objective):
    """An encoder and a projector, which is thrown away.

    Args:
        encoder: Trained in place.
        config: Settings, and the loss.
    """

    def __init__(self, encoder: Encoder, config: MultiViewConfig) -> None:
        super().__init__(encoder)
        self.config = config
        self.projector = projector(encoder.grid**2 * encoder.width, config.hidden, config.embedding)

    def loss(self, batch: Batch, moment: Moment) -> tuple[Float[Tensor, ""], Figures]:
        """The embedding loss of fresh views; view k is of frame k, modulo the frames there are."""
        frames = batch.observations.unbind(1)
        seen = [normalise(frames[k % len(frames)]) for k in range(self.config.views)]
        views = torch.cat([view(pixels, self.config.view, moment.generator) for pixels in seen])
        embeddings = self.projector(self.tokens(views).flatten(1)).unflatten(0, (self.config.views, -1))
        return self.config.embedding_loss(embeddings, moment.generator)

    def embed(self, tokens: Float[Tensor, "M N D"], source: int = 0) -> Float[Tensor, "M E"]:
        """Embeddings in the scale of the loss."""
        return self.config.scaled(self.projector(tokens.flatten(1)))


def projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, batch normalisation, SiLU, twice; then linear."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.SiLU(),
        nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.SiLU(),
        nn.Linear(hidden, outputs),
    )  # fmt: skip
