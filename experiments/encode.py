"""`wm encode`: the tokens of a store's frames under a frozen encoder, made once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from wm.checkpoint import load_tensors, load_weights, save_tensors
from wm.datasets.features import Coding, feature_table
from wm.datasets.reader import EpisodeStore
from wm.encoders.base import Encoder, fingerprint
from wm.encoders.public import PublicEncoder
from wm.encoders.reduced import GRID, WIDTH, ReducedEncoder, coarser, fit_reduction
from wm.encoders.registry import load_encoder, load_public
from wm.experiments.options import at_least
from wm.model import WorldModel, load_model
from wm.patch_head import PatchHead
from wm.specs import EncoderSpec
from wm.state_head import StateHead
from wm.train import states_of

REDUCTION_FRAMES = 512
"""Frames that the reduction of a public encoder's tokens is fitted to."""


@dataclass
class Rate:
    """What was encoded in how long, reading and writing not counted."""

    frames: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.frames:,} frames encoded, {self.frames / max(self.seconds, 1e-9):,.1f} frames/s"


def open_encoder(name: str, image_size: int) -> tuple[Encoder, WorldModel | None]:
    """An encoder, and the model that it is part of where it was named by that.

    Args:
        name: A file of `wm pretrain` (encoder) or `wm refine` (model), or a public encoder's name or folder
            (`wm.encoders.registry.load_public`).
        image_size: Side of the pictures that it is to take, pixels (for a public one; ours have their own).

    Raises:
        CheckpointError: an unreadable file, or a public encoder that cannot be had.
        UnknownNameError: no such name.
    """
    path = Path(name)
    if not path.is_file() and path.suffix != ".safetensors":
        return load_public(name, image_size), None
    if load_tensors(path)[1].get("kind") != "world-model":
        return load_encoder(path), None
    model, _ = load_model(path)
    return model.encoder, model


def token_coding(encoder: Encoder, rate: Rate | None = None) -> Coding:
    """Frames to the encoder's tokens, in bfloat16; what was encoded is added to `rate`."""

    def encode(frames: Tensor) -> Tensor:
        start = time.perf_counter()
        tokens = encoder.encode(frames[None])[0]
        if rate is not None:
            rate.frames, rate.seconds = rate.frames + len(frames), rate.seconds + time.perf_counter() - start
        return tokens

    spec = encoder.spec()
    return Coding(encode, (spec.grid**2, spec.width), torch.bfloat16, {"encoder": spec.fingerprint})


def cache_folder(data: Path, spec: EncoderSpec, episodes: int) -> Path:
    """Where `wm encode` puts the tokens of a store's first episodes and `wm train` looks for them."""
    return data.parent / f"{data.name}.features" / f"{spec.fingerprint}-{episodes}"


def table(
    store: EpisodeStore,
    coding: Coding,
    folder: Path,
    title: str,
    episodes: int,
    rows: Callable[[int], Tensor] | None = None,
    batch: int | None = None,
) -> Tensor:
    """`feature_table` with a progress bar."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(title)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return feature_table(store, coding, folder, episodes=episodes, rows=rows, batch=batch, progress=advance)


def narrowed(encoder: Encoder, store: EpisodeStore, out: Path, episodes: int) -> Encoder:
    """The encoder itself; or, of a public one with many or wide tokens, a reduction (`wm.encoders.reduced`).

    Args:
        encoder: Any.
        store: The log whose frames the reduction is fitted to.
        out: Run folder, where it is kept.
        episodes: Only the log's first ones.
    """
    if not isinstance(encoder, PublicEncoder) or (encoder.grid <= GRID and encoder.width <= WIDTH):
        return encoder
    path, offsets = out / "reduction.safetensors", store.observation_offsets
    if not path.exists():
        rows = np.linspace(0, int(offsets[episodes]) - 1, REDUCTION_FRAMES).astype(int)
        owners = np.searchsorted(offsets, rows, side="right") - 1
        places = zip(owners.tolist(), (rows - offsets[owners]).tolist(), strict=True)
        frames = np.concatenate([store.frames(episode, at, at + 1) for episode, at in places])
        with Console(stderr=True).status("reduction: principal components of the tokens"):
            fitted = fit_reduction(encoder, torch.from_numpy(frames), GRID, WIDTH)
        save_tensors(path, dict(fitted.state_dict()), {"encoder": encoder.spec().to_json()})
    reduced = ReducedEncoder(encoder, coarser(encoder.grid, GRID), min(WIDTH, encoder.width))
    load_weights(reduced, load_tensors(path)[0], path)
    return reduced


def log_tokens(store: EpisodeStore, encoder: Encoder, data: Path, episodes: int) -> Tensor:
    """Tokens ``(O, N, D)`` of the first episodes' frames; reduced from those that `wm encode` left, where it did."""
    folder = cache_folder(data, encoder.spec(), episodes)
    if isinstance(encoder, ReducedEncoder):
        full = cache_folder(data, encoder.base.spec(), episodes)
        if (full / "table.json").exists():
            kept = table(store, token_coding(encoder.base), full, "encode", episodes)
            coding = replace(token_coding(encoder), encode=encoder.reduce)
            return table(store, coding, folder, "reduce", episodes, rows_of(store, kept))
    return table(store, token_coding(encoder), folder, "encode", episodes)


def log_states(
    store: EpisodeStore,
    encoder: Encoder,
    head: StateHead | PatchHead,
    folder: Path,
    episodes: int,
    title: str = "states",
) -> Tensor:
    """States ``(O, N * D)`` of the first episodes' frames, kept in a folder; of `wm.train.states_of`.

    A public encoder, which is slow, is not asked again for tokens that `log_tokens` has kept.

    Raises:
        MismatchError: the folder holds states of something else.
    """
    identity: dict[str, object] = {"encoder": encoder.spec().fingerprint, "head": fingerprint(head)}
    precision = torch.float32 if isinstance(head, StateHead) else torch.bfloat16  # many patches: half the memory
    coding = Coding(partial(states_of, encoder, head), (head.tokens * head.width,), precision, identity)
    if not encoder.by_reference:
        return table(store, coding, folder, title, episodes)
    known = log_tokens(store, encoder, store.path, episodes)
    coding = replace(coding, encode=lambda tokens: head(tokens.float()).flatten(1))
    return table(store, coding, folder, title, episodes, rows_of(store, known))


def rows_of(store: EpisodeStore, kept: Tensor) -> Callable[[int], Tensor]:
    """An episode's rows of a table over a store's observations."""
    offsets = store.observation_offsets
    return lambda episode: kept[int(offsets[episode]) : int(offsets[episode + 1])]


def run(data: Path, encoder: str, out: Path | None = None, episodes: int | None = None, batch: int = 64) -> str:
    """Encode a store's frames; what an interrupted call left is continued. Returns what was done, in a line.

    Raises:
        StoreError, CheckpointError, UnknownNameError: data or encoder cannot be read.
        BadInputError: a number is out of its range, or pictures of another size than the encoder's.
        MismatchError: `out` holds features of another encoder or of other data.
    """
    at_least(1, episodes=episodes, batch=batch)
    store = EpisodeStore(data)
    model, _ = open_encoder(encoder, store.spec.image_size)
    count, rate = min(episodes or len(store), len(store)), Rate()
    folder = out or cache_folder(data, model.spec(), count)
    found = table(store, token_coding(model, rate), folder, "encode", count, batch=batch)
    shape = f"{found.shape[0]:,} frames, {model.grid}x{model.grid} tokens of {model.width} numbers"
    return f"{folder}: {shape}; {rate if rate.frames else 'all encoded before'}."


def main(
    data: Annotated[Path, typer.Argument(help="Episode store.")],
    encoder: Annotated[str, typer.Option(help="File of `wm pretrain`, or a public encoder: see docs/encoders.md.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder; DATA.features/… when left out, where `wm train` looks.")
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="Encode the first episodes only.")] = None,
    batch: Annotated[int, typer.Option(help="Frames at a time.")] = 64,
) -> None:
    """Encode a store's frames once and keep the tokens; an interrupted run is continued."""
    print(run(data, encoder, out, episodes, batch))
