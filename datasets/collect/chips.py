"""A policy for the chips: random strokes, most of which meet some."""

from __future__ import annotations

import numpy as np

_TABLE_HALF_M = 0.25  # one action unit
_EDGE = 0.96  # no stroke begins or ends further out, action units
_NEAR_RIM = 0.7  # a chip further out than this is rather pushed inwards, action units
_GATHERING = 0.5  # share of the episodes that have piles
_PILE_EDGE_M = 0.17  # no pile's middle is further out than this along an axis


class RandomStrokePolicy:
    """Random strokes biased towards chips, seeded.

    With probability 0.8 a stroke is aimed at a chip: the blade is lowered 16 to 50 mm behind it and pushes 40 to 300 mm
    in a random direction; a chip near the rim is pushed inwards in three of four such strokes. Half of the aims are the
    chip with the most others within 60 mm out of four drawn ones, so that piles are met as well. All other strokes
    begin and end anywhere.

    In half of the episodes one to three points of the table gather chips: three of four aimed strokes push their chip
    towards one of the points, to within 40 mm of it or up to 120 mm short of it, so that the log has crowded places.

    Args:
        seed: Seed of everything random in it.
    """

    name = "random strokes"

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        piles = int(rng.integers(1, 4)) if rng.random() < _GATHERING else 0
        self.piles = rng.uniform(-_PILE_EDGE_M, _PILE_EDGE_M, (piles, 2))

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Stroke for a state.

        Args:
            state: ``(3 + 3 n,)``: x, y [m], angle [rad] of the blade and of each chip.

        Returns:
            ``(4,)`` float32 x0, y0, x1, y1 in [-1, 1], 0.25 m per unit.
        """
        rng = self.rng
        if rng.random() >= 0.8:
            return rng.uniform(-_EDGE, _EDGE, 4).astype(np.float32)
        chip = self._aim(state[3:].reshape(-1, 3)[:, :2])
        if len(self.piles) and rng.random() < 0.75:
            return self._gather(chip)
        angle = rng.uniform(-np.pi, np.pi)
        if np.abs(chip).max() > _NEAR_RIM * _TABLE_HALF_M and rng.random() < 0.75:
            angle = np.arctan2(-chip[1], -chip[0]) + rng.uniform(-1.0, 1.0)
        direction = np.array([np.cos(angle), np.sin(angle)])
        start = chip - rng.uniform(0.016, 0.05) * direction
        stroke = np.concatenate([start, start + rng.uniform(0.04, 0.3) * direction]) / _TABLE_HALF_M
        return np.clip(stroke, -_EDGE, _EDGE).astype(np.float32)

    def _gather(self, chip: np.ndarray) -> np.ndarray:
        """A stroke that pushes a chip towards a pile."""
        rng = self.rng
        way = self.piles[rng.integers(len(self.piles))] - chip
        distance = float(np.linalg.norm(way)) + 1e-9
        direction, length = way / distance, max(0.02, distance + rng.uniform(-0.12, 0.04))
        start = chip - rng.uniform(0.016, 0.05) * direction
        stroke = np.concatenate([start, chip + length * direction]) / _TABLE_HALF_M
        return np.clip(stroke, -_EDGE, _EDGE).astype(np.float32)

    def _aim(self, chips: np.ndarray) -> np.ndarray:
        """A chip's place ``(2,)``."""
        drawn = chips[self.rng.integers(len(chips), size=4)]
        if self.rng.random() < 0.5:
            return drawn[0]
        company = (np.linalg.norm(drawn[:, None] - chips, axis=-1) < 0.06).sum(1)
        return drawn[company.argmax()]
