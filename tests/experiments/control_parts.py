"""Shared by the tests of `wm control` and of the studies on it: a planner that needs no process."""

from __future__ import annotations

from collections.abc import Callable

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
