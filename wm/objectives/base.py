"""What every objective is: an encoder, the parts it learns under, and the loss of a batch of frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.encoders.base import Encoder
from wm.errors import BadInputError
from wm.fit import fast_bf16
from wm.logs import Batch

Figures = dict[str, Tensor]


@dataclass(frozen=True)
class Moment:
    """Where in a run a loss is taken.

    Attributes:
        step: Its number; the first is 0.
        steps: Of the whole run.
        generator: Of everything random in the loss, seeded by the run's seed and the step.
    """

    step: int
    steps: int
    generator: torch.Generator

    @property
    def share(self) -> float:
        """How much of the run is over, 0 … 1."""
        return self.step / max(1, self.steps - 1)


@runtime_checkable
class Source(Protocol):
    """Where batches of frames come from: `wm.logs.LogWindows`, `Pictures`, or a `Mixture`."""

    def draw(self, rng: np.random.Generator, n: int) -> Batch:
        """n random samples."""


@dataclass(frozen=True)
class Pictures:
    """Single frames, without time and actions.

    Attributes:
        frames: ``(O, H, W, 3)`` uint8.
        rows: ``(R,)`` which of them are drawn.
    """

    frames: np.ndarray
    rows: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> Batch:
        """n random pictures, as windows of one frame."""
        chosen = self.rows[rng.integers(0, len(self.rows), n)]
        return Batch(torch.from_numpy(self.frames[chosen])[:, None], None, torch.zeros(n, 0, 0))


@dataclass(frozen=True)
class Mixture:
    """Several sources, of each of which a batch has as many samples (the first ones one more where they don't fit).

    Attributes:
        sources: Of frames of one size, and as many in a sample.
    """

    sources: tuple[Source, ...]

    def draw(self, rng: np.random.Generator, n: int) -> Batch:
        """n random samples, one source's after the other's; in `Batch.parts` apart.

        Raises:
            BadInputError: fewer than there are sources.
        """
        if n < len(self.sources):
            raise BadInputError(f"batch: expected a sample of each of {len(self.sources)} sources, came {n}.")
        share, more = divmod(n, len(self.sources))
        parts = tuple(source.draw(rng, share + (i < more)) for i, source in enumerate(self.sources))
        frames = torch.cat([part.observations for part in parts])
        return Batch(frames, None, torch.zeros(n, frames.shape[1] - 1, 0), parts)


class Objective(nn.Module, ABC):
    """An encoder under training with the parts that are thrown away afterwards.

    All that has to survive a kill is a parameter or a buffer: an EMA teacher is a submodule without gradients.

    Args:
        encoder: Trained in place.
    """

    encoder: Encoder

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.bf16 = fast_bf16()

    @abstractmethod
    def loss(self, batch: Batch, moment: Moment) -> tuple[Float[Tensor, ""], Figures]:
        """Loss of a batch, and named figures for the log, detached."""

    @abstractmethod
    def embed(self, tokens: Float[Tensor, "M N D"], source: int = 0) -> Float[Tensor, "M E"]:
        """What the loss keeps apart, of `kept`'s tokens, in the scale in which 1 is a healthy standard deviation.

        Args:
            tokens: Of pictures of one source.
            source: Which, of a `Mixture`.
        """

    def after_step(self, share: float) -> None:
        """Called when the weights have moved, `share` (0 … 1) of the run being over: a teacher follows."""

    @property
    def kept(self) -> Encoder:
        """The encoder that is kept in the end, and watched on the way."""
        return self.encoder

    def tokens(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M N D"]:
        """The trained encoder's tokens, in float32; computed in bfloat16 where that is fast."""
        return run_fast(self.encoder, pixels, self.bf16)


def run_fast(module: nn.Module, x: Tensor, bf16: bool) -> Tensor:
    """A module's output in float32, computed in bfloat16 if so wanted."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        result: Tensor = module(x)
    return result.float()


class ObjectiveConfig(ABC):
    """An objective's settings, a frozen dataclass; its class says what the objective is and takes.

    Attributes:
        name: As in ``--objective``.
        actions: Whether it takes the logged actions.
        learning_rate: Peak, where it is a setting.
    """

    name: ClassVar[str]
    actions: ClassVar[bool] = False
    learning_rate: float

    @property
    def rate(self) -> float:
        """Peak of the learning rate."""
        return self.learning_rate

    @property
    @abstractmethod
    def frames(self) -> int:
        """T, frames in a sample."""

    @abstractmethod
    def build(self, encoder: Encoder, source: Source) -> Objective:
        """The objective around an encoder.

        Args:
            encoder: Freshly initialised; trained in place.
            source: Of the samples.
        """

    @abstractmethod
    def unregulated(self) -> ObjectiveConfig:
        """The same without what prevents collapse: for watching one."""

    def identity(self) -> dict[str, Any]:
        """JSON values that a run is known by."""
        return {"objective": self.name} | asdict(self)  # type: ignore[call-overload]
