"""Which observations may be used: well formed, new, in order, and not too old."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Literal

import numpy as np

from wm.robot import ObservationSpec, RobotObservation

Refusal = Literal["misshapen", "not finite", "repeated", "reordered", "from the future", "stale"]


class ObservationGate:
    """Lets fresh observations in and says when the last one is too old or the sensors are stuck.

    Stuck means one of two things. Nothing in the reading changed, bit for bit, for ``frozen_after_s`` during which the
    robot was told to move. Or the picture alone did not change while the robot's place (its first two numbers of
    proprioception) moved by ``picture_travel``. It lasts until what was stuck changes.

    Args:
        spec: What the robot reports.
        stale_after_s: Age [s] from which an observation is not used.
        future_tolerance_s: How far a stamp may lie in the future [s].
        frozen_after_s: See above [s].
        picture_travel: See above [length unit]; None: not checked.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        stale_after_s: float | int,
        future_tolerance_s: float | int,
        frozen_after_s: float | int,
        picture_travel: float | int | None,
    ) -> None:
        self._spec = spec
        self._stale_after_s, self._future_tolerance_s = stale_after_s, future_tolerance_s
        self._frozen_after_s, self._picture_travel = frozen_after_s, picture_travel
        self.refused: Counter[str] = Counter()
        self.forget()

    def forget(self) -> None:
        """Begin anew: the robot was connected again."""
        self.last: RobotObservation | None = None
        self._same_since: float | None = None
        self._place: np.ndarray | None = None
        self._stuck: Literal["", "readings", "picture"] = ""

    def offer(self, observation: RobotObservation, now: float) -> bool:
        """Take an observation if it may be used; it is then `last`. Otherwise `refused` counts why."""
        refusal = self._refusal(observation, now)
        if refusal is not None:
            self.refused[refusal] += 1
            return False
        previous, proprio = self.last, observation.proprio
        self.last = dataclasses.replace(  # copies: a driver may use its buffers again
            observation, image=observation.image.copy(), proprio=None if proprio is None else proprio.copy()
        )
        self._compare(previous, self.last)
        return True

    def age(self, now: float) -> float:
        """Age of the last used observation [s]; infinite when there is none."""
        return math.inf if self.last is None else now - self.last.stamp

    def trouble(self, now: float) -> str | None:
        """Why the robot has to be held, or None."""
        age = self.age(now)
        if age > self._stale_after_s:
            return f"stale observation: {1000 * age:.0f} ms old, at most {1000 * self._stale_after_s:g} ms"
        if self._same_since is not None and now - self._same_since > self._frozen_after_s:
            self._stuck = "readings"
        if self._stuck == "readings":
            return f"frozen observations: nothing changed in {self._frozen_after_s:g} s of motion"
        if self._stuck == "picture":
            return f"frozen picture: it did not change while the robot moved by more than {self._picture_travel:g}"
        return None

    def commanded(self, moving: bool, now: float) -> None:
        """The action sent now makes the robot move, or does not."""
        if not moving:
            self._same_since = None
        elif self._same_since is None:
            self._same_since = now

    def _refusal(self, observation: RobotObservation, now: float) -> Refusal | None:
        side, proprio = self._spec.image_size, observation.proprio
        if observation.image.shape != (side, side, 3) or observation.image.dtype != np.uint8:
            return "misshapen"
        width = None if self._spec.proprio is None else (self._spec.proprio.width,)
        if (None if proprio is None else proprio.shape) != width:
            return "misshapen"
        if not math.isfinite(observation.stamp) or (proprio is not None and not np.isfinite(proprio).all()):
            return "not finite"
        if self.last is not None and observation.sequence == self.last.sequence:
            return "repeated"
        if observation.stamp > now + self._future_tolerance_s:
            return "from the future"
        if now - observation.stamp > self._stale_after_s:
            return "stale"
        if self.last is not None and (
            observation.sequence < self.last.sequence or observation.stamp <= self.last.stamp
        ):
            return "reordered"
        return None

    def _compare(self, previous: RobotObservation | None, new: RobotObservation) -> None:
        """Notice what changed since the previous observation."""
        place = None if new.proprio is None else new.proprio[:2].astype(np.float64)
        same_picture = previous is not None and np.array_equal(previous.image, new.image)
        same_proprio = previous is not None and (
            new.proprio is None or np.array_equal(previous.proprio, new.proprio)  # type: ignore[arg-type]
        )
        if not (same_picture and same_proprio):
            self._same_since = None
            self._stuck = "" if self._stuck == "readings" else self._stuck
        if not same_picture:
            self._place = place
            self._stuck = ""
        elif self._travelled(place):
            self._stuck = "picture"

    def _travelled(self, place: np.ndarray | None) -> bool:
        """The robot has moved too far for a picture that is still the same."""
        if self._picture_travel is None or place is None or self._place is None:
            return False
        return float(np.linalg.norm(place - self._place)) > self._picture_travel
