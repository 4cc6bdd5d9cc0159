"""Which observations may be used: well formed, new, in order, and not too old."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from wm.planners.control.reckoning import Reckoning
from wm.robot import ObservationSpec, RobotObservation

Refusal = Literal["misshapen", "not finite", "repeated", "reordered", "from the future", "stale"]


class ObservationGate:
    """Lets fresh observations in and says when the last one is too old or the sensors are stuck.

    Place (the first two numbers of proprioception) and picture are watched apart, since one may be stuck while the
    other is alive. The place is stuck when it is the same, bit for bit, although by its kinematics the robot must have
    moved by more than the stated errors hide: one that is told to stand may look the same for ever. The picture is
    stuck when it did not change while the place moved by ``picture_travel``. Each lasts until what was stuck changes.

    Args:
        spec: What the robot reports.
        stale_after_s: Age [s] from which an observation is not used.
        future_tolerance_s: How far a stamp may lie in the future [s].
        picture_travel: See above [length unit]; None: not checked.
        reckoning: The robot's kinematics; None: the place is not checked.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        stale_after_s: float | int,
        future_tolerance_s: float | int,
        picture_travel: float | int | None,
        reckoning: Reckoning | None = None,
    ) -> None:
        self._spec = spec
        self._stale_after_s, self._future_tolerance_s = stale_after_s, future_tolerance_s
        self._picture_travel, self._reckoning = picture_travel, reckoning
        self.refused: Counter[str] = Counter()
        self.forget()

    def forget(self) -> None:
        """Begin anew: the robot was connected again."""
        self.last: RobotObservation | None = None
        self._place: np.ndarray | None = None  # where the picture changed
        self._stuck: set[Literal["place", "picture"]] = set()

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
        if "place" in self._stuck:
            return "frozen readings: the place did not change although the robot had to move"
        if "picture" in self._stuck:
            return f"frozen picture: it did not change while the robot moved by more than {self._picture_travel:g}"
        return None

    def acted(self, sent: Sequence[np.ndarray]) -> None:
        """A control step's action was sent; ``sent``: the last ones, oldest first."""
        if self._reckoning is not None:
            self._reckoning.advance(sent)

    def unclear(self) -> None:
        """Nobody knows what the robot has done since the last observation: what it must do is reckoned from there."""
        if self._reckoning is not None and self.last is not None and self.last.proprio is not None:
            self._reckoning.begin(self.last.proprio)

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
        before = None if previous is None or previous.proprio is None else previous.proprio[:2].astype(np.float64)
        if before is None or place is None or not np.array_equal(before, place):
            self._stuck.discard("place")
            self.unclear()
        elif self._reckoning is not None and self._reckoning.must_have_moved():
            self._stuck.add("place")
        if previous is None or not np.array_equal(previous.image, new.image):
            self._place = place
            self._stuck.discard("picture")
        elif self._travelled(place):
            self._stuck.add("picture")

    def _travelled(self, place: np.ndarray | None) -> bool:
        """The robot has moved too far for a picture that is still the same."""
        if self._picture_travel is None or place is None or self._place is None:
            return False
        return float(np.linalg.norm(place - self._place)) > self._picture_travel
