"""In the shield's place where nobody declares a robot's motion: it keeps actions inside their bounds, no more."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wm.errors import BadInputError
from wm.planners.control.verdict import Certified, ShieldLimits
from wm.specs import ActionSpec

ACTION_BOUNDS = "action bounds"
"""Rule of an action that was clipped."""


class BoundsFilter:
    """Clips an action to its bounds, and sends the rest action where there is nothing to go by.

    Without kinematics nothing is known of what an action does, so **nothing is certified**: every margin is -infinite,
    and the rest action is an "uncertified_stop", for nothing says that it brings the robot to rest. Only for a
    simulated robot, which can do no harm.

    Args:
        action_spec: Bounds and rate of its actions.
        limits: Of these the latency alone counts: a reading older than that is none.
        rest: ``(W,)`` the action that changes as little as any, raw units.

    Attributes:
        kinematics: None.
        action_spec: As given.
        limits: As given.

    Raises:
        BadInputError: the rest action is not one inside the bounds.
    """

    kinematics: None = None

    def __init__(self, action_spec: ActionSpec, limits: ShieldLimits, rest: np.ndarray) -> None:
        self.action_spec, self.limits = action_spec, limits
        self._low, self._high = np.array(action_spec.low, np.float64), np.array(action_spec.high, np.float64)
        self._rest = np.array(rest, np.float64)
        inside = self._rest.shape == self._low.shape and bool(
            ((self._low <= self._rest) & (self._rest <= self._high)).all()
        )
        if not inside:
            raise BadInputError(
                f"rest action: expected {action_spec.width} numbers inside {action_spec.low} to {action_spec.high}, "
                f"came {self._rest.tolist()}."
            )

    def reset(self) -> None:
        """Nothing is remembered."""

    def skipped(self, count: int) -> None:
        """Nothing is remembered."""

    def stop_action(self) -> np.ndarray:
        """``(W,)`` the rest action."""
        return self._rest.copy()

    def certify(self, proprio: np.ndarray, asked: np.ndarray, held: Sequence[np.ndarray] = ()) -> Certified:
        """The action asked for, inside its bounds; of which nothing is certified.

        Args:
            proprio: ``(P,)`` the current reading, of any width, also none; NaN: there is no current reading.
            asked: ``(W,)`` raw units; what is no finite action is answered with the rest action.
            held: The actions sent last; not used.
        """
        action = np.array(asked, np.float64)
        if action.shape != self._low.shape or not np.isfinite(action).all():
            return self._resting("non-finite command", math.inf)
        if not np.isfinite(proprio).all():
            return self._resting("non-finite proprio", float(np.linalg.norm(self._rest - action)))
        over = float(np.maximum(self._low - action, action - self._high).max())
        if over <= 0:
            return Certified(action, "passed", None, 0.0, 0.0, -math.inf)
        kept = np.clip(action, self._low, self._high)
        return Certified(kept, "corrected", ACTION_BOUNDS, over, float(np.linalg.norm(kept - action)), -math.inf)

    def _resting(self, rule: str, moved: float) -> Certified:
        return Certified(self.stop_action(), "uncertified_stop", rule, math.inf, moved, -math.inf)
