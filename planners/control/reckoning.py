"""Dead reckoning: whether a robot whose place reads the same must have moved, by what it was sent."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from wm.kinematics import PointKinematics
from wm.planners.control.verdict import ShieldLimits


class Reckoning:
    """Follows the robot's kinematics since its place last changed, for every latency within the stated one.

    The latency of a reading is its age and the action's delay together, 0 to L control steps. From one reading to the
    next it differs by up to A control steps, the largest age: so long may readings be of one and the same instant. The
    place reads the same and must have changed when, whichever the latency was at the begin and is now, the robot is
    farther from where it began than the stated errors can hide: twice that of the position, what that of the velocity
    moves it, the disturbance.

    Args:
        kinematics: The robot's own motion, relative actions.
        limits: Stated bounds.
        rate_hz: Control steps per second.
        reading_age_s: Largest age of a reading, a share of the stated latency [s].
    """

    def __init__(
        self, kinematics: PointKinematics, limits: ShieldLimits, rate_hz: float | int, reading_age_s: float | int
    ) -> None:
        self._delays = 1 + math.ceil(limits.latency * rate_hz - 1e-9)
        oldest = math.ceil(reading_age_s * rate_hz - 1e-9)
        delays = np.arange(self._delays)
        self._possible = np.abs(delays[::-1, None] - delays) <= oldest  # of the latency now and that at the begin
        self._glide, self._kept = _step(kinematics, velocity=1.0, action=0.0)
        self._way, self._speed = _step(kinematics, velocity=0.0, action=1.0)
        unsure = limits.velocity_error * abs(self._glide) / max(1e-9, 1 - abs(self._kept))  # until it has come to rest
        self._hidden = 2 * limits.position_error + unsure + limits.disturbance
        self.begin(np.zeros(4))

    def begin(self, reading: np.ndarray) -> None:
        """The robot is here, x, y, vx, vy: its place has changed, or nobody knows what it did meanwhile."""
        self._moved = np.zeros((self._delays, 2))  # by the latency at the begin; with all that was sent
        self._velocity = np.tile(np.asarray(reading[2:4], np.float64), (self._delays, 1))
        self._window = deque(
            [self._moved.copy()] * self._delays, self._delays
        )  # also by that of now, the longest first
        self._first = True
        self._rounding = 4 * float(np.spacing(np.float32(np.abs(reading[:2]).max())))

    def advance(self, sent: Sequence[np.ndarray]) -> None:
        """One control step; ``sent``: the last actions, oldest first."""
        if self._first:  # what was on its way at the begin; the robot stood still before the first action
            known = [*[np.zeros(2)] * self._delays, *sent]
            for latency in range(self._delays - 1, 0, -1):
                self._act(known[-1 - latency], latency)
            self._first = False
        self._act(sent[-1], 0)

    def _act(self, action: np.ndarray, latency: int) -> None:
        """An action takes a control step of those whose latency at the begin was so long or longer."""
        self._moved[latency:] += self._glide * self._velocity[latency:] + self._way * action
        self._velocity[latency:] = self._kept * self._velocity[latency:] + self._speed * action
        self._window.append(self._moved.copy())

    def must_have_moved(self) -> bool:
        """A place that reads the same as at the begin cannot be true."""
        far = np.linalg.norm(self._window, axis=-1)[self._possible]
        return float(far.min()) > self._hidden + self._rounding


def _step(robot: PointKinematics, velocity: float, action: float) -> tuple[float, float]:
    """Way and velocity after one control step."""
    place = 0.0
    for _ in range(robot.substeps):
        velocity += (robot.kp * (robot.scale * action - place) - robot.kv * velocity) * robot.dt
        place += velocity * robot.dt
    return place, velocity
