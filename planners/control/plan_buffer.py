"""Which action the plans so far give for a control step."""

from __future__ import annotations

import numpy as np

from wm.planners.control.messages import PlanReply, PlanRequest
from wm.specs import ActionSpec

COMMITTED_TOLERANCE = 1e-4
"""A plan's first actions may differ from the committed ones by this share of the action range (single precision)."""


class PlanBuffer:
    """The rest of the newest plan, control step by control step."""

    def __init__(self) -> None:
        self._actions: dict[int, tuple[np.ndarray, int]] = {}

    def clear(self) -> None:
        """Forget every action."""
        self._actions.clear()

    def splice(self, reply: PlanReply, start: int) -> None:
        """From control step ``start`` on, this plan's actions and no others; what comes before stays."""
        self._actions = {step: entry for step, entry in self._actions.items() if step < start}
        for step in range(start, reply.step + len(reply.actions)):
            self._actions[step] = (np.array(reply.actions[step - reply.step], dtype=np.float64), reply.step)

    def at(self, step: int) -> tuple[np.ndarray, int] | None:
        """Action of a control step and the step its plan was asked at; None when no plan reaches it."""
        return self._actions.get(step)

    def forget_before(self, step: int) -> None:
        """Drop the actions of control steps that are over."""
        for old in [s for s in self._actions if s < step]:
            del self._actions[old]

    def left(self, step: int) -> int:
        """Planned control steps from ``step`` on, without a gap."""
        count = 0
        while step + count in self._actions:
            count += 1
        return count


def refusal(reply: PlanReply, request: PlanRequest, spec: ActionSpec) -> str | None:
    """Why a plan must not be executed, or None: shape, finite, inside the bounds, begins with what was committed."""
    actions, d = np.asarray(reply.actions), len(request.committed)
    if actions.ndim != 2 or actions.shape[1] != spec.width or len(actions) <= d:
        return f"expected more than {d} actions of {spec.width} numbers, came the shape {actions.shape}"
    if not np.isfinite(actions).all():
        return "an action is not finite"
    low, high = np.asarray(spec.low), np.asarray(spec.high)
    slack = COMMITTED_TOLERANCE * (high - low)
    if (actions < low - slack).any() or (actions > high + slack).any():
        return "an action is out of its bounds"
    if (np.abs(actions[:d] - request.committed) > slack).any():
        return "it does not begin with the committed actions"
    return None
