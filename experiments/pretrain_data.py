"""What `wm pretrain` learns from and watches its features on: an episode store, or a folder of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.datasets.reader import EpisodeStore
from wm.datasets.windows import held_out_episodes
from wm.encoders.base import Encoder
from wm.errors import BadInputError
from wm.experiments.logs import HELD_OUT, SPLIT_SEED, load_frames, log_windows
from wm.experiments.pictures import PictureFolder, picture_files, read_pictures
from wm.experiments.train import MOST_PROBED, probe_targets
from wm.objectives.acjepa import HORIZON, AcjepaConfig
from wm.objectives.base import ObjectiveConfig, Pictures, Source
from wm.objectives.monitors import Watched

WATCHED, FITTED = 192, 512
"""Held-out frames that features are watched on, and others that probes are fitted to: few, for it is done often."""
LEAST_WATCHED = 32
"""Where fewer frames are held out, some that are trained on are watched too."""


@dataclass(frozen=True)
class PretrainData:
    """A run's samples, and the frames its features are watched on."""

    source: Source
    watched: Watched


def open_data(path: Path, encoder: Encoder, config: type[ObjectiveConfig]) -> EpisodeStore | PictureFolder:
    """The data that a path names, if it suits.

    Raises:
        StoreError: no readable store, and no pictures either.
        BadInputError: pictures of another size than the encoder's, or a folder of pictures for an objective that takes
            clips or actions.
    """
    if path.is_dir() and not (path / "zarr.json").exists() and _takes_pictures(path, config):
        return read_pictures(path, encoder.image_size)
    store = EpisodeStore(path)
    if store.spec.image_size != encoder.image_size:
        raise BadInputError(
            f"{path}: encoder '{encoder.name}' expects pictures of {encoder.image_size} px, "
            f"came {store.spec.image_size} px."
        )
    return store


def _takes_pictures(path: Path, config: type[ObjectiveConfig]) -> bool:
    if config.actions:
        if picture_files(path):
            raise BadInputError(
                f"{path}: objective '{config.name}' expects an episode store, with actions; came a folder of pictures."
            )
        return False
    return True


def require_single(path: Path, config: ObjectiveConfig) -> None:
    """Refuse a folder of pictures for an objective that takes clips.

    Raises:
        BadInputError: it does.
    """
    if config.frames > 1:
        raise BadInputError(
            f"{path}: objective '{config.name}' expects an episode store, for clips of {config.frames} frames; "
            "came a folder of pictures."
        )


def of_pictures(folder: PictureFolder) -> PretrainData:
    """Samples of a folder: single frames, some held out."""
    count = len(folder.frames)
    held = held_out_episodes(count, HELD_OUT, SPLIT_SEED)
    watched = _some(np.flatnonzero(held), np.flatnonzero(~held))[0]
    return PretrainData(
        Pictures(folder.frames, np.flatnonzero(~held)), Watched(torch.from_numpy(folder.frames[watched]))
    )


def of_store(
    store: EpisodeStore, config: ObjectiveConfig, episodes: int, frameskip: int, positive: int
) -> PretrainData:
    """Samples of a store's first episodes, some of which are held out.

    Args:
        store: Logged episodes.
        config: The objective.
        episodes: How many of them.
        frameskip: Control steps per latent step.
        positive: Control steps between the frames of temporal positives; 0: there are none.

    Raises:
        BadInputError: no episode long enough for a window, or none to hold out.
    """
    frames = load_frames(store, episodes)
    if isinstance(config, AcjepaConfig):
        strokes = config.form == "strokes"
        source: Source = log_windows(
            store, frames, history=config.history, horizon=HORIZON, frameskip=1 if strokes else frameskip,
            episodes=episodes, raw_actions=strokes,
        )[0]  # fmt: skip
    elif config.frames > 1:
        step = positive or (1 if store.spec.env.action.segment is not None else frameskip)
        source = log_windows(
            store, frames, history=1, horizon=config.frames - 1, frameskip=step, episodes=episodes
        )[0]  # fmt: skip
    else:
        source = Pictures(frames, _rows(store, episodes)[1])
    return PretrainData(source, _watched(store, frames, episodes))


def _watched(store: EpisodeStore, frames: np.ndarray, episodes: int) -> Watched:
    held, fitted = _some(*_rows(store, episodes))
    shown, others = torch.from_numpy(frames[held]), torch.from_numpy(frames[fitted])
    truth = _truth(store, np.concatenate([held, fitted]))
    if truth is None:
        return Watched(shown)
    return Watched(shown, others, truth[: len(held)], truth[len(held) :])


def _truth(store: EpisodeStore, rows: np.ndarray) -> Tensor | None:
    """What probes read, where there is something to read."""
    names = store.spec.env.state_names
    if not 0 < len(names) <= MOST_PROBED:
        return None
    state = store.all_state()[rows]
    seen = [i for i, name in enumerate(names) if "angle" in name or not name.rpartition("_")[2].startswith("v")]
    if np.ptp(state[:, seen], axis=0).max(initial=0.0) < 1e-9:
        return None
    return probe_targets(names, state)[1]


def _rows(store: EpisodeStore, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the held-out and of the other episodes' observations."""
    held = held_out_episodes(episodes, HELD_OUT, SPLIT_SEED)
    if not held.any():
        raise BadInputError(f"{store.path}: expected at least 2 episodes, of which one is held out, came {episodes}.")
    owners = np.repeat(np.arange(episodes), store.lengths[:episodes] + 1)
    return np.flatnonzero(held[owners]), np.flatnonzero(~held[owners])


def _some(held: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some rows to watch and some to fit probes to."""
    rng = np.random.default_rng(SPLIT_SEED)
    fitted = rng.permutation(others)[:FITTED]
    if len(held) < LEAST_WATCHED:
        held = np.concatenate([held, fitted[: LEAST_WATCHED - len(held)]])
    return np.sort(rng.permutation(held)[:WATCHED]), np.sort(fitted)


def provenance_of(data: EpisodeStore | PictureFolder, episodes: int) -> dict[str, Any]:
    """What the encoder's file says of its data."""
    if isinstance(data, EpisodeStore):
        return {"data": data.spec.recipe, "episodes": episodes}
    return {"data": {"pictures": len(data.frames), "skipped": len(data.skipped), "fingerprint": data.fingerprint}}
