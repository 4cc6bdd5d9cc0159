"""The chips' picture: the table from above, by an anti-aliased rasteriser or by MuJoCo's own renderer.

Learned models see the rasteriser's pictures, by default and everywhere. They are the better ones: filled at four times
the final size and averaged down, so that a chip moved by a quarter of a pixel changes the picture (MuJoCo's, without
multisampling, has steps of a whole pixel), and the same to the last bit with any graphics driver or none.
"""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from typing import Literal, cast

import cv2
import numpy as np

from wm.envs.chips.physics import (
    BLADE_HALF_THICKNESS,
    BLADE_HALF_WIDTH,
    BLADE_RGB,
    BOX_HALF,
    CHIP_RGB,
    DISC_RADIUS,
    RIM,
    RIM_RGB,
    TABLE_HALF,
    TABLE_RGB,
)
from wm.envs.display import working_opengl
from wm.errors import BadInputError

Renderer = Literal["raster", "egl", "osmesa", "auto"]
RENDERERS: tuple[Renderer, ...] = ("raster", "egl", "osmesa", "auto")

_VIEW = TABLE_HALF + RIM  # half the side of what is seen, m
_SHIFT = 6  # fractional bits of OpenCV's fixed-point coordinates
_FINER = 4  # drawn this many times larger than the result, in each direction
_BOX = BOX_HALF * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
_BLADE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (BLADE_HALF_THICKNESS, BLADE_HALF_WIDTH)


def draw(poses: np.ndarray, boxes: int, size: int = 96, *, blade: bool = False) -> np.ndarray:
    """Rasterise a state.

    Args:
        poses: ``(3 + 3 n,)``, or more: x, y [m], angle [rad] of the blade and of each chip.
        boxes: How many of the chips, the last ones, are boxes.
        size: Side of the square picture, pixels.
        blade: Draw the blade as well.

    Returns:
        ``(size, size, 3)`` uint8 RGB; x to the right, y upwards, the rim at the border.
    """
    fine = size * _FINER
    picture = _table(fine).copy()
    poses = np.asarray(poses, np.float64).reshape(-1, 3)
    chips, first_box = poses[1:], len(poses) - 1 - boxes
    radius = round(DISC_RADIUS * fine / (2 * _VIEW) * (1 << _SHIFT))
    for x, y in _pixels(chips[:first_box, :2], fine).tolist():
        cv2.circle(picture, (x, y), radius, CHIP_RGB, -1, cv2.LINE_8, _SHIFT)
    for corners in _pixels(_placed(_BOX, chips[first_box:]), fine):
        cv2.fillConvexPoly(picture, corners, CHIP_RGB, cv2.LINE_8, _SHIFT)
    if blade:
        cv2.fillConvexPoly(picture, _pixels(_placed(_BLADE, poses[:1]), fine)[0], BLADE_RGB, cv2.LINE_8, _SHIFT)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def _placed(corners: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """World corners ``(n, 4, 2)`` of one local polygon ``(4, 2)`` at poses ``(n, 3)``."""
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    turn = np.array([[cos, sin], [-sin, cos]]).transpose(2, 0, 1)
    return corners @ turn + poses[:, None, :2]


def _pixels(points: np.ndarray, fine: int) -> np.ndarray:
    """World points ``(..., 2)`` in OpenCV's fixed point; pixel i covers [i, i + 1) of the picture."""
    from_corner = (points * (1, -1) + _VIEW) * (fine / (2 * _VIEW))
    return np.rint((from_corner - 0.5) * (1 << _SHIFT)).astype(np.int32)


@lru_cache(maxsize=8)
def _table(fine: int) -> np.ndarray:
    picture = np.full((fine, fine, 3), RIM_RGB, np.uint8)
    edge = round(RIM * fine / (2 * _VIEW))
    picture[edge : fine - edge, edge : fine - edge] = TABLE_RGB
    picture.setflags(write=False)
    return picture


@cache
def best_renderer() -> Renderer:
    """EGL, else OSMesa, else the rasteriser; which it is is logged, once in a process."""
    chosen = cast(Renderer, working_opengl() or "raster")
    logging.getLogger(__name__).warning("chips: pictures are drawn by %s", chosen)
    return chosen


def known_renderer(name: str) -> Renderer:
    """The renderer's name, with "auto" decided.

    Raises:
        BadInputError: no such renderer.
    """
    for renderer in RENDERERS:
        if name == renderer:
            return best_renderer() if renderer == "auto" else renderer
    raise BadInputError(f"renderer: expected {', '.join(RENDERERS)}, came '{name}'.")
