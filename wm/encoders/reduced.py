"""A public encoder's tokens made few and narrow, so that the closed-form state head can be fitted to them."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from wm.encoders.base import Encoder, fingerprint
from wm.encoders.public import PublicEncoder
from wm.errors import BadInputError
from wm.specs import EncoderSpec

GRID, WIDTH = 8, 64
"""Largest grid and width that the compact form works on: the products of the state head grow with its square."""


class ReducedEncoder(Encoder):
    """Tokens averaged to a coarser grid, then their principal components, both linear.

    Its two tensors are saved with a model; the public encoder under them stays a reference.

    Args:
        base: The public encoder.
        grid: Side of the coarser grid.
        width: Components that are kept.
    """

    by_reference = True
    centre: Tensor
    axes: Tensor

    def __init__(self, base: PublicEncoder, grid: int, width: int) -> None:
        super().__init__()
        self._held = (base,)
        self.name, self.image_size, self.grid, self.width = base.name, base.image_size, grid, width
        self.register_buffer("centre", torch.zeros(base.width))
        self.register_buffer("axes", torch.zeros(base.width, width))

    @property
    def base(self) -> PublicEncoder:
        """The public encoder."""
        return self._held[0]

    def forward(self, pixels: Tensor) -> Tensor:
        """Refused, as by the public encoder."""
        return self.base(pixels)

    def spec(self) -> EncoderSpec:
        """The public encoder's name, these sizes, and the fingerprint of both."""
        both = self.base.spec().fingerprint + fingerprint(self)
        digest = hashlib.sha256(both.encode()).hexdigest()[:16]
        return EncoderSpec(self.name, self.image_size, self.grid, self.width, digest)

    @torch.inference_mode()
    def encode(self, frames: UInt8[Tensor, "B T H W C"]) -> Float[Tensor, "B T N D"]:
        """Reduced tokens of raw frames; raises as the public encoder."""
        return self.reduce(self.base.encode(frames).flatten(0, 1)).unflatten(0, frames.shape[:2])

    def reduce(self, tokens: Float[Tensor, "M Ne De"]) -> Float[Tensor, "M N D"]:
        """Reduced tokens of the public encoder's."""
        return (self.pooled(tokens) - self.centre) @ self.axes

    def pooled(self, tokens: Float[Tensor, "M Ne De"]) -> Float[Tensor, "M N De"]:
        """The coarser grid."""
        planes = tokens.float().transpose(1, 2).unflatten(2, (self.base.grid, self.base.grid))
        return functional.adaptive_avg_pool2d(planes, self.grid).flatten(2).transpose(1, 2)


def coarser(grid: int, largest: int) -> int:
    """The largest divisor of a grid's side in the upper half of what is allowed; `largest` where there is none."""
    if grid <= largest:
        return grid
    return max((side for side in range(largest // 2, largest + 1) if side and grid % side == 0), default=largest)


@torch.inference_mode()
def fit_reduction(
    base: PublicEncoder, frames: UInt8[Tensor, "n H W 3"], grid: int = GRID, width: int = WIDTH
) -> ReducedEncoder:
    """The reduction that keeps most of the variance of some frames' tokens.

    Raises:
        BadInputError: fewer tokens than components, or numbers that are not finite.
    """
    reduced = ReducedEncoder(base, coarser(base.grid, grid), min(width, base.width))
    rows = torch.cat([reduced.pooled(base.encode(part[None])[0]).flatten(0, 1) for part in frames.split(64)]).double()
    if len(rows) < reduced.width or not bool(torch.isfinite(rows).all()):
        raise BadInputError(f"encoder '{base.name}': expected {reduced.width} or more finite tokens, came {len(rows)}.")
    centre = rows.mean(0)
    _, axes = torch.linalg.eigh((rows - centre).T @ (rows - centre))  # ascending
    reduced.centre.copy_(centre)
    reduced.axes.copy_(axes[:, -reduced.width :].flip(1))
    return reduced
