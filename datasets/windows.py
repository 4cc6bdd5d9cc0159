"""Training windows: which observations and actions belong together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from wm.errors import BadInputError


class WindowIndex:
    """All windows of ``history`` context frames and ``horizon`` latent steps ahead.

    A window begins at any control step of an episode and spans ``(history - 1 + horizon) * frameskip`` control steps,
    all inside that episode. It sees ``history + horizon`` observations, ``frameskip`` control steps apart, and the
    ``history + horizon - 1`` latent steps' actions between them.

    Args:
        lengths: ``(E,)`` int, T of each episode of the store (`EpisodeStore.lengths`).
        history: Context frames, >= 1.
        horizon: Latent steps ahead, >= 1.
        frameskip: Control steps per latent step, >= 1.
        episodes: Indices of the episodes to use; all when None. The others still count in the offsets.

    Attributes:
        episodes: Sorted indices of the episodes in use, ``(E',)`` int64.
        span: Control steps that a window spans.

    Raises:
        BadInputError: a setting below 1, an episode that does not exist, or no episode long enough for a window.
    """

    def __init__(
        self, lengths: np.ndarray, history: int, horizon: int, frameskip: int, episodes: np.ndarray | None = None
    ) -> None:
        for name, value in {"history": history, "horizon": horizon, "frameskip": frameskip}.items():
            if value < 1:
                raise BadInputError(f"windows: expected {name} >= 1, came {value}.")
        self.lengths = np.asarray(lengths, np.int64)
        self.history, self.horizon, self.frameskip = history, horizon, frameskip
        self.span = (history - 1 + horizon) * frameskip
        self.episodes = np.arange(len(self.lengths)) if episodes is None else np.unique(np.asarray(episodes, np.int64))
        if len(self.episodes) and not 0 <= self.episodes[0] <= self.episodes[-1] < len(self.lengths):
            raise BadInputError(f"windows: expected episodes in 0 … {len(self.lengths) - 1}, came {self.episodes}.")
        per_episode = np.maximum(0, self.lengths[self.episodes] - self.span + 1)
        self._ends = np.cumsum(per_episode)  # windows up to and with each episode in use
        self._firsts = self._ends - per_episode
        if len(self) == 0:
            longest = int(self.lengths[self.episodes].max(initial=0))
            raise BadInputError(f"windows: expected an episode of at least {self.span} control steps, came {longest}.")
        self._action_offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._observation_offsets = np.concatenate([[0], np.cumsum(self.lengths + 1)])

    def __len__(self) -> int:
        """Number of windows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def split(self, fraction: float, seed: int) -> tuple[WindowIndex, WindowIndex]:
        """Train and held-out windows, split by episode; see `held_out_episodes`."""
        held = held_out_episodes(len(self.lengths), fraction, seed)[self.episodes]
        return self._only(self.episodes[~held]), self._only(self.episodes[held])

    def locate(self, windows: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Episode and first control step of windows given by number, 0 to len - 1."""
        place = np.searchsorted(self._ends, windows, side="right")
        return self.episodes[place], windows - self._firsts[place]

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Episode and first control step of ``n`` windows, uniform over all windows, with replacement."""
        return self.locate(rng.integers(0, len(self), n))

    def observation_index(
        self, episodes: Int[np.ndarray, " n"], starts: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, "n frames"]:
        """Rows of the concatenated observations, ``(n, history + horizon)`` int64."""
        steps = np.arange(self.history + self.horizon) * self.frameskip
        return (self._observation_offsets[episodes] + starts)[:, None] + steps

    def action_index(
        self, episodes: Int[np.ndarray, " n"], starts: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, "n steps frameskip"]:
        """Rows of the concatenated actions, ``(n, history + horizon - 1, frameskip)`` int64, in control order."""
        steps = np.arange(self.span).reshape(-1, self.frameskip)
        return (self._action_offsets[episodes] + starts)[:, None, None] + steps

    def _only(self, episodes: np.ndarray) -> WindowIndex:
        return WindowIndex(self.lengths, self.history, self.horizon, self.frameskip, episodes)


def held_out_episodes(count: int, fraction: float, seed: int) -> np.ndarray:
    """Which episodes are held out, ``(count,)`` bool.

    Each episode draws its own number, so that episodes keep their side when the store grows. Both sides get at least
    one episode when 0 < fraction < 1 and there are two.

    Raises:
        BadInputError: a fraction outside [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise BadInputError(f"held-out fraction: expected 0 to 1, came {fraction}.")
    draws = np.random.default_rng(seed).random(count)
    held = draws < fraction
    if 0.0 < fraction < 1.0 and count >= 2:
        held[np.argmin(draws)], held[np.argmax(draws)] = True, False
    return held
