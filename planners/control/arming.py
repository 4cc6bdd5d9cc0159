"""What has to be so before the control loop may be started: a fresh observation, and a stop that is certified."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wm.errors import RobotError
from wm.planners.control.acting import certified
from wm.planners.control.freshness import ObservationGate
from wm.planners.control.parts import Certifier
from wm.planners.control.verdict import amount
from wm.robot import Robot

POLL_S = 0.01


def await_observation(
    robot: Robot,
    gate: ObservationGate,
    timeout_s: float | int,
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> None:
    """Wait for an observation that may be used.

    Raises:
        RobotError: none came in time.
    """
    end = clock() + timeout_s
    while not gate.offer(robot.get_observation(), clock()):
        if clock() >= end:
            refused = ", ".join(f"{count} {why}" for why, count in gate.refused.items())
            raise RobotError(f"cannot arm: no fresh observation within {timeout_s:g} s ({refused}).")
        sleep(POLL_S)


def require_certified_stop(shield: Certifier, proprio: np.ndarray | None) -> None:
    """Refuse a robot that stands where it may not, or cannot come to rest from there; arguments as `unsafe_stop`'s.

    Raises:
        RobotError: stopping is not certified; which rule, and by how much.
    """
    why = unsafe_stop(shield, proprio)
    if why is not None:
        raise RobotError(f"cannot arm: {why}")


def unsafe_stop(shield: Certifier, proprio: np.ndarray | None) -> str | None:
    """The sentence that says why stopping from here is not certified; None where it is, or nothing ever is.

    Args:
        shield: Certifies; it begins anew, and forgets this.
        proprio: ``(P,)`` the present reading.
    """
    if shield.kinematics is None:
        return None
    shield.reset()
    verdict = certified(shield, shield.stop_action(), proprio, [])
    shield.reset()
    if verdict.kind != "uncertified_stop":
        return None
    place = None if proprio is None else [float(f"{float(number):.4g}") for number in proprio]
    by = amount(verdict.by)
    return f"guardrail '{verdict.rule}': the robot at {place} may break it by {by} before it stands still."
