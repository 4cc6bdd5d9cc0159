"""Target arrangements of the chips: a square, a disc, two piles, a letter, somewhere on the table.

A goal is a state, so that its picture is drawn like any other, and its chips can lie there: they are spread evenly over
the target region, about as close as the blade pushes them together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from wm.envs.chips.physics import PARKED, TABLE_HALF, ChipsPhysics
from wm.errors import UnknownNameError

SPACING = 0.023
"""The square root of a chip's share of the target region, m."""

_GRAIN, _ROUNDS = 0.004, 15  # m between the points that stand for the region; rounds of Lloyd's algorithm

_MARGIN = 0.03  # m between the target region and the rim
_PILES_APART = 2.6  # distance of the two piles' middles in radii
_LETTER_HEIGHT = 0.24  # m, of the letter's lines for 50 chips; it grows with the square root of their number

_LETTERS: dict[str, list[tuple[float, ...]]] = {
    "C": [(0.7, 1, 0, 1, 0, 0, 0.7, 0)],
    "H": [(0, 0, 0, 1), (0.7, 0, 0.7, 1), (0, 0.5, 0.7, 0.5)],
    "L": [(0, 1, 0, 0, 0.7, 0)],
    "N": [(0, 0, 0, 1, 0.7, 0, 0.7, 1)],
    "O": [(0, 0, 0.7, 0, 0.7, 1, 0, 1, 0, 0)],
    "T": [(0, 1, 0.8, 1), (0.4, 1, 0.4, 0)],
    "U": [(0, 1, 0, 0, 0.7, 0, 0.7, 1)],
    "V": [(0, 1, 0.4, 0, 0.8, 1)],
    "X": [(0, 0, 0.7, 1), (0, 1, 0.7, 0)],
    "Z": [(0, 1, 0.7, 1, 0, 0, 0.7, 0)],
}
"""Corners x, y, x, y, … of each line of a letter one unit high."""

Region = Callable[[np.ndarray], np.ndarray]
"""Points ``(k, 2)`` [m, from the region's middle] to whether they are inside, ``(k,)``."""

SHAPES: tuple[str, ...] = ("square", "disc", "two-piles", *sorted(_LETTERS))


def target_state(shape: str, chips: int, boxes: int, rng: np.random.Generator) -> np.ndarray:
    """A goal: all chips in a target region at a random place of the table.

    Args:
        shape: One of `SHAPES`; a capital letter stands for itself.
        chips: Number of chips n; which of them lies where is random.
        boxes: How many of them are boxes.
        rng: Of the place.

    Returns:
        ``(3 + 3 n,)`` poses of blade (parked) and chips [m, rad], at rest without touching more than a pile does.

    Raises:
        UnknownNameError: no such shape.
        BadInputError: as `ChipsPhysics`.
    """
    if shape not in SHAPES:
        raise UnknownNameError("goal shape", shape, SHAPES)
    physics, places = ChipsPhysics(chips, boxes), _filled(shape, chips, rng)
    reach = TABLE_HALF - _MARGIN - np.abs(places).max(0)
    places = rng.permutation(places + rng.uniform(-reach, reach))
    physics.set_state(np.concatenate([PARKED, np.column_stack([places, np.zeros(chips)]).ravel()]))
    physics.settle()
    return physics.state()[: physics.width]


def _filled(shape: str, chips: int, rng: np.random.Generator) -> np.ndarray:
    """``(n, 2)`` places spread evenly over the shape (Lloyd 1982), around its middle."""
    steps = np.arange(-0.3, 0.3, _GRAIN) + _GRAIN / 2
    grains = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    grains = grains[_region(shape, chips * SPACING**2, rng.uniform(-np.pi, np.pi))(grains)]
    places = rng.choice(grains, chips, replace=False)
    for _ in range(_ROUNDS):
        owner = cKDTree(places).query(grains)[1]
        share = np.bincount(owner, minlength=chips)
        places = np.stack([np.bincount(owner, grains[:, axis], chips) / share for axis in (0, 1)], 1)
    return places - (places.max(0) + places.min(0)) / 2


def _region(shape: str, area: float, direction: float) -> Region:
    """The region of about this area [m²]; `direction` [rad] is that of the two piles."""
    if shape == "square":
        return lambda points: np.abs(points).max(1) < np.sqrt(area) / 2
    if shape == "disc":
        return lambda points: np.linalg.norm(points, axis=1) < np.sqrt(area / np.pi)
    if shape == "two-piles":
        radius = np.sqrt(area / (2 * np.pi))
        offset = _PILES_APART / 2 * radius * np.array([np.cos(direction), np.sin(direction)])
        return lambda points: np.minimum(*(np.linalg.norm(points - at, axis=1) for at in (offset, -offset))) < radius
    lines = _lines(shape) * _LETTER_HEIGHT * np.sqrt(area / (50 * SPACING**2))
    width = area / np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1).sum()
    return lambda points: _distance(points, lines) < width / 2


def _lines(letter: str) -> np.ndarray:
    """``(k, 2, 2)`` line segments of a letter one unit high, around its middle."""
    segments = []
    for corners in _LETTERS[letter]:
        points = np.array(corners).reshape(-1, 2)
        segments += list(np.stack([points[:-1], points[1:]], 1))
    lines = np.array(segments)
    return lines - (lines.max((0, 1)) + lines.min((0, 1))) / 2


def _distance(points: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """``(k,)`` distance of each point to the nearest of the segments."""
    start, way = lines[:, 0], lines[:, 1] - lines[:, 0]
    offset = points[:, None] - start
    along = np.clip((offset * way).sum(-1) / (way * way).sum(-1), 0.0, 1.0)
    return np.linalg.norm(offset - along[..., None] * way, axis=-1).min(1)
