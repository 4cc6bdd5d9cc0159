"""Logged arrays and the windows that training draws from them, as the core sees them (no files here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class WindowSampler(Protocol):
    """Draws windows of T frames, one latent step apart, that never cross an episode's end."""

    def sample(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Episodes ``(n,)`` and start steps ``(n,)`` of n windows."""

    def observation_index(self, episodes: np.ndarray, starts: np.ndarray) -> Int64[np.ndarray, "n T"]:
        """Rows of the concatenated observations."""

    def action_index(self, episodes: np.ndarray, starts: np.ndarray) -> Int64[np.ndarray, "n T-1 F"]:
        """Rows of the concatenated actions."""


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation per number, over a whole dataset (never per sample)."""

    mean: Float[Tensor, " K"]
    std: Float[Tensor, " K"]

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Moments of ``(rows, K)``; a constant number gets the standard deviation 1."""
        mean, std = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
        std = np.where(std < 1e-8, 1.0, std)
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(std).float())

    @classmethod
    def none(cls, width: int) -> Moments:
        """Those that leave values as they are."""
        return cls(torch.zeros(width), torch.ones(width))

    def normalise(self, values: Tensor) -> Tensor:
        """Raw to zero mean and unit standard deviation, over the last dimension."""
        return (values - self.mean) / self.std

    def restore(self, values: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return values * self.std + self.mean


@dataclass(frozen=True)
class Log:
    """A dataset's plain arrays, concatenated over episodes.

    Attributes:
        observations: ``(O, …)`` what is encoded: uint8 frames ``(O, H, W, 3)``, cached encoder tokens ``(O, N, D)``,
            or state tokens.
        proprio: ``(O, P)`` float32, or None.
        actions: ``(G, A / F)`` float32, raw units.
    """

    observations: np.ndarray | Tensor
    proprio: np.ndarray | None
    actions: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Windows drawn from a log: T frames and the T - 1 latent steps between them.

    Attributes:
        observations: ``(n, T, …)`` rows of `Log.observations`.
        proprio: ``(n, T, P)`` normalised, or None.
        actions: ``(n, T - 1, A)`` normalised.
        parts: Where it is of several sources, each one's own, whose observations follow each other in `observations`:
            worlds differ in actions and proprioception, which the whole then lacks.
    """

    observations: Tensor
    proprio: Tensor | None
    actions: Tensor
    parts: tuple[Batch, ...] = ()


@dataclass(frozen=True)
class LogWindows:
    """A log, where to cut windows from it, and the dataset-wide normalisation."""

    log: Log
    sampler: WindowSampler
    action_moments: Moments
    proprio_moments: Moments | None

    def draw(self, rng: np.random.Generator, n: int) -> Batch:
        """n random windows."""
        return self.cut(*self.sampler.sample(rng, n))

    def cut(self, episodes: np.ndarray, starts: np.ndarray) -> Batch:
        """Given windows."""
        rows = self.sampler.observation_index(episodes, starts)
        steps = self.sampler.action_index(episodes, starts)
        table = self.log.observations
        observations = torch.from_numpy(table[rows]) if isinstance(table, np.ndarray) else table[torch.from_numpy(rows)]
        proprio = None
        if self.log.proprio is not None and self.proprio_moments is not None:
            proprio = self.proprio_moments.normalise(torch.from_numpy(self.log.proprio[rows]))
        actions = self.action_moments.normalise(torch.from_numpy(self.log.actions[steps])).flatten(2)
        return Batch(observations, proprio, actions)


ALONE = 0.15
"""Share of windows whose context is the last frame repeated: what a controller has at an episode's first step."""


def window_states(windows: LogWindows, episodes: np.ndarray, starts: np.ndarray) -> tuple[Tensor, Tensor]:
    """State vectors ``(n, T, X)`` and normalised actions ``(n, T - 1, A)`` of windows of a table of states."""
    batch = windows.cut(episodes, starts)
    states = batch.observations.float()  # a table of many patches is kept in half the precision
    return (states if batch.proprio is None else torch.cat([states, batch.proprio], dim=-1)), batch.actions


def draw_states(windows: LogWindows, history: int, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
    """`window_states` of n random windows to train on; some have seen a single frame (`ALONE`)."""
    states, actions = window_states(windows, *windows.sampler.sample(rng, n))
    alone = torch.from_numpy(rng.random(n) < ALONE)
    states[alone, : history - 1] = states[alone, history - 1 : history]
    return states, actions
