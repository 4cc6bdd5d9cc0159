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
from wm.patch_decoder import PatchDecoder
from wm.specs import require_equal

DECODER_FILE = "decoder.safetensors"
"""Name of the decoder's file beside its model's."""

_BACKGROUND_FRAMES = 256
_FOREGROUND = 12  # a pixel with a channel this far from the background counts as foreground, 0 … 255
_SAMPLED, _NEAR = 24, 6  # pixels of each kind per training frame, and how far "near the foreground" is, pixels
_CONSTANT = 1e-3  # a number of the state with a smaller standard deviation is not scaled up
_SWISH_GAIN = 1.7  # standard deviation of the weights times sqrt(fan-in) that keeps a SiLU network's signal alive
_SHARPNESS = 8.0  # scale of local coordinates, in half pictures


class Decoder(nn.Module):
    """State tokens to a picture: the colour at each place, as a difference to the background of the training frames.

    A network on coordinates (an implicit picture, as occupancy networks, Mescheder et al. 2019, arXiv 1812.03828, are
    implicit shapes). The state sets the origin and direction of a few frames of reference; a place's coordinates in all
    of them are what the colour depends on. So a thing is learned once, not anew wherever it may lie.

    Nothing saturates: a bounded output learns "background everywhere" and stays there.

    Args:
        tokens: N, state tokens per frame.
        width: D, numbers per state token.
        image_size: Side of the picture, pixels.
        frames: Frames of reference.
        hidden: Width of the layers on coordinates; those on the state are twice as wide.
    """

    kind = "decoder"
    sizes = ("tokens", "width", "image_size", "frames", "hidden")
    background: Tensor
    moments: Tensor

    def __init__(self, tokens: int, width: int, image_size: int = 96, frames: int = 6, hidden: int = 64) -> None:
        super().__init__()
        self.tokens, self.width, self.image_size, self.frames, self.hidden = tokens, width, image_size, frames, hidden
        numbers = tokens * width
        self.body = nn.Sequential(
            nn.Linear(numbers, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, 2 * hidden), nn.SiLU()
        )
        self.pose = nn.Linear(2 * hidden + numbers, 4 * frames)
        self.colour = nn.Sequential(
            nn.Linear(2 * frames, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 3),
        )  # fmt: skip
        _initialise(self)
        self.register_buffer("background", torch.full((image_size * image_size, 3), 0.5))
        self.register_buffer("moments", torch.stack([torch.zeros(numbers), torch.ones(numbers)]))

    def forward(self, states: Float[Tensor, "M N D"], pixels: Int64[Tensor, "M Q"]) -> Float[Tensor, "M Q 3"]:
        """Colours, 0 … 1 where the decoder is right; not clipped.

        Args:
            states: State tokens.
            pixels: Indices of the wanted pixels, row by row from the top left.
        """
        mean, std = self.moments
        vectors = (states.flatten(1) - mean) / std
        poses = self.pose(torch.cat([self.body(vectors), vectors], dim=-1)).unflatten(-1, (self.frames, 4))
        origin, direction = poses[:, None, :, :2], poses[:, None, :, 2:]
        direction = direction / (torch.linalg.vector_norm(direction, dim=-1, keepdim=True) + 1e-3)
        offset = self._places(pixels)[:, :, None] - origin  # (M, Q, frames, 2)
        along = (offset * direction).sum(-1)
        across = offset[..., 0] * direction[..., 1] - offset[..., 1] * direction[..., 0]
        return self.background[pixels] + self.colour(_SHARPNESS * torch.cat([along, across], dim=-1))

    def _places(self, pixels: Int64[Tensor, "M Q"]) -> Float[Tensor, "M Q 2"]:
        """Centres of pixels, x and y from -1 to 1."""
        row, column = pixels // self.image_size, pixels % self.image_size
        return (torch.stack([column, row], dim=-1) + 0.5) * (2 / self.image_size) - 1

    @torch.inference_mode()
    def pictures(self, states: Float[Tensor, "M N D"]) -> UInt8[np.ndarray, "M H W 3"]:
        """Pictures as uint8 RGB."""
        every = torch.arange(self.image_size**2)[None]
        colours = torch.cat([self(state[None], every) for state in states])
        size = (self.image_size, self.image_size)
        return (colours.clamp(0, 1) * 255).round().byte().unflatten(1, size).numpy()


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

    Loss: squared difference of the colours at random pixels: of each frame as many among those that differ from the
    background (the median frame), near those, and anywhere.

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
    chosen = np.random.default_rng(config.seed).choice(rows, min(_BACKGROUND_FRAMES, len(rows)), replace=False)
    background = np.median(np.stack([frames[row] for row in np.sort(chosen)]), axis=0)
    decoder.background.copy_(torch.from_numpy(background).float().reshape(-1, 3) / 255)
    known = states[torch.from_numpy(rows)].flatten(1)
    std = known.std(0, correction=0)
    decoder.moments.copy_(torch.stack([known.mean(0), torch.where(std < _CONSTANT, 1.0, std)]))
    foreground = _Foreground(frames, rows, background)

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        batch = rng.integers(0, len(rows), config.batch)
        pixels = foreground.pixels(rng, batch)
        target = np.stack([frames[row].reshape(-1, 3)[some] for row, some in zip(rows[batch], pixels, strict=True)])
        shown = decoder(states[torch.from_numpy(rows[batch])], torch.from_numpy(pixels))
        return (shown - torch.from_numpy(target).float() / 255).square().mean(), {}

    fit(decoder, loss, config, out, "decoder")
    return decoder


def save_decoder(decoder: Decoder | PatchDecoder, path: Path, model: str, provenance: dict[str, object]) -> None:
    """Write the decoder's weights.

    Args:
        decoder: Trained.
        path: The file, `DECODER_FILE` beside the model's.
        model: Fingerprint of the model whose states it decodes (`model_fingerprint`).
        provenance: Command, seed, versions.

    Raises:
        StoreError: the disk refuses.
    """
    sizes = {name: getattr(decoder, name) for name in decoder.sizes}
    header = {"kind": decoder.kind, "sizes": sizes, "model": model, "provenance": provenance}
    save_tensors(path, dict(decoder.state_dict()), header)


def load_decoder(path: Path, model: str) -> Decoder | PatchDecoder:
    """A decoder that `save_decoder` wrote, frozen.

    Args:
        path: The file.
        model: Fingerprint of the model whose states are to be decoded (`model_fingerprint`).

    Raises:
        CheckpointError: missing, truncated, not a decoder, or misshapen.
        MismatchError: the decoder of another model.
    """
    tensors, header = load_tensors(path)
    kinds: dict[object, type[Decoder] | type[PatchDecoder]] = {each.kind: each for each in (Decoder, PatchDecoder)}
    kind = kinds.get(header.get("kind"))
    if kind is None:
        raise CheckpointError(f"{path}: expected a decoder, came '{header.get('kind')}'.")
    require_equal("decoder of another model: model fingerprint", model, header["model"], path)
    if set(header["sizes"]) != set(kind.sizes):
        raise CheckpointError(
            f"{path}: expected a decoder with the sizes {kind.sizes}, came {sorted(header['sizes'])}."
        )
    decoder = kind(**header["sizes"])
    load_weights(decoder, tensors, path)
    return decoder.requires_grad_(False).eval()


class _Foreground:
    """Pixels of each training frame that differ from the background, and which pixels to train on.

    Args:
        frames: ``(O, H, W, 3)`` RGB.
        rows: Frames to look at.
        background: ``(H, W, 3)``.
    """

    def __init__(self, frames: np.ndarray, rows: np.ndarray, background: np.ndarray) -> None:
        self.size = frames.shape[1]
        still, found = background.round().astype(np.int16), []
        for row in rows:
            differs = (np.abs(frames[row].astype(np.int16) - still) > _FOREGROUND).any(-1)
            found.append(np.flatnonzero(differs).astype(np.int32))
        self.counts = np.array([len(each) for each in found])
        self.starts = np.cumsum(self.counts) - self.counts
        self.found = np.concatenate([*found, np.zeros(1, np.int32)])  # a last one, so that an empty list can be read

    def pixels(self, rng: np.random.Generator, batch: Int64[np.ndarray, " M"]) -> Int64[np.ndarray, "M Q"]:
        """Random pixels of frames, `batch` counting in the rows: on the foreground, near it, and anywhere."""
        shape = (len(batch), _SAMPLED)
        on, near = self._on(rng, batch, shape), self._on(rng, batch, shape)
        row = (near // self.size + rng.integers(-_NEAR, _NEAR + 1, shape)).clip(0, self.size - 1)
        column = (near % self.size + rng.integers(-_NEAR, _NEAR + 1, shape)).clip(0, self.size - 1)
        anywhere = rng.integers(0, self.size**2, shape)
        return np.concatenate([on, row * self.size + column, anywhere], axis=1)

    def _on(self, rng: np.random.Generator, batch: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        counts = self.counts[batch][:, None]
        place = self.starts[batch][:, None] + (rng.random(shape) * counts).astype(np.int64)
        return np.where(counts > 0, self.found[place], rng.integers(0, self.size**2, shape))


def _initialise(decoder: Decoder) -> None:
    """Weights that pass on what differs between states; the picture begins as the background."""
    for layer in decoder.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=_SWISH_GAIN / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)
    first, last = decoder.colour[0], decoder.colour[-1]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    nn.init.normal_(first.bias)
    nn.init.zeros_(last.weight)
    nn.init.normal_(decoder.pose.weight, std=0.5 / decoder.pose.in_features**0.5)
