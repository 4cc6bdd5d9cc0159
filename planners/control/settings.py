"""What an operator may choose of the control loop."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from wm.errors import BadInputError


@dataclass(frozen=True)
class LoopSettings:
    """Times and rates; start-up configuration that nothing changes afterwards.

    Attributes:
        rate_hz: Control steps per second, the robot's `ActionSpec.control_hz`.
        lead_steps: d, control steps a plan has time: asked for at step k, executed from step k + d.
        replan_every: Control steps from one request to the next (sooner when the rest of the plan runs out).
        stale_after_s: Age of the newest observation from which the robot is held.
        reading_age_s: Share of the shield's stated latency that the age of a reading may take, the rest being the
            action's; None: all of it, for a robot whose actions act at once.
        reading_slack_s: A reading this much older still counts as current; the stated errors have to cover the motion
            in this time.
        plan_timeout_s: Time without any action from a plan, while running, that is a fault.
        future_tolerance_s: How far the stamp of an observation may lie in the future.
        picture_travel: Way [length unit] of the robot without any change of the picture that counts as frozen; None:
            not checked.
        resume_after_steps: Control steps in a row with a fresh observation and no cause to hold, before it goes on.
        on_time_s: Delay of the begin of a period that still counts as on time.
        arm_timeout_s: Time in which the robot has to report a first fresh observation.
        reply_margin_s: The planner is told a deadline that is earlier by this.

    Raises:
        BadInputError: a value is not finite or out of its range.
    """

    rate_hz: float | int
    lead_steps: int = 2
    replan_every: int = 5
    stale_after_s: float | int = 0.25
    reading_age_s: float | int | None = None
    reading_slack_s: float | int = 0.01
    plan_timeout_s: float | int = 2.0
    future_tolerance_s: float | int = 0.005
    picture_travel: float | int | None = None
    resume_after_steps: int = 3
    on_time_s: float | int = 0.005
    arm_timeout_s: float | int = 2.0
    reply_margin_s: float | int = 0.01

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not math.isfinite(value):
                raise BadInputError(f"LoopSettings: {field.name} must be finite, came {value}.")
        for name in ("lead_steps", "replan_every", "resume_after_steps"):
            self._at_least(name, 1)
        for name in ("reading_slack_s", "future_tolerance_s", "on_time_s", "reply_margin_s"):
            self._at_least(name, 0)
        for name in ("rate_hz", "plan_timeout_s", "arm_timeout_s"):
            if getattr(self, name) <= 0:
                raise BadInputError(f"LoopSettings: {name} must be > 0, came {getattr(self, name)}.")
        for name in ("picture_travel", "reading_age_s"):
            if getattr(self, name) is not None:
                self._at_least(name, 0)
        # A shorter time would hold the robot at every reading that was taken just before the last control step.
        self._at_least("stale_after_s", 1 / self.rate_hz)
        if self.reply_margin_s >= self.lead_steps / self.rate_hz:
            raise BadInputError(
                f"LoopSettings: reply_margin_s must be < lead_steps / rate_hz = {self.lead_steps / self.rate_hz:g} s, "
                f"came {self.reply_margin_s}."
            )

    def _at_least(self, name: str, least: float | int) -> None:
        if getattr(self, name) < least:
            raise BadInputError(f"LoopSettings: {name} must be >= {least:g}, came {getattr(self, name)}.")
