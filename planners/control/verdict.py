"""What the shield is told, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wm.errors import BadInputError

Kind = Literal["passed", "corrected", "stop", "uncertified_stop"]

Broken = tuple[str, float] | None
"""Name of a rule, and by how much it is broken."""


@dataclass(frozen=True)
class ShieldLimits:
    """Stated bounds under which a certificate holds.

    Attributes:
        latency: From a reading until an action chosen with it begins to act, up to this much passes besides what the
            loop's own order implies [s], rounded up to control steps; until then an action sent before acts. It is the
            largest age of a reading and the longest delay of an action together; both may vary, but actions keep their
            order and readings do not go back. The robot's control steps have the phase of its readings: an action
            begins to act a whole number of them after the reading that it was chosen with, never in between.
        position_error: Bound on |measured - true| position (Euclidean) [length unit of the kinematics, e.g. px].
        velocity_error: The same of the velocity [length unit per second].
        disturbance: Bound on the distance of the true path from the kinematics', from the moment an action is sent
            until the robot has come to rest after it [length unit]. At rest nothing moves the robot.
        velocity_disturbance: The same of the velocity [length unit per second]. Limits on acceleration and jerk bound
            what the control applies, also in answer to a push, but not the push itself.
    """

    latency: float = 0.0
    position_error: float = 0.0
    velocity_error: float = 0.0
    disturbance: float = 0.0
    velocity_disturbance: float = 0.0

    def __post_init__(self) -> None:
        """Check.

        Raises:
            BadInputError: a bound is negative or not finite.
        """
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise BadInputError(f"shield limit '{name}' must be finite and >= 0, came {value}.")


@dataclass(frozen=True)
class Certified:
    """What to send, and why.

    Attributes:
        action: ``(W,)`` float64, inside the action's bounds; the shield's W is 2.
        kind: "passed": the action asked for. "corrected": the closest certified one. "stop": the stop, which keeps
            every rule. "uncertified_stop": the stop, of which this cannot be said under the stated bounds. Without
            kinematics (`BoundsFilter`) no kind is certified: "corrected" is the closest action inside its bounds.
        rule: The rule that the action asked for breaks first in time (for "uncertified_stop": that stopping may break);
            None if passed.
        by: By how much at worst, in the rule's unit; infinite when it cannot be said; 0 if passed.
        moved: |action - asked|, raw action units; infinite for an action asked for that is not two finite numbers.
        margin: Smallest certified margin over all rules, each in its unit; -infinite where nothing is certified.
        outside: How far the reading lies outside of what the last certificate foresaw [length unit]: > 0 shows that one
            of the stated bounds was exceeded.
    """

    action: np.ndarray
    kind: Kind
    rule: str | None
    by: float
    moved: float
    margin: float
    outside: float = 0.0


def amount(value: float) -> str:
    """A size for a sentence, in whatever unit: a decimal of px, three figures of fractions of a metre."""
    return f"{value:.1f}" if value >= 1 else f"{value:.3g}"
