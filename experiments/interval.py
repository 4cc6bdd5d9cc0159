"""Intervals of success rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], z: float = Z95
) -> tuple[float, tuple[float, float]]:
    """Difference of two success rates on the same tasks, first minus second, and its interval; 95 % by default.

    The difference is the plain one. The interval is Agresti and Min's (2005, Statistics in Medicine 24:729-740): Wald's
    after adding half an observation to each of the four outcomes of a pair, which keeps its coverage where few pairs
    differ.

    Raises:
        ValueError: no pairs, or lists of different lengths.
    """
    pairs = list(zip(first, second, strict=True))
    if not pairs:
        raise ValueError("paired_difference: expected at least one pair, came none.")
    gained = sum(a and not b for a, b in pairs)
    lost = sum(b and not a for a, b in pairs)
    more, less, total = gained + 0.5, lost + 0.5, len(pairs) + 2.0
    centre = (more - less) / total
    half = z * math.sqrt(more + less - (more - less) ** 2 / total) / total
    return (gained - lost) / len(pairs), (max(-1.0, centre - half), min(1.0, centre + half))
