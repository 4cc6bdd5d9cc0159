"""When a search stops: deadline and convergence."""

from __future__ import annotations

import math
import time
from collections import deque

import torch
from jaxtyping import Bool
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.candidates import Best

SOUNDING = 32
"""Candidates of the first rollout under a deadline: few, since nothing is known yet of how long they take."""


class Clock:
    """Monotonic wall time of a search, and how many candidates fit before its deadline.

    A candidate is expected to take what it took in the last two laps, and no lap to be shorter than the shortest: a
    rollout of few candidates takes about as long as one of a dozen. All of a search's time belongs to some lap.

    Args:
        deadline_ms: Milliseconds from now, >= 0, or None for no deadline.

    Raises:
        BadInputError: the deadline is negative or NaN.
    """

    def __init__(self, deadline_ms: float | int | None) -> None:
        if deadline_ms is not None and not deadline_ms >= 0:
            raise BadInputError(f"deadline_ms must be >= 0, came {deadline_ms}.")
        self._deadline_ms = math.inf if deadline_ms is None else deadline_ms
        self._start = self._lap_start = time.perf_counter()
        self._laps: deque[tuple[int, float]] = deque(maxlen=2)  # candidates and milliseconds
        self._shortest = math.inf

    def milliseconds(self) -> float:
        """Since the start."""
        return (time.perf_counter() - self._start) * 1e3

    def lap(self, candidates: int) -> None:
        """So many candidates, >= 1, were rolled out since the last lap."""
        now = time.perf_counter()
        milliseconds = (now - self._lap_start) * 1e3
        self._laps.append((candidates, milliseconds))
        self._shortest, self._lap_start = min(self._shortest, milliseconds), now

    def fits(self, candidates: int) -> bool:
        """All of these candidates are expected to be rolled out before the deadline; true before the first lap."""
        if not self._laps:
            return True
        return self._left() >= max(self._shortest, candidates * self._pace())

    def room(self, candidates: int) -> int:
        """How many of so many candidates to roll out together; 0 where none are expected to fit.

        All, where they fit. Otherwise what takes half of the time left, and at least about `SOUNDING`: so the last
        rollouts before the deadline are short, and an expectation that was wrong costs little. Before the first lap it
        is `SOUNDING`, whatever the deadline; without one it is all.
        """
        left = self._left()
        if left == math.inf:
            return candidates
        if not self._laps:
            return min(candidates, SOUNDING)
        if self.fits(candidates):
            return candidates
        if left < self._shortest:
            return 0
        fitting = left / self._pace()
        return int(max(fitting / 2, min(SOUNDING, fitting)))

    def _left(self) -> float:
        return self._deadline_ms - self.milliseconds()

    def _pace(self) -> float:
        """Milliseconds a candidate."""
        return sum(lap[1] for lap in self._laps) / sum(lap[0] for lap in self._laps)


class Progress:
    """Which problems are still getting better.

    A problem has converged when, for ``patience`` iterations, neither its violation fell nor its energy by more than
    ``rtol`` of what it was when it last did; or as soon as its best is feasible and its energy ``enough`` or less. Each
    problem is judged alone, so that a batch changes nothing.
    """

    def __init__(self, best: Best, rtol: float | int, patience: int, enough: float = -math.inf) -> None:
        self._rtol, self._patience, self._enough = rtol, patience, enough
        self._violation, self._energy = best.violation, best.energy
        self._stalled = torch.zeros_like(best.energy, dtype=torch.long)
        self.active: Bool[Tensor, " B"] = torch.ones_like(best.energy, dtype=torch.bool)
        self._end(best)

    def update(self, best: Best) -> None:
        """Take the best after another iteration into account."""
        step = self._rtol * self._energy.abs()
        target = torch.where(torch.isfinite(self._energy), self._energy - step, self._energy)
        better = (best.violation < self._violation) | ((best.violation == self._violation) & (best.energy < target))
        self._violation = torch.where(better, best.violation, self._violation)
        self._energy = torch.where(better, best.energy, self._energy)
        self._stalled = torch.where(better, 0, self._stalled + 1)
        self.active = self.active & (self._stalled < self._patience)
        self._end(best)

    def _end(self, best: Best) -> None:
        enough = best.feasible & (best.energy <= self._enough)
        self.active = self.active & ~enough
        self.all_active, self.any_active = bool(self.active.all()), bool(self.active.any())
        self.all_enough = bool(enough.all())
