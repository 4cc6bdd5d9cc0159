"""The robot protocol: what the control loop needs from a robot, simulated, on this computer or on another one.

Close to LeRobot's (`connect`, `get_observation`, `send_action`, `disconnect`), so that adapters are thin both ways.
Time is the monotonic clock of the computer the loop runs on, in seconds; the wall clock is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from wm.kinematics import PointKinematics
from wm.specs import ActionSpec, ProprioSpec, _Spec


@dataclass(frozen=True)
class ObservationSpec(_Spec):
    """What a robot reports.

    Attributes:
        image_size: Side of the square RGB picture, pixels.
        proprio: The robot's own sensors, or None.
    """

    image_size: int
    proprio: ProprioSpec | None


@dataclass(frozen=True)
class RobotObservation:
    """One reading of a robot's sensors.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        proprio: ``(P,)`` float32, raw units, or None when the robot reports none.
        stamp: When it was measured, `time.monotonic` seconds of the loop's computer.
        sequence: Number of the reading; a newer one has a larger number.
    """

    image: np.ndarray
    proprio: np.ndarray | None
    stamp: float
    sequence: int


@runtime_checkable
class Robot(Protocol):
    """What can be driven. Every call returns within a fraction of a control period."""

    @property
    def observation_spec(self) -> ObservationSpec:
        """What `get_observation` reports; known before `connect`."""
        ...

    @property
    def action_spec(self) -> ActionSpec:
        """Names, unit, bounds and rate of an action; known before `connect`."""
        ...

    @property
    def kinematics(self) -> PointKinematics | None:
        """The robot's exact own motion, which the shield certifies with; None when it declares none."""
        ...

    def connect(self) -> None:
        """Open the connection; the robot stands still.

        Raises:
            RobotError: it cannot be reached, or is not what its specifications say.
        """
        ...

    def get_observation(self) -> RobotObservation:
        """The newest reading (it may be one that was returned before).

        Raises:
            RobotError: not connected, or the connection broke.
        """
        ...

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """Hold an action for one control period.

        Args:
            action: ``(A / F,)`` raw units.

        Returns:
            What was actually sent, e.g. clipped by the robot to its own bounds.

        Raises:
            BadInputError: another shape, NaN or infinity; nothing was sent.
            RobotError: not connected, or the connection broke.
        """
        ...

    def stop(self) -> None:
        """Brake to rest and hold; it may be called at any time, twice, and from another thread.

        It needs no sensor that works and waits for no other call that hangs.

        Raises:
            RobotError: the robot could not be told.
        """
        ...

    def disconnect(self) -> None:
        """Stop and close the connection; no error when there is none."""
        ...
