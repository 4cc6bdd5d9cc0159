"""Hand-written controllers: baselines that see the simulator's true state, and no picture. Nothing in them learns."""

from __future__ import annotations

import numpy as np

from wm.envs.arm.goals import distance
from wm.envs.arm.physics import SCALE

_BEHIND = 0.085  # m from the cube's middle to where the tip begins to push
_CLEAR = 0.075  # m kept from the cube's middle on the way there
_LINED_UP = 0.02  # m from the line through the cube at which pushing begins


class StraightReacher:
    """Straight to the goal, as fast as it goes.

    Args:
        goal: State of the goal.
    """

    name = "straight (sees the true state)"

    def __init__(self, goal: np.ndarray) -> None:
        self.place = np.asarray(goal, np.float64)[:3]

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """``(3,)`` float32 displacement in [-1, 1], 0.1 m per unit, for a state ``(>= 3,)``."""
        return np.clip((self.place - state[:3]) / SCALE, -1.0, 1.0).astype(np.float32)


class LinePusher:
    """Round the cube to behind it as the goal lies, then push along the line to the goal, and again where it slips.

    Args:
        goal: State of the goal; only where the cube is, is used.
    """

    name = "line pusher (sees the true state)"

    def __init__(self, goal: np.ndarray) -> None:
        self.goal = np.asarray(goal, np.float64)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """``(2,)`` float32 displacement in [-1, 1], 0.1 m per unit, for a state ``(>= 4,)``."""
        tip, cube, place = state[:2], state[2:4], self.goal[2:4]
        ahead = (place - cube) / (distance("push", state, self.goal) + 1e-9)
        aside = np.array([-ahead[1], ahead[0]])
        offset = tip - cube
        behind, beside = float(-offset @ ahead), float(offset @ aside)
        if behind > 0 and abs(beside) < _LINED_UP:
            wanted = cube - tip + 0.5 * (place - cube) - 2 * beside * aside
        elif behind > 0.5 * _BEHIND:
            wanted = cube - _BEHIND * ahead - tip
        else:  # beside or before the cube: round it, at the side where it is
            side = 1.0 if beside >= 0 else -1.0
            wanted = side * (_CLEAR + 0.03 - abs(beside)) * aside - (0.08 if abs(beside) > _CLEAR else 0.0) * ahead
        return np.clip(wanted / SCALE, -1.0, 1.0).astype(np.float32)
