"""V-JEPA 2, a video encoder (arXiv 2506.09985), through `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wm.encoders.preprocessing import Preprocessing
from wm.encoders.public import PublicEncoder, grid_of, require_rgb
from wm.errors import BadInputError


class VJepa2Encoder(PublicEncoder):
    """V-JEPA 2. Its smallest piece of video is a *tubelet*: a patch over two frames.

    `encode` feeds each frame alone, repeated to fill one tubelet (as V-JEPA 2-AC does): T frames in, T steps out, each
    the representation of a picture at rest. That is what a world model is trained and run on: a step depends on no
    other frame, and the actions of a log stay where they are.

    `encode_clips` feeds windows as video: T frames in, T / 2 steps out. Step k covers the frames 2k and 2k + 1 and is
    what is known at frame 2k + 1, so the actions between step k and k + 1 are those taken in the frames 2k + 1 and
    2k + 2. Attention runs over the whole window: a step has seen the frames after it, so such steps are no context to
    predict those frames from.
    """

    def tokens(self, pixels: Float[Tensor, "M 3 S S"]) -> Float[Tensor, "M N D"]:
        """Tokens of preprocessed pictures, each repeated to a clip of one tubelet."""
        clips = pixels[:, None].expand(-1, self.network.config.tubelet_size, -1, -1, -1)
        return self.network(clips, skip_predictor=True).last_hidden_state

    @torch.inference_mode()
    def encode_clips(self, frames: UInt8[Tensor, "B T H W C"]) -> Float[Tensor, "B K N D"]:
        """Tokens of windows of video, K = T / 2 steps.

        Raises:
            BadInputError: not three colours, or frames that do not fill their tubelets.
        """
        require_rgb(frames, self.name)
        b, t = frames.shape[:2]
        tubelet = self.network.config.tubelet_size
        if t == 0 or t % tubelet:
            raise BadInputError(f"encoder '{self.name}': expected a multiple of {tubelet} frames in a clip, came {t}.")
        clips = self.pixels(frames.flatten(0, 1)).unflatten(0, (b, t))
        tokens = self.network(clips, skip_predictor=True).last_hidden_state.float()
        return tokens.unflatten(1, (t // tubelet, self.grid**2))


def vjepa2_encoder(
    name: str, network: Any, preprocessing: Preprocessing, image_size: int | None, files: Sequence[Path]
) -> VJepa2Encoder:
    """Sizes from the network's configuration; raises as `wm.encoders.public.picture_encoder`."""
    config = network.config
    grid = grid_of(name, preprocessing, config.patch_size, config.in_chans, config.crop_size)
    return VJepa2Encoder(name, network, preprocessing, image_size, grid, config.hidden_size, files)
