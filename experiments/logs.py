"""From an episode store to the plain arrays and windows that training takes."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from wm.datasets.reader import EpisodeStore
from wm.datasets.windows import WindowIndex
from wm.logs import Log, LogWindows, Moments

HELD_OUT = 0.05
"""Share of episodes kept out of training, for reports (evaluation uses fresh episodes on top)."""
SPLIT_SEED = 0


def load_frames(store: EpisodeStore, episodes: int) -> np.ndarray:
    """Frames of the first episodes in memory, ``(O, H, W, 3)`` uint8."""
    offsets, size = store.observation_offsets, store.spec.image_size
    frames = np.empty((int(offsets[episodes]), size, size, 3), np.uint8)
    with Progress(console=Console(stderr=True)) as progress:
        for episode in progress.track(range(episodes), description="read frames"):
            frames[offsets[episode] : offsets[episode + 1]] = store.frames(episode)
    return frames


def random_rows(windows: LogWindows, count: int) -> Tensor:
    """Random observation rows ``(count,)`` of the windows' own episodes."""
    episodes, starts = windows.sampler.sample(np.random.default_rng(0), count)
    return torch.from_numpy(windows.sampler.observation_index(episodes, starts)[:, 0])


def log_windows(
    store: EpisodeStore,
    observations: np.ndarray | Tensor,
    *,
    history: int,
    horizon: int,
    frameskip: int,
    episodes: int | None = None,
    raw_actions: bool = False,
) -> tuple[LogWindows, LogWindows]:
    """Training and held-out windows over an encoding of a store's frames, split by episode.

    Args:
        store: Episodes.
        observations: One row per observation of the store (or of its first `episodes`).
        history: Context frames.
        horizon: Latent steps ahead.
        frameskip: Control steps per latent step.
        episodes: Use the first ones only.
        raw_actions: Leave actions as they are (for predictors that know what they mean).
    """
    actions, proprio = store.all_actions(), store.all_proprio()
    lengths = store.lengths[:episodes]
    train, held_out = WindowIndex(lengths, history, horizon, frameskip).split(HELD_OUT, SPLIT_SEED)
    of_actions = Moments.none(actions.shape[1]) if raw_actions else Moments.of(actions)
    moments = of_actions, None if proprio is None else Moments.of(proprio)
    log = Log(observations, proprio, actions)
    return LogWindows(log, train, *moments), LogWindows(log, held_out, *moments)
