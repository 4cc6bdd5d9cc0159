"""What `wm pretrain` learns from and watches its features on: an episode store, or a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from wm.logs import LogWindows
from wm.objectives.acjepa import HORIZON
from wm.objectives.base import Mixture, ObjectiveConfig, Pictures, Source
from wm.objectives.monitors import Watched

WATCHED, FITTED = 192, 512
"""Held-out frames that features are watched on, and others that probes are fitted to: few, for it is done often."""
LEAST_WATCHED = 32
"""Where fewer frames are held out, some that are trained on are watched too."""


@dataclass(frozen=True)
class Sampling:
    """What is taken of a store.

    Attributes:
        episodes: Its first ones, as many as there are at most.
        frameskip: Control steps per latent step; a stroke is one.
        positive: Control steps between the frames of temporal positives; 0: there are none.
    """

    episodes: int
    frameskip: int
    positive: int

    def of(self, store: EpisodeStore) -> int:
        """How many episodes."""
        return min(self.episodes, len(store))


@dataclass(frozen=True)
class PretrainData:
    """A run's samples, and the frames its features are watched on, of each source."""

    source: Source
    watched: tuple[Watched, ...]


def open_data(
    paths: Sequence[Path], encoder: Encoder, config: type[ObjectiveConfig]
) -> list[EpisodeStore] | PictureFolder:
    """The data that paths name, if it suits.

    Raises:
        StoreError: no readable store, and no pictures either.
        BadInputError: pictures of another size than the encoder's; a folder of pictures for an objective that takes
            clips or actions, or beside other data.
    """
    folders = [path for path in paths if path.is_dir() and not (path / "zarr.json").exists()]
    for path in folders:
        if _takes_pictures(path, config):
            if len(paths) > 1:
                raise BadInputError(f"{path}: expected one folder of pictures, or episode stores; came several.")
            return read_pictures(path, encoder.image_size)
    return [_open_store(path, encoder) for path in paths]


def _open_store(path: Path, encoder: Encoder) -> EpisodeStore:
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
        Pictures(folder.frames, np.flatnonzero(~held)), (Watched(torch.from_numpy(folder.frames[watched])),)
    )


def of_stores(stores: Sequence[EpisodeStore], config: ObjectiveConfig, sampling: Sampling) -> PretrainData:
    """Samples of stores' first episodes, some of which are held out; of several stores as many of each.

    Raises:
        BadInputError: no episode long enough for a window, or none to hold out.
    """
    sources, watched = [], []
    for store in stores:
        episodes = sampling.of(store)
        frames = load_frames(store, episodes)
        sources.append(_source(store, frames, episodes, config, sampling))
        watched.append(_watched(store, frames, episodes))
    return PretrainData(sources[0] if len(sources) == 1 else Mixture(tuple(sources)), tuple(watched))


def _source(
    store: EpisodeStore, frames: np.ndarray, episodes: int, config: ObjectiveConfig, sampling: Sampling
) -> LogWindows | Pictures:
    if config.frames == 1:
        return Pictures(frames, _rows(store, episodes)[1])
    strokes = store.spec.env.action.segment is not None
    step, history, horizon = sampling.positive or (1 if strokes else sampling.frameskip), 1, config.frames - 1
    if config.actions:
        history, horizon = config.frames - HORIZON, HORIZON
    try:
        return log_windows(
            store, frames, history=history, horizon=horizon, frameskip=step, episodes=episodes,
            raw_actions=config.actions and strokes,
        )[0]  # fmt: skip
    except BadInputError as error:
        raise BadInputError(f"{store.path}: {error}") from error


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


def identity_of(data: Sequence[EpisodeStore] | PictureFolder, sampling: Sampling) -> dict[str, Any]:
    """JSON values of the data that a run is known by."""
    if isinstance(data, PictureFolder):
        return {"data": data.fingerprint, "pictures": len(data.frames)}
    return _of_each({"data": store.fingerprint(), "episodes": sampling.of(store)} for store in data)


def provenance_of(data: Sequence[EpisodeStore] | PictureFolder, sampling: Sampling) -> dict[str, Any]:
    """What the encoder's file says of its data."""
    if isinstance(data, PictureFolder):
        return {"data": {"pictures": len(data.frames), "skipped": len(data.skipped), "fingerprint": data.fingerprint}}
    said = ({"data": {"env": store.spec.env.env} | store.spec.recipe, "episodes": sampling.of(store)} for store in data)
    return _of_each(said)


def _of_each(said: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Of one store what is said of it; of several lists of that."""
    first, *others = said
    return {key: [first[key], *(other[key] for other in others)] for key in first} if others else first
