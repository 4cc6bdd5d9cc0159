"""How far chips are from a target arrangement, and when that counts as reached; which chip lies where never matters."""

from __future__ import annotations

import numpy as np

from wm.envs.chips.physics import chip_places

SUCCESS_CHAMFER = 0.012
"""A Chamfer distance below this is success, m: two thirds of a chip's width."""

COVERED = 0.018
"""A place of the target is covered when a chip's centre is nearer than this, m: one chip's width."""


def chamfer(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Chamfer distance of two sets of points: the mean of both directions' mean distance to the nearest point.

    1/2 (mean_a min_b ‖a - b‖ + mean_b min_a ‖a - b‖); symmetric, zero for equal sets. Not squared: metres. (The sum of
    the two means, which others report, is twice as much; fractions of the start's are the same.)

    Args:
        one: ``(..., n, 2)`` m.
        other: ``(..., m, 2)`` m; leading dimensions broadcast.

    Returns:
        ``(...)`` m.
    """
    gaps = _gaps(one, other)
    return np.asarray((gaps.min(-1).mean(-1) + gaps.min(-2).mean(-1)) / 2)


def coverage(chips: np.ndarray, target: np.ndarray) -> float:
    """Share of the target's places, ``(m, 2)``, that a chip out of ``(n, 2)`` covers (nearer than 18 mm)."""
    return float((_gaps(chips, target).min(0) < COVERED).mean())


def reached(state: np.ndarray, goal: np.ndarray) -> bool:
    """The Chamfer distance of two states' chips is below 12 mm; it is the same with state and goal exchanged.

    Args:
        state: ``(3 + 3 n,)`` poses of blade and chips.
        goal: ``(3 + 3 m,)`` the same.
    """
    return bool(chamfer(chip_places(state), chip_places(goal)) < SUCCESS_CHAMFER)


def _gaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances ``(..., n, m)``."""
    delta = np.asarray(one)[..., :, None, :] - np.asarray(other)[..., None, :, :]
    return np.sqrt(np.einsum("...i,...i->...", delta, delta))
