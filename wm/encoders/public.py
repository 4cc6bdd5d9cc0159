"""Public checkpoints through `transformers`: DINOv2, DINOv3, I-JEPA; what they share with V-JEPA 2 and EfficientNet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wm.encoders.base import Encoder
from wm.encoders.preprocessing import Preprocessing
from wm.encoders.quicken import quicken
from wm.errors import BadInputError, CheckpointError
from wm.specs import EncoderSpec

_CHUNK = 8  # frames in the network at once: what passes between its layers stays in the processor's cache
_UNUSED = ("pooler.", "predictor.")  # parts of a checkpoint that no token comes from


class PublicEncoder(Encoder):
    """A frozen public network, kept by reference: its weights are not in `state_dict`, its name is in `spec`.

    Frames of any size are taken; the checkpoint's own preprocessing makes them square. A subclass says how tokens come
    out of the network.

    Args:
        name: Under which `wm.encoders.registry.load_public` finds it again.
        network: What computes the tokens, in float32 or bfloat16.
        preprocessing: The checkpoint's own.
        image_size: Side of the pictures that it is used with, pixels; the preprocessing's when None.
        grid: Side of the token grid.
        width: D.
        files: The files of its weights.
    """

    by_reference = True

    def __init__(
        self,
        name: str,
        network: nn.Module,
        preprocessing: Preprocessing,
        image_size: int | None,
        grid: int,
        width: int,
        files: Sequence[Path],
    ) -> None:
        super().__init__()
        self.name, self.grid, self.width = name, grid, width
        self.image_size = image_size or preprocessing.side
        self.preprocessing = preprocessing
        self._held = (network.requires_grad_(False).eval(),)  # in a tuple, so that it is no part of this module
        self._dtype = next(network.parameters()).dtype
        self._fingerprint = _digest(files, [asdict(preprocessing), str(self._dtype)])

    @property
    def network(self) -> Any:
        """The network."""
        return self._held[0]

    def tokens(self, pixels: Float[Tensor, "M 3 S S"]) -> Float[Tensor, "M N D"]:
        """Tokens of preprocessed pictures, row by row from the top left."""
        raise TypeError(f"{type(self).__name__} is abstract.")

    def forward(self, pixels: Tensor) -> Tensor:
        """Refused: training calls this, and a public encoder is not trained.

        Raises:
            BadInputError: always.
        """
        raise BadInputError(f"encoder '{self.name}': expected one of our own to train, a public one stays as it is.")

    def spec(self) -> EncoderSpec:
        """Name, sizes, and the fingerprint of weight files, preprocessing and number format."""
        return EncoderSpec(self.name, self.image_size, self.grid, self.width, self._fingerprint)

    @torch.inference_mode()
    def encode(self, frames: UInt8[Tensor, "B T H W C"]) -> Float[Tensor, "B T N D"]:
        """Tokens of raw RGB frames of any size, each of its frame alone.

        Raises:
            BadInputError: not three colours.
        """
        require_rgb(frames, self.name)
        parts = [self.tokens(self.pixels(part)).float() for part in frames.flatten(0, 1).split(_CHUNK)]
        return torch.cat(parts).unflatten(0, frames.shape[:2])

    def pixels(self, frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M 3 S S"]:
        """What the network sees, in its number format."""
        return self.preprocessing(frames).to(self._dtype)


class PictureEncoder(PublicEncoder):
    """DINOv2 (with and without registers), DINOv3 (ViT and ConvNeXt) and I-JEPA.

    Their normed patch tokens; class and register tokens, which come first, are left out.
    """

    def tokens(self, pixels: Float[Tensor, "M 3 S S"]) -> Float[Tensor, "M N D"]:
        """Tokens of preprocessed pictures, row by row from the top left."""
        return self.network(pixel_values=pixels).last_hidden_state[:, -(self.grid**2) :]


def picture_encoder(
    name: str, network: Any, preprocessing: Preprocessing, image_size: int | None, files: Sequence[Path]
) -> PictureEncoder:
    """Sizes from the network's configuration.

    Raises:
        CheckpointError: it takes other pictures than its preprocessing makes.
    """
    config = network.config
    if config.model_type == "dinov3_convnext":
        patch, width = 4 * 2 ** (len(config.depths) - 1), config.hidden_sizes[-1]
    else:
        patch, width = config.patch_size, config.hidden_size
    fixed = config.image_size if config.model_type == "ijepa" else None
    grid = grid_of(name, preprocessing, patch, config.num_channels, fixed)
    return PictureEncoder(name, network, preprocessing, image_size, grid, width, files)


def grid_of(name: str, preprocessing: Preprocessing, patch: int, channels: int, side: int | None = None) -> int:
    """Side of the token grid.

    Raises:
        CheckpointError: the network takes other pictures than the preprocessing makes.
    """
    if channels != 3:
        raise CheckpointError(f"encoder '{name}': expected a network of 3 colour channels, came {channels}.")
    if preprocessing.side % patch or side not in (None, preprocessing.side):
        wanted = f"{side} px" if side else f"a multiple of {patch} px"
        raise CheckpointError(
            f"encoder '{name}': expected pictures of {wanted}, its preprocessing makes {preprocessing.side} px."
        )
    return preprocessing.side // patch


def require_rgb(frames: Tensor, name: str) -> None:
    """Refuse other than three channels.

    Raises:
        BadInputError: names both.
    """
    if frames.shape[-1] != 3:
        raise BadInputError(f"encoder '{name}': expected RGB frames (3 channels), came {frames.shape[-1]} channels.")


def load_network(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """The network in a checkpoint's folder, `quicken`ed; safetensors only, no code of the checkpoint's own.

    Raises:
        CheckpointError: unreadable, corrupt, or without some of its weights.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        network, found = transformers.AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
        )
    except Exception as error:  # on broken files it raises nearly anything
        reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
        raise CheckpointError(f"encoder '{name}': {folder} cannot be read ({reason}).") from error
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(_UNUSED))
    if missing:
        raise CheckpointError(
            f"encoder '{name}': {folder} lacks the weights {', '.join(missing[:5])} ({len(missing)} in all)."
        )
    quicken(network)
    return network


def _digest(files: Sequence[Path], more: object) -> str:
    """SHA-256 over files and JSON values, the first 16 hex digits."""
    digest = hashlib.sha256(json.dumps(more).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
