"""When a push-T goal counts as reached (DINO-WM's test, with the angle wrapped)."""

from __future__ import annotations

import math

import numpy as np

POSITION_TOLERANCE_PX = 20.0
ANGLE_TOLERANCE_RAD = math.pi / 9


def wrap(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def reached(state: np.ndarray, goal: np.ndarray) -> bool:
    """Pusher and block are at the goal: ‖Δ(agent xy, block xy)‖ < 20 px and |wrapped Δθ| < π/9."""
    return _within(state, goal, slice(0, 4))


def block_reached(state: np.ndarray, goal: np.ndarray) -> bool:
    """The block alone is at the goal: ‖Δ block xy‖ < 20 px and |wrapped Δθ| < π/9."""
    return _within(state, goal, slice(2, 4))


def _within(state: np.ndarray, goal: np.ndarray, places: slice) -> bool:
    distance = float(np.linalg.norm(np.asarray(state)[places] - np.asarray(goal)[places]))
    angle = abs(wrap(float(state[4]) - float(goal[4])))
    return distance < POSITION_TOLERANCE_PX and angle < ANGLE_TOLERANCE_RAD
