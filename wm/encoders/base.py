"""What every encoder is: uint8 pictures in, tokens out, frozen."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wm.errors import BadInputError
from wm.specs import EncoderSpec


class Encoder(nn.Module):
    """Frames to a square grid of tokens.

    A world model never trains an encoder: `wm.train` keeps its parameters frozen and in evaluation mode.
    """

    name: str
    image_size: int
    grid: int
    width: int
    by_reference = False
    """Whether a model's file holds its name and fingerprint instead of its weights (a public one: large and slow)."""

    def forward(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M N D"]:
        """Tokens of normalised pictures, row by row from the top left."""
        raise TypeError(f"{type(self).__name__} is abstract: call an encoder such as wm.encoders.tiny.TinyEncoder.")

    def spec(self) -> EncoderSpec:
        """Name, sizes and the fingerprint of the present weights."""
        return EncoderSpec(self.name, self.image_size, self.grid, self.width, fingerprint(self))

    @torch.inference_mode()
    def encode(self, frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T N D"]:
        """Tokens of raw frames; the pictures must have the encoder's own size.

        Raises:
            BadInputError: another picture size.
        """
        b, t, h, w, _ = frames.shape
        if (h, w) != (self.image_size, self.image_size):
            size = self.image_size
            raise BadInputError(f"picture size: encoder '{self.name}' expects {size}x{size} pixels, came {w}x{h}.")
        self.eval()
        tokens = self(normalise(frames.flatten(0, 1)))
        return tokens.unflatten(0, (b, t))


def normalise(frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M 3 H W"]:
    """uint8 RGB 0…255 to float32 -1…1, channels-last in memory (the fast layout of CPU convolutions)."""
    pixels = frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
    return pixels.div_(127.5).sub_(1.0)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names and weights, the first 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
