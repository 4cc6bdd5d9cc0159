"""Hand-written gatherers: baselines that see the simulator's true state, and no picture. Nothing in them is learned."""

from __future__ import annotations

import numpy as np

from wm.envs.chips.metrics import chamfer
from wm.envs.chips.physics import BLADE_HALF_WIDTH, DISC_RADIUS, TABLE_HALF, chip_places

_BEHIND = 0.02  # m from the chip to where the blade is lowered behind it
_FRONT = 0.013  # m from the blade's middle to the chips before it
_AIMS = 12  # places of the target that a chip may be pushed to
_EDGE = TABLE_HALF - DISC_RADIUS


class GreedyGatherer:
    """Always the chip that is furthest from the target: push it from behind to the target's most deserted place.

    Args:
        goal: ``(3 + 3 n,)`` the target's poses; only where the chips are is used.
    """

    name = "greedy gatherer (sees the true state)"

    def __init__(self, goal: np.ndarray) -> None:
        self.target = chip_places(goal)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """The next stroke.

        Args:
            state: ``(3 + 3 n,)`` poses of blade and chips [m, rad].

        Returns:
            ``(4,)`` float32 x0, y0, x1, y1 in [-1, 1], 0.25 m per unit.
        """
        chips = chip_places(state)
        gaps = np.linalg.norm(chips[:, None] - self.target, axis=-1)
        furthest, deserted = gaps.min(1).argmax(), gaps.min(0).argmax()
        start, end = _strokes(chips[[furthest]], self.target[[deserted]])
        return _action(start[0], end[0])


class SweepGatherer:
    """Always the stroke that promises the smallest Chamfer distance right after it, out of hundreds.

    The strokes push a chip to a place of the target, every chip to a dozen random ones. The promise is a rule of thumb
    in place of a simulator: chips in the blade's lane end in a row before it, all others stay.

    Args:
        goal: ``(3 + 3 n,)`` the target's poses; only where the chips are is used.
        seed: Of the places that are tried.
    """

    name = "sweep gatherer (sees the true state, looks one stroke ahead)"

    def __init__(self, goal: np.ndarray, seed: int = 0) -> None:
        self.target = chip_places(goal)
        self.rng = np.random.default_rng(seed)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """The next stroke; arguments and result are `GreedyGatherer`'s."""
        chips = chip_places(state)
        aims = self.target[self.rng.permutation(len(self.target))[:_AIMS]]
        start, end = _strokes(np.repeat(chips, len(aims), 0), np.tile(aims, (len(chips), 1)))
        best = int(chamfer(_swept(chips, start, end), self.target).argmin())
        return _action(start[best], end[best])


def _strokes(chips: np.ndarray, aims: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends, ``(k, 2)`` m each, of strokes from behind each chip until it is at its aim."""
    direction = aims - chips
    direction = direction / (np.linalg.norm(direction, axis=1, keepdims=True) + 1e-9)
    return np.clip(chips - _BEHIND * direction, -_EDGE, _EDGE), np.clip(aims - _FRONT * direction, -_EDGE, _EDGE)


def _swept(chips: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """``(k, n, 2)`` where the rule of thumb sees the chips ``(n, 2)`` after each of k strokes."""
    way = end - start
    length = np.linalg.norm(way, axis=1, keepdims=True) + 1e-9
    ahead = way / length
    left = np.stack([-ahead[:, 1], ahead[:, 0]], 1)
    offset = chips - start[:, None]
    along = np.einsum("kni,ki->kn", offset, ahead)
    aside = np.abs(np.einsum("kni,ki->kn", offset, left))
    pushed = (aside < BLADE_HALF_WIDTH) & (along > 0) & (along < length + _FRONT)
    return chips + np.where(pushed, length + _FRONT - along, 0.0)[..., None] * ahead[:, None]


def _action(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return (np.concatenate([start, end]) / TABLE_HALF).astype(np.float32)
