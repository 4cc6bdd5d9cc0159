"""Interval of a success rate."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22:209-212); 95 % by default.

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 or all successes.

    Args:
        successes: 0 … trials.
        trials: >= 1.
        z: Normal quantile of the wanted coverage.

    Raises:
        ValueError: a number is out of its range.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson: expected 0 <= successes <= trials >= 1, came {successes} of {trials}.")
    share, square = successes / trials, z * z
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    half = z * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials)) / (1 + square / trials)
    # At the two ends the bound is exact, which rounding would miss.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)
