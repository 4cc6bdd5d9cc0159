"""Encoders of one token: what is left of a grid when only its mean is kept, for a study to compare grids with."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from wm.encoders.base import Encoder
from wm.encoders.pixels import PixelEncoder
from wm.encoders.tiny import TinyEncoder
from wm.specs import EncoderSpec


class _Pooled(Encoder):
    """Before another encoder in a list of bases: takes the same weights, and gives the mean of its tokens."""

    grid = 1

    def forward(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M 1 D"]:
        """The mean token of normalised pictures."""
        return super().forward(pixels).mean(1, keepdim=True)

    def spec(self) -> EncoderSpec:
        """With a fingerprint other than that of the same weights unpooled: what is cached of one is not the other's."""
        whole = super().spec()
        digest = hashlib.sha256(f"{whole.fingerprint} pooled".encode()).hexdigest()[:16]
        return replace(whole, fingerprint=digest)


class PooledTinyEncoder(_Pooled, TinyEncoder):
    """`TinyEncoder` with the mean of its tokens as the only one."""

    name = "wm-tiny-pooled"


class PooledPixelEncoder(_Pooled, PixelEncoder):
    """`PixelEncoder` with the mean of its tokens, a picture of 4 × 4 px, as the only one."""

    name = "pixels-pooled"
