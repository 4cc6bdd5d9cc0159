"""When a search stops: deadline and convergence."""

from __future__ import annotations

import math
import time

import torch
from jaxtyping import Bool
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.candidates import Best


class Clock:
    """Monotonic wall time of a search, and whether another iteration fits before the deadline.

    An iteration is expected to take as long as the slower of the last two.

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
        self._laps = [0.0, 0.0]

    def milliseconds(self) -> float:
        """Since the start."""
        return (time.perf_counter() - self._start) * 1e3

    def lap(self) -> None:
        """An iteration has ended."""
        now = time.perf_counter()
        self._laps = [self._laps[1], (now - self._lap_start) * 1e3]
        self._lap_start = now

    def fits(self, iterations: int) -> bool:
        """So many more iterations are expected to end before the deadline."""
        return self.milliseconds() + iterations * max(self._laps) <= self._deadline_ms


class Progress:
    """Which problems are still getting better.

    A problem has converged when, for ``patience`` iterations, neither its violation fell nor its energy by more than
    ``rtol`` of what it was when it last did. Each problem is judged alone, so that a batch changes nothing.
    """

    def __init__(self, best: Best, rtol: float | int, patience: int) -> None:
        self._rtol, self._patience = rtol, patience
        self._violation, self._energy = best.violation, best.energy
        self._stalled = torch.zeros_like(best.energy, dtype=torch.long)
        self.all_active = self.any_active = True
        self.active: Bool[Tensor, " B"] = torch.ones_like(best.energy, dtype=torch.bool)

    def update(self, best: Best) -> None:
        """Take the best after another iteration into account."""
        step = self._rtol * self._energy.abs()
        target = torch.where(torch.isfinite(self._energy), self._energy - step, self._energy)
        better = (best.violation < self._violation) | ((best.violation == self._violation) & (best.energy < target))
        self._violation = torch.where(better, best.violation, self._violation)
        self._energy = torch.where(better, best.energy, self._energy)
        self._stalled = torch.where(better, 0, self._stalled + 1)
        self.active = self.active & (self._stalled < self._patience)
        self.all_active, self.any_active = bool(self.active.all()), bool(self.active.any())
