"""From a field of patch tokens to a picture: only to look at what the model imagines, never used by planning."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wm.errors import BadInputError
from wm.fit import FitConfig, fit


class PatchDecoder(nn.Module):
    """Two convolutions over the grid, then each cell's own pixels (sub-pixel convolution, Shi et al. 2016).

    Args:
        tokens: N, a square number.
        width: D, numbers per token.
        image_size: Side of the picture, pixels; a multiple of the grid's side.
        hidden: Channels.

    Raises:
        BadInputError: sizes that do not fit each other.
    """

    kind = "patch-decoder"
    sizes = ("tokens", "width", "image_size", "hidden")

    def __init__(self, tokens: int, width: int, image_size: int = 96, hidden: int = 64) -> None:
        super().__init__()
        self.tokens, self.width, self.image_size, self.hidden = tokens, width, image_size, hidden
        self.grid = math.isqrt(tokens)
        if self.grid**2 != tokens or image_size % self.grid:
            raise BadInputError(
                f"decoder: expected the tokens of a square grid that divides {image_size} px, came {tokens} tokens."
            )
        patch = image_size // self.grid
        self.layers = nn.Sequential(
            nn.Conv2d(width, hidden, 3, padding=1), nn.SiLU(), nn.Conv2d(hidden, hidden, 3, padding=1), nn.SiLU(),
            nn.Conv2d(hidden, 3 * patch * patch, 1), nn.PixelShuffle(patch),
        )  # fmt: skip

    def forward(self, states: Float[Tensor, "M N D"]) -> Float[Tensor, "M 3 H W"]:
        """Colours, 0 … 1 where the decoder is right; not clipped."""
        colours: Tensor = self.layers(states.transpose(1, 2).unflatten(2, (self.grid, self.grid)))
        return colours

    @torch.inference_mode()
    def pictures(self, states: Float[Tensor, "M N D"]) -> UInt8[np.ndarray, "M H W 3"]:
        """Pictures as uint8 RGB."""
        colours = torch.cat([self(part) for part in states.split(32)])
        pictures: np.ndarray = (colours.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return pictures


def train_patch_decoder(
    states: Float[Tensor, "O N D"], frames: UInt8[np.ndarray, "O H W 3"], config: FitConfig, out: Path
) -> PatchDecoder:
    """Train on logged frames and their states by the mean squared difference of the colours.

    Writes `decoder.jsonl` and a checkpoint into `out`, and resumes from it (`wm.fit.fit`).

    Raises:
        BadInputError: the sizes of states and frames do not agree, or the loss became non-finite.
        CheckpointError, MismatchError: a checkpoint in `out` is not of this run.
    """
    if len(states) != len(frames) or frames.shape[1] != frames.shape[2]:
        raise BadInputError(f"decoder: expected {len(states)} square frames, came {frames.shape}.")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        decoder = PatchDecoder(states.shape[1], states.shape[2], frames.shape[1])

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        rows = rng.integers(0, len(frames), config.batch)
        target = torch.from_numpy(frames[rows]).float().permute(0, 3, 1, 2) / 255
        shown = decoder(states[torch.from_numpy(rows)].float())
        return (shown - target).square().mean(), {}

    fit(decoder, loss, config, out, "decoder")
    return decoder
