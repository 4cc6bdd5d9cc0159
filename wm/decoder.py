"""A small decoder from state tokens to pictures: only to look at what the model imagines, never used by planning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from wm.checkpoint import load_tensors, load_weights, save_tensors
from wm.encoders.base import fingerprint
from wm.errors import BadInputError, CheckpointError
from wm.fit import FitConfig, fit
from wm.model import WorldModel
from wm.specs import require_equal

DECODER_FILE = "decoder.safetensors"
"""Name of the decoder's file beside its model's."""

LARGEST_WEIGHT = 16.0
"""How much more than the commonest colour the rarest may count in the loss."""
_SAMPLED_FRAMES = 256  # for the background and the colours' frequencies
_CONSTANT = 1e-3  # a number of the state with a smaller standard deviation is not scaled up
_SHADES = 8  # of each channel, when colours are counted
_SWISH_GAIN = 1.7  # standard deviation of the weights times sqrt(fan-in) that keeps a SiLU network's signal alive


class Decoder(nn.Module):
    """State tokens to a picture, as a difference to the constant background of the training frames.

    One hidden layer, a linear layer to a grid of side `image_size` / 16, three doublings with convolutions, and a pixel
    shuffle (Shi et al. 2016, arXiv 1609.05158) to the full size. Nothing saturates: a bounded output learns "background
    everywhere" and stays there.

    Args:
        tokens: N, state tokens per frame.
        width: D, numbers per state token.
        image_size: Side of the picture, pixels; a multiple of 16.
        hidden: Width of the hidden layer.

    Raises:
        BadInputError: the picture size is not a multiple of 16.
    """

    background: Tensor
    moments: Tensor

    def __init__(self, tokens: int, width: int, image_size: int = 96, hidden: int = 128) -> None:
        super().__init__()
        if image_size < 16 or image_size % 16:
            raise BadInputError(f"decoder: expected a picture size that is a multiple of 16, came {image_size}.")
        self.tokens, self.width, self.image_size, self.hidden = tokens, width, image_size, hidden
        grid = image_size // 16
        self.place = nn.Sequential(
            nn.Linear(tokens * width, hidden), nn.SiLU(), nn.Linear(hidden, 24 * grid**2), nn.SiLU(),
            nn.Unflatten(1, (24, grid, grid)),
        )  # fmt: skip
        self.paint = nn.Sequential(
            *_doubled(24, 48), *_doubled(48, 32), *_doubled(32, 24), nn.Conv2d(24, 12, 3, padding=1)
        )
        _initialise(self)
        self.register_buffer("background", torch.full((3, image_size, image_size), 0.5))
        self.register_buffer("moments", torch.stack([torch.zeros(tokens * width), torch.ones(tokens * width)]))

    def forward(self, states: Float[Tensor, "M N D"]) -> Float[Tensor, "M 3 H W"]:
        """Colours, 0 … 1 where the decoder is right; not clipped."""
        mean, std = self.moments
        difference = self.paint(self.place((states.flatten(1) - mean) / std))
        return self.background + nn.functional.pixel_shuffle(difference, 2)

    @torch.inference_mode()
    def pictures(self, states: Float[Tensor, "M N D"]) -> UInt8[np.ndarray, "M H W 3"]:
        """Pictures as uint8 RGB."""
        return (self(states).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def model_fingerprint(model: WorldModel) -> str:
    """What a decoder belongs to: SHA-256 (first 16 hex digits) of the model's state head, which makes the states."""
    return fingerprint(model.joint.head)


def train_decoder(
    states: Float[Tensor, "O N D"],
    frames: UInt8[np.ndarray, "O H W 3"],
    config: FitConfig,
    out: Path,
    rows: Int64[np.ndarray, " R"] | None = None,
) -> Decoder:
    """Train a decoder on logged frames and their states.

    Loss: squared difference of the colours, where a colour that takes a share f of all pixels weighs f^-1/2 (relative
    to the commonest, and at most 16), so that small things count. Not the absolute difference, whose best guess for a
    small thing in an uncertain place is to leave it out.

    Writes `decoder.jsonl` and a checkpoint into `out`, and resumes from it (`wm.fit.fit`).

    Args:
        states: State tokens of every frame.
        frames: RGB; may be memory-mapped.
        config: Length, batch (frames) and seed of the run.
        out: Folder of the run.
        rows: Frames to train on; None means all.

    Raises:
        BadInputError: the sizes of states and frames do not agree, or the loss became non-finite.
        CheckpointError, MismatchError: a checkpoint in `out` is not of this run.
    """
    size = frames.shape[1]
    if len(states) != len(frames) or frames.shape[2] != size:
        raise BadInputError(f"decoder: expected {len(states)} square frames, came {frames.shape}.")
    rows = np.arange(len(frames)) if rows is None else rows
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        decoder = Decoder(states.shape[1], states.shape[2], size)
    chosen = np.random.default_rng(config.seed).choice(rows, min(_SAMPLED_FRAMES, len(rows)), replace=False)
    some = np.stack([frames[row] for row in np.sort(chosen)])
    decoder.background.copy_(_unit(np.median(some, axis=0)[None])[0])
    known = states[torch.from_numpy(rows)].flatten(1)
    std = known.std(0, correction=0)
    decoder.moments.copy_(torch.stack([known.mean(0), torch.where(std < _CONSTANT, 1.0, std)]))
    weights = _weights(some)

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        batch = np.sort(rng.choice(rows, config.batch))
        pictures = frames[batch]
        difference = decoder(states[torch.from_numpy(batch)]) - _unit(pictures)
        weight = torch.from_numpy(weights[_colours(pictures)])[:, None]
        return (weight * difference.square()).mean(), {"absolute": difference.detach().abs().mean()}

    fit(decoder, loss, config, out, "decoder")
    return decoder


def save_decoder(decoder: Decoder, path: Path, model: str, provenance: dict[str, object]) -> None:
    """Write the decoder's weights.

    Args:
        decoder: Trained.
        path: The file, `DECODER_FILE` beside the model's.
        model: Fingerprint of the model whose states it decodes (`model_fingerprint`).
        provenance: Command, seed, versions.

    Raises:
        StoreError: the disk refuses.
    """
    sizes = {name: getattr(decoder, name) for name in ("tokens", "width", "image_size", "hidden")}
    header = {"kind": "decoder", "sizes": sizes, "model": model, "provenance": provenance}
    save_tensors(path, dict(decoder.state_dict()), header)


def load_decoder(path: Path, model: str) -> Decoder:
    """A decoder that `save_decoder` wrote, frozen.

    Args:
        path: The file.
        model: Fingerprint of the model whose states are to be decoded (`model_fingerprint`).

    Raises:
        CheckpointError: missing, truncated, not a decoder, or misshapen.
        MismatchError: the decoder of another model.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != "decoder":
        raise CheckpointError(f"{path}: expected a decoder, came '{header.get('kind')}'.")
    require_equal("decoder of another model: model fingerprint", model, header["model"], path)
    decoder = Decoder(**header["sizes"])
    load_weights(decoder, tensors, path)
    return decoder.requires_grad_(False).eval()


def _doubled(inputs: int, outputs: int) -> list[nn.Module]:
    """Twice as many pixels a side, then a convolution."""
    return [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inputs, outputs, 3, padding=1), nn.SiLU()]


def _unit(frames: np.ndarray) -> Float[Tensor, "M 3 H W"]:
    """Colours 0 … 255 to 0 … 1, channels first."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def _colours(frames: UInt8[np.ndarray, "M H W 3"]) -> Int64[np.ndarray, "M H W"]:
    """Index of each pixel's coarse colour."""
    shades = frames.astype(np.int64) * _SHADES // 256
    return (shades[..., 0] * _SHADES + shades[..., 1]) * _SHADES + shades[..., 2]


def _weights(frames: UInt8[np.ndarray, "M H W 3"]) -> Float[np.ndarray, " K"]:
    """Weight of each coarse colour in the loss, 1 for the commonest."""
    counts = np.bincount(_colours(frames).ravel(), minlength=_SHADES**3)
    return np.minimum(np.sqrt(counts.max() / np.maximum(counts, 1)), LARGEST_WEIGHT).astype(np.float32)


def _initialise(decoder: Decoder) -> None:
    """Weights that pass the state's differences on to the last layer, which begins almost at the background."""
    layers = [layer for layer in decoder.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    for layer in layers:
        gain = 0.1 if layer is layers[-1] else _SWISH_GAIN
        nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
