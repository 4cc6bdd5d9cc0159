"""Shared by the tests of `wm control` and of the studies on it: a planner that needs no process, a time of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from wm.experiments.robots import Rig, simulated_rig
from wm.experiments.studies.closed_loop import VirtualClock
from wm.planners.control.loop import ControlLoop
from wm.planners.control.messages import PlanFailure, PlannerSpec, PlanReply, PlanRequest


class InlineProcess:
    """`PlannerProcess` without a process: the plan is there at the next control step."""

    def __init__(self, make: Callable[[], Callable[[PlanRequest], PlanReply]], spec: PlannerSpec) -> None:
        self.make, self.spec, self.alive, self.busy = make, spec, False, False
        self.reply: PlanReply | PlanFailure | None = None

    def start(self, timeout: float) -> None:
        self.plan, self.alive = self.make(), True

    def submit(self, request: PlanRequest) -> bool:
        try:
            self.reply = self.plan(request)
        except Exception as error:
            self.reply = PlanFailure(request.step, str(error))
        return True

    def poll(self) -> PlanReply | PlanFailure | None:
        reply, self.reply = self.reply, None
        return reply

    def close(self) -> None:
        self.alive = False


def in_virtual_time(patch: pytest.MonkeyPatch) -> None:
    """`wm control` of a simulated robot in a time of its own, so that a busy machine skips no control step."""
    clock = VirtualClock()

    def rig(*args: Any) -> Rig:
        made = simulated_rig(*args)
        made.robot._clock = clock  # type: ignore[attr-defined]
        return made

    patch.setattr("wm.experiments.control_setup.simulated_rig", rig)
    patch.setattr("wm.experiments.control.ControlLoop", partial(ControlLoop, clock=clock, sleep=clock.sleep))
    patch.setattr("wm.experiments.control.PlannerProcess", InlineProcess)
