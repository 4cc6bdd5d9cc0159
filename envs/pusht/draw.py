"""Push-T's picture: an anti-aliased polygon rasteriser, by default in gym-pusht's colours.

Polygons with sub-pixel corners are filled at four times the final size and averaged down, so that a block moved by a
fraction of a pixel changes the picture; OpenCV's own anti-aliased fill would widen every shape by half a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from wm.envs.pusht.physics import AGENT_RADIUS, BAR, STEM, WORLD_SIZE

TARGET_POSE = (256.0, 256.0, math.pi / 4)
_EDGE = 2.0  # the outline straddles the block's border by this many px
_RIM = 4.0  # width of the pusher's rim, px
_SHIFT = 6  # fractional bits of OpenCV's fixed-point coordinates
FINER = 4
"""A picture is drawn so many times larger than it is to be, in each direction."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Colours of the picture's parts, RGB 0…255; by default gym-pusht's."""

    table: Colour = (255, 255, 255)
    wall: Colour = (211, 211, 211)
    target: Colour = (144, 238, 144)
    block_edge: Colour = (119, 136, 153)
    block: Colour = (143, 163, 184)
    agent_edge: Colour = (65, 105, 225)
    agent: Colour = (78, 126, 255)


USUAL = Palette()


def _grown(rectangle: np.ndarray, by: float) -> np.ndarray:
    return rectangle + by * np.sign(rectangle - rectangle.mean(0))


# gym-pusht draws the stem first, so that the bar's outline crosses it.
_LAYERS = [
    (_grown(STEM, _EDGE), "block_edge"),
    (_grown(STEM, -_EDGE), "block"),
    (_grown(BAR, _EDGE), "block_edge"),
    (_grown(BAR, -_EDGE), "block"),
]


def _fixed_point(points: np.ndarray, pose: tuple[float, float, float], size: int) -> np.ndarray:
    """World corners of a local polygon in OpenCV's fixed point; pixel i covers [i, i+1) of the picture."""
    x, y, angle = pose
    cos, sin = math.cos(angle), math.sin(angle)
    world = points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    return np.rint((world * (size / WORLD_SIZE) - 0.5) * (1 << _SHIFT)).astype(np.int32)


@lru_cache(maxsize=8)
def empty_table(size: int, target: bool = False, palette: Palette = USUAL) -> np.ndarray:
    """What lies under block and pusher, ``(size, size, 3)`` uint8, read-only; without anti-aliasing."""
    picture = np.full((size, size, 3), palette.table, np.uint8)
    outer_low, inner_low, inner_high, outer_high = (round(v * size / WORLD_SIZE) for v in (3, 8, 504, 509))
    picture[outer_low:outer_high, outer_low:outer_high] = palette.wall
    picture[inner_low:inner_high, inner_low:inner_high] = palette.table
    if target:
        for rectangle in (BAR, STEM):
            cv2.fillConvexPoly(picture, _fixed_point(rectangle, TARGET_POSE, size), palette.target, cv2.LINE_8, _SHIFT)
    picture.setflags(write=False)
    return picture


def draw(
    state: np.ndarray,
    size: int = 96,
    *,
    target: bool = False,
    palette: Palette = USUAL,
    table: np.ndarray | None = None,
) -> np.ndarray:
    """Picture of a state.

    Args:
        state: At least ``(5,)``: agent x, y, block x, y [px], block angle [rad].
        size: Side of the square picture, pixels.
        target: Also draw gym-pusht's green target pose (it means nothing here: the goal is a picture).
        palette: Colours.
        table: ``(FINER * size, FINER * size, 3)`` uint8, what lies under block and pusher; None: `empty_table`.

    Returns:
        ``(size, size, 3)`` uint8 RGB.
    """
    fine = size * FINER
    picture = (empty_table(fine, target, palette) if table is None else table).copy()
    ax, ay, bx, by, angle = (float(v) for v in state[:5])
    for rectangle, part in _LAYERS:
        corners = _fixed_point(rectangle, (bx, by, angle), fine)
        cv2.fillConvexPoly(picture, corners, getattr(palette, part), cv2.LINE_8, _SHIFT)
    scale = fine / WORLD_SIZE * (1 << _SHIFT)
    half = 1 << (_SHIFT - 1)
    centre = (round(ax * scale) - half, round(ay * scale) - half)
    for radius, colour in ((AGENT_RADIUS, palette.agent_edge), (AGENT_RADIUS - _RIM, palette.agent)):
        cv2.circle(picture, centre, round(radius * scale), colour, -1, cv2.LINE_8, _SHIFT)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
