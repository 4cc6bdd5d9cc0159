"""A fixed rate on the monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Callable

CHUNK_S = 0.01
"""Longest single sleep: how often `Ticker.wait` looks around."""

SLACK_S = 0.002
SHORT_S = 0.0005
"""The last `SLACK_S` before a deadline are slept in pieces of `SHORT_S`, since a long sleep may overshoot."""

ROUNDING = 1e-6
"""A period that began less than this share of itself ago has not begun."""


class Ticker:
    """Deadlines at begin + k * period: no drift, and no burst after a delay.

    Args:
        period_s: Period [s], > 0.
        clock: Monotonic seconds.
        sleep: Sleeps for some seconds.
    """

    def __init__(self, period_s: float | int, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.period_s, self._clock, self._sleep = float(period_s), clock, sleep
        self.begin = clock()

    def due(self, k: int) -> float:
        """When period k begins, clock seconds."""
        return self.begin + k * self.period_s

    def wait(self, k: int, between: Callable[[], bool]) -> bool:
        """Sleep until period k begins; True if ``between``, called at least every `CHUNK_S`, ended the wait early."""
        while True:
            if between():
                return True
            left = self.due(k) - self._clock()
            if left <= 0:
                return False
            self._sleep(min(left - SLACK_S, CHUNK_S) if left > SLACK_S + SHORT_S else min(left, SHORT_S))

    def next(self, k: int) -> int:
        """The period after k; if that has already begun, the next one that has not."""
        return max(k + 1, math.ceil((self._clock() - self.begin) / self.period_s - ROUNDING))
