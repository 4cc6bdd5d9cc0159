"""What an earlier check still promises: stopping keeps every rule, as long as the robot is where it said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm.planners.control.futures import Futures
from wm.planners.control.response import Response

Base = tuple[np.ndarray, float]
"""``(2,)`` where the robot was one control step before a reading, and by how much that may be wrong [length unit]."""


@dataclass
class Certificate:
    """The futures of the last action that was certified, until a newer one is.

    It says: from here on the stop keeps every rule. It does not need the readings after it, but it is void as soon as
    one of them contradicts it. A reading's age may differ from that of the reading it was made with by the latency L:
    after n control steps the robot is seen where a future is after n - L … n + L.

    Attributes:
        response: The tree of futures.
        places: ``(R, 2)`` nominal positions of its futures [length unit].
        velocities: ``(R, 2)`` [length unit per second].
        place_slack: ``(R,)`` bound on the true position's distance from the nominal one.
        velocity_slack: ``(R,)`` the same of the velocity.
        start: Where the robot was one control step before row 0.
        margin: Smallest margin that was certified.
        age: Control steps since.
    """

    response: Response
    places: np.ndarray
    velocities: np.ndarray
    place_slack: np.ndarray
    velocity_slack: np.ndarray
    start: Base
    margin: float
    age: int = 0

    @classmethod
    def of(cls, futures: Futures, action: np.ndarray, margin: float) -> Certificate:
        """That of an action whose futures keep every rule by ``margin``."""
        place_slack, velocity_slack = (futures.settled_slack(kind, action) for kind in ("place", "velocity"))
        # At the instant of the reading itself nothing has been disturbed yet.
        place_slack[0], velocity_slack[0] = futures.bounds[:2]
        return cls(
            futures.response,
            futures.signal("place", action),
            futures.signal("velocity", action),
            place_slack,
            velocity_slack,
            (futures.base, float(futures.bounds[4])),
            margin,
        )

    def differences(self, reading: np.ndarray, errors: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Rows where the robot may be now, and how far a reading lies outside of each [length unit]; <= 0: it agrees.

        A velocity counts with what it moves in one control step. A reading that agrees with none was not foreseen.

        Args:
            reading: ``(4,)`` measured position and velocity.
            errors: Bounds on their errors.
        """
        ends, delay, robot = self.response.ends, self.response.delay, self.response.robot
        last = len(ends) - 1
        steps = range(min(max(self.age - delay, 0), last), min(self.age + delay, last) + 1)
        rows = np.array([row for step in steps for row in ends[step]])
        far = np.linalg.norm(self.places[rows] - reading[:2], axis=1) - self.place_slack[rows]
        fast = np.linalg.norm(self.velocities[rows] - reading[2:], axis=1) - self.velocity_slack[rows]
        far, fast = far - errors[0], (fast - errors[1]) * robot.dt * robot.substeps
        return rows, np.maximum(far, fast)

    def base(self, agree: np.ndarray) -> Base:
        """Where the robot was one control step before a reading: a disc around all that is possible.

        Args:
            agree: Rows that agree with the reading, one at least.
        """
        resting = agree[self.response.signals["place"].rest[agree] > 0]  # it may have been there for long
        ends = agree[agree > 0]
        rows = np.concatenate([self.response.before[ends - self.response.robot.substeps + 1], resting])
        places, slack = self.places[rows], self.place_slack[rows]
        if len(ends) < len(agree):  # row 0: the reading is of the same instant as the one before
            places, slack = np.vstack([places, self.start[0]]), np.append(slack, self.start[1])
        centre = 0.5 * (places.min(0) + places.max(0))
        return centre, float((np.linalg.norm(places - centre, axis=1) + slack).max())
