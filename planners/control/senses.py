"""What the control loop knows of its robot: the newest observation that may be used, and why it has to be held."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wm.planners.control.freshness import ObservationGate
from wm.planners.control.holding import HoldCauses
from wm.planners.control.parts import Certifier
from wm.planners.control.reckoning import Reckoning
from wm.planners.control.settings import LoopSettings
from wm.robot import Robot, RobotObservation


class Senses:
    """Takes the robot's observations, and judges them.

    Args:
        robot: What is observed.
        shield: Whose stated bounds the observations have to keep.
        settings: Times after which an observation counts as old.
        surprise: True for an observation that the model finds impossible; None: not asked.
        clock: Monotonic seconds, the clock of the observations' stamps.

    Attributes:
        gate: Which observations may be used.
        causes: Why the robot is held.
    """

    def __init__(
        self,
        robot: Robot,
        shield: Certifier,
        settings: LoopSettings,
        surprise: Callable[[RobotObservation], bool] | None,
        clock: Callable[[], float],
    ) -> None:
        self._robot, self._shield, self._settings = robot, shield, settings
        self._surprise, self._clock = surprise, clock
        kinematics = shield.kinematics
        self.gate = ObservationGate(
            robot.observation_spec,
            settings.stale_after_s,
            settings.future_tolerance_s,
            settings.picture_travel,
            None if kinematics is None else Reckoning(kinematics, shield.limits, settings.rate_hz, self._oldest),
        )
        self.causes = HoldCauses()

    @property
    def last(self) -> RobotObservation | None:
        """The newest observation that may be used, or None."""
        return self.gate.last

    def observe(self) -> bool:
        """Take a new observation, if there is one that may be used."""
        observation = self._robot.get_observation()
        fresh = self.gate.offer(observation, self._clock())
        if fresh and self._surprise is not None:
            self.causes.surprised = bool(self._surprise(observation))
        return fresh

    def reading(self) -> np.ndarray | None:
        """Proprioception, empty of a robot without any, that is as new as the shield's latency assumes, or None."""
        current = self.gate.age(self._clock()) <= self._oldest + self._settings.reading_slack_s
        if self.gate.last is None or not current:
            return None
        return np.zeros(0) if self.gate.last.proprio is None else self.gate.last.proprio

    @property
    def _oldest(self) -> float | int:
        """The largest age of a reading, its share of the stated latency [s]."""
        share, latency = self._settings.reading_age_s, self._shield.limits.latency
        return latency if share is None else min(share, latency)

    def cause(self, fresh: bool) -> str | None:
        """Why the robot has to be held in this control step, or None; ``fresh``: a new observation came in it."""
        return self.causes.now(self.gate.trouble(self._clock()), fresh)

    def calm(self) -> bool:
        """There has been no cause for so long that a robot that is held may go on."""
        return self.causes.calm >= self._settings.resume_after_steps
