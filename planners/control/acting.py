"""From an asked action to one that may be sent, and the memory of what was sent."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from wm.errors import BadInputError, RobotError
from wm.planners.control.parts import Certifier
from wm.planners.control.report import StepLog
from wm.planners.control.shield import Certified
from wm.planners.control.states import State
from wm.robot import RobotObservation

REMEMBERED = 16
"""Control steps of sent actions that a shield gets to see."""

NO_READING = "no current reading"
"""Rule of an action that could not be certified with an observation."""

CONTRADICTED = "stated bounds"
"""Rule of the stop that answers a reading which contradicts what was foreseen under them."""


@dataclass(frozen=True, eq=False)
class Asked:
    """An action before the shield has seen it.

    Attributes:
        action: ``(W,)`` raw units.
        plan_step: Control step at which its plan was asked for; None: not from a plan.
    """

    action: np.ndarray
    plan_step: int | None


class Sent:
    """The actions that the robot took last, by control step."""

    def __init__(self) -> None:
        self._actions: deque[tuple[int, np.ndarray]] = deque(maxlen=REMEMBERED)

    def clear(self) -> None:
        """The robot stands still."""
        self._actions.clear()

    def add(self, step: int, action: np.ndarray) -> None:
        """The robot took an action."""
        self._actions.append((step, action))

    def before(self, step: int) -> list[np.ndarray]:
        """Actions of the last control steps before ``step``, oldest first; one that was skipped repeats the action."""
        held: list[np.ndarray] = []
        ends = [*[s for s, _ in self._actions][1:], step][: len(self._actions)]
        for (start, action), end in zip(self._actions, ends, strict=True):
            held += [action] * min(end - start, REMEMBERED)
        return held[-REMEMBERED:]


def certified(
    shield: Certifier, asked: np.ndarray, proprio: np.ndarray | None, held: list[np.ndarray], skipped: int = 0
) -> Certified:
    """What the shield lets through; it is asked in every control step, also when there is no current reading.

    A reading that contradicts the stated bounds (`Certified.outside`) is not one to move with: the answer is then the
    stop, of which nothing can be certified.

    Args:
        shield: Certifies.
        asked: ``(W,)``.
        proprio: ``(P,)`` the current reading, empty of a robot that reports none; None: there is no current one.
        held: The actions sent last, oldest first.
        skipped: Control periods without an action since the last one.

    Raises:
        BadInputError: its answer is not an action inside the bounds.
    """
    spec = shield.action_spec
    if skipped > 0:
        shield.skipped(skipped)
    if proprio is None:
        verdict = shield.certify(np.array([np.nan]), asked, held)
        verdict = dataclasses.replace(verdict, rule=NO_READING)
    else:
        verdict = shield.certify(proprio, asked, held)
    action = verdict.action
    if action.shape != (spec.width,) or not (np.isfinite(action).all() and inside(action, spec.low, spec.high)):
        raise BadInputError(f"the shield answered with {action.tolist()}, which is not an action inside its bounds.")
    return _stopped(verdict, asked, shield.stop_action()) if verdict.outside > 0 else verdict


def _stopped(verdict: Certified, asked: np.ndarray, stop: np.ndarray) -> Certified:
    """The stop, of which nothing can be said while a stated bound is exceeded."""
    moved = float(np.linalg.norm(stop - asked))
    return Certified(stop, "uncertified_stop", CONTRADICTED, verdict.outside, moved, -math.inf, verdict.outside)


def unanswered(
    step: int,
    times: tuple[float, float],
    state: tuple[State, str],
    seen: tuple[RobotObservation | None, bool],
    asked: Asked,
    verdict: Certified,
) -> StepLog:
    """The record of a control step whose action the robot has not confirmed (yet).

    Args:
        step: Its number.
        times: When it began, clock seconds, and how long after its deadline [s].
        state: Of the loop, and why.
        seen: Newest observation that may be used, and whether it is new.
        asked: What was asked for.
        verdict: What the shield made of it.
    """
    return StepLog(
        step=step,
        time=times[0],
        late_s=times[1],
        sent_s=math.nan,
        state=state[0],
        why=state[1],
        observation=seen[0],
        fresh=seen[1],
        asked=asked.action,
        certified=verdict.action,
        sent=None,
        plan_step=asked.plan_step,
        kind=verdict.kind,
        rule=verdict.rule,
        by=verdict.by,
        moved=verdict.moved,
        margin=verdict.margin,
        outside=verdict.outside,
        plan=None,
        deadline_ms=None,
    )


def inside(action: np.ndarray, low: tuple[float, ...], high: tuple[float, ...]) -> bool:
    """Whether an action is inside its bounds."""
    return bool((action >= np.asarray(low)).all() and (action <= np.asarray(high)).all())


def taken(answer: object, action: np.ndarray) -> np.ndarray:
    """What a robot says that it took, as float64 ``(W,)``.

    Raises:
        RobotError: it is not an action.
    """
    try:
        sent = np.array(answer, dtype=np.float64)
    except (TypeError, ValueError):
        sent = np.empty(0)
    if sent.shape != action.shape or not np.isfinite(sent).all():
        raise RobotError(f"the robot says it took {answer} of the action {action.tolist()}.")
    return sent
