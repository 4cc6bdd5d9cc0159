"""Dead reckoning: whether a robot whose place reads the same must have moved, by what it was sent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wm.kinematics import PointKinematics
from wm.planners.control.verdict import ShieldLimits


class Reckoning:
    """Follows the robot's kinematics, for every whole delay within the stated latency, since its place last changed.

    The place reads the same and must have changed when, whichever delay it is, the robot is farther from where it began
    than the stated errors can hide: twice that of the position, what that of the velocity moves it, the disturbance.

    Args:
        kinematics: The robot's own motion, relative actions.
        limits: Stated bounds.
        rate_hz: Control steps per second.
    """

    def __init__(self, kinematics: PointKinematics, limits: ShieldLimits, rate_hz: float | int) -> None:
        self._delays = 1 + math.ceil(limits.latency * rate_hz - 1e-9)
        self._glide, self._kept = _step(kinematics, velocity=1.0, action=0.0)
        self._way, self._speed = _step(kinematics, velocity=0.0, action=1.0)
        unsure = limits.velocity_error * abs(self._glide) / max(1e-9, 1 - abs(self._kept))  # until it has come to rest
        self._hidden = 2 * limits.position_error + unsure + limits.disturbance
        self.begin(np.zeros(4))

    def begin(self, reading: np.ndarray) -> None:
        """The robot is here, x, y, vx, vy: its place has changed, or nobody knows what it did meanwhile."""
        self._moved = np.zeros((self._delays, 2))
        self._velocity = np.tile(np.asarray(reading[2:4], np.float64), (self._delays, 1))
        self._rounding = 4 * float(np.spacing(np.float32(np.abs(reading[:2]).max())))

    def advance(self, sent: Sequence[np.ndarray]) -> None:
        """One control step; ``sent``: the last actions, oldest first."""
        still = [np.zeros(2)] * self._delays
        acting = np.array([*still, *sent][: -self._delays - 1 : -1], np.float64)
        self._moved += self._glide * self._velocity + self._way * acting
        self._velocity = self._kept * self._velocity + self._speed * acting

    def must_have_moved(self) -> bool:
        """A place that reads the same as at the begin cannot be true."""
        return float(np.linalg.norm(self._moved, axis=1).min()) > self._hidden + self._rounding


def _step(robot: PointKinematics, velocity: float, action: float) -> tuple[float, float]:
    """Way and velocity after one control step."""
    place = 0.0
    for _ in range(robot.substeps):
        velocity += (robot.kp * (robot.scale * action - place) - robot.kv * velocity) * robot.dt
        place += velocity * robot.dt
    return place, velocity
