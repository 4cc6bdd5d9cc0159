"""Keeps one request with the planner, and what may be executed of its answers."""

from __future__ import annotations

from collections import deque

import numpy as np

from wm.planners.control.messages import PlanFailure, PlanReply, PlanRequest
from wm.planners.control.parts import Planner
from wm.planners.control.plan_buffer import PlanBuffer, refusal
from wm.planners.control.report import Tally
from wm.planners.control.settings import LoopSettings
from wm.robot import RobotObservation


class Replanner:
    """Asks at control step k for what is executed from step k + d on, and drops what comes later.

    Args:
        planner: Plans beside the loop.
        settings: ``rate_hz``, ``lead_steps``, ``replan_every`` and ``reply_margin_s``.
        stop_action: ``(W,)`` what is executed where no plan reaches.
    """

    def __init__(self, planner: Planner, settings: LoopSettings, stop_action: np.ndarray) -> None:
        self._planner, self._settings, self._stop_action = planner, settings, stop_action
        spec = planner.spec
        self._frames: deque[tuple[int, RobotObservation]] = deque(maxlen=(spec.frames - 1) * spec.stride + 1)
        self._buffer = PlanBuffer()
        self._pending: PlanRequest | None = None
        self._asked_at = 0
        self.newest: PlanReply | None = None

    def restart(self) -> None:
        """Forget plans, pictures and the request under way: whatever is executed next comes from a new request."""
        self._frames.clear()
        self._buffer.clear()
        self._pending = self.newest = None

    def observe(self, step: int, observation: RobotObservation) -> None:
        """The observation in use at a control step, new or not."""
        self._frames.append((step, observation))
        self._buffer.forget_before(step)

    def at(self, step: int) -> tuple[np.ndarray, int] | None:
        """The action to execute and the step its plan was asked at; None when there is none."""
        return self._buffer.at(step)

    def collect(self, step: int, tally: Tally) -> None:
        """Take the planner's answer if it is there; ``step`` has begun."""
        reply = self._planner.poll()
        if reply is None:
            return
        request = self._pending
        if request is None or reply.step != request.step:
            tally.plans["discarded"] += 1
            return
        self._pending = None
        if isinstance(reply, PlanFailure):
            tally.failed("failed", reply.reason)
            return
        tally.plan_ms.append(reply.plan_ms)
        start = request.step + self._settings.lead_steps
        wrong = refusal(reply, request, self._planner.spec.action)
        if wrong is not None:
            tally.failed("refused", f"a plan was refused: {wrong}")
        elif step > start:
            tally.failed(
                "late", f"a plan came after {step - request.step} control steps, at most {start - request.step}"
            )
        else:
            tally.plans["fresh"] += 1
            self.newest = reply
            self._buffer.splice(reply, start)

    def ask(self, step: int, sent: np.ndarray, due: float, now: float) -> float | None:
        """Ask for a plan where it is time to; the action of ``step`` has been sent.

        Args:
            step: k, the control step now.
            sent: ``(W,)`` its action.
            due: When it was due, clock seconds.
            now: Clock seconds.

        Returns:
            The deadline [ms] that the planner was told, or None: nothing was asked.
        """
        settings = self._settings
        rest = self._buffer.left(step + 1)
        wanted = rest <= settings.lead_steps or step - self._asked_at >= settings.replan_every
        deadline_s = due + settings.lead_steps / settings.rate_hz - settings.reply_margin_s - now
        if self._pending is not None or not wanted or not self._frames or deadline_s <= 0:
            return None
        coming = [self._buffer.at(step + i) for i in range(1, settings.lead_steps)]
        committed = [sent, *(self._stop_action if entry is None else entry[0] for entry in coming)]
        images, proprio = self._context(step)
        request = PlanRequest(step, images, proprio, np.array(committed), 1000 * deadline_s)
        if not self._planner.submit(request):
            return None
        self._pending, self._asked_at = request, step
        return request.deadline_ms

    def _context(self, step: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Pictures and proprioception ``stride`` steps apart; before the first observation the robot stood still."""
        spec, chosen = self._planner.spec, []
        for back in range(spec.frames - 1, -1, -1):
            known = [o for s, o in self._frames if s <= step - back * spec.stride]
            chosen.append(known[-1] if known else self._frames[0][1])
        rows = [o.proprio for o in chosen if o.proprio is not None]
        return np.stack([o.image for o in chosen]), np.stack(rows) if len(rows) == spec.frames else None
