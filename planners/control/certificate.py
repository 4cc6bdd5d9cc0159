"""What an earlier check still promises: stopping keeps every rule, as long as the robot is where it said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Certificate:
    """The futures of the last action that was certified, until a newer one is.

    It says: from here on the stop keeps every rule. It does not need the readings after it, but it is void as soon as
    one of them contradicts it.

    Attributes:
        places: ``(R, 2)`` nominal positions of its futures [length unit].
        velocities: ``(R, 2)`` [length unit per second].
        place_slack: ``(R,)`` bound on the true position's distance from the nominal one.
        velocity_slack: ``(R,)`` the same of the velocity.
        ends: Rows where the futures are after 0, 1, 2, … control steps; they stay at the last ones.
        delay: Control steps by which a reading may be older or newer than was thought.
        control_step: [s].
        margin: Smallest margin that was certified.
        age: Control steps since.
    """

    places: np.ndarray
    velocities: np.ndarray
    place_slack: np.ndarray
    velocity_slack: np.ndarray
    ends: list[list[int]]
    delay: int
    control_step: float
    margin: float
    age: int = 0

    def expected(self) -> np.ndarray:
        """``(2,)`` nominal position now, were every action in time."""
        return np.asarray(self.places[self.ends[min(self.age, len(self.ends) - 1)][-1]])

    def outside(self, place: np.ndarray, velocity: np.ndarray, place_error: float, velocity_error: float) -> float:
        """How far a reading lies outside of all that was foreseen [length unit]; <= 0 when it is foreseen.

        A velocity counts with what it moves in one control step.

        Args:
            place: ``(2,)`` measured.
            velocity: ``(2,)`` measured.
            place_error: Bound on the error of the measured position.
            velocity_error: Bound on the error of the measured velocity.
        """
        last = len(self.ends) - 1
        steps = range(min(max(self.age - self.delay, 0), last), min(self.age + self.delay, last) + 1)
        rows = [row for step in steps for row in self.ends[step]]
        far = np.linalg.norm(self.places[rows] - place, axis=1) - self.place_slack[rows]
        fast = np.linalg.norm(self.velocities[rows] - velocity, axis=1) - self.velocity_slack[rows]
        far, fast = far - place_error, (fast - velocity_error) * self.control_step
        return float(np.maximum(far, fast).min())
