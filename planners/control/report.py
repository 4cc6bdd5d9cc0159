"""What the control loop tells: every control step in which it sent an action, and a summary at the end."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm.planners.control.messages import PlanReply
from wm.planners.control.states import State
from wm.planners.control.verdict import amount
from wm.robot import RobotObservation


@dataclass(frozen=True, eq=False)
class StepLog:
    """One control step in which an action was sent.

    Attributes:
        step: Number of the control step; grows over the whole life of the loop, a skipped period leaves a gap.
        time: When it began, `time.monotonic` seconds.
        late_s: How long after its deadline it began [s].
        sent_s: How long after its deadline the action had been sent [s]; NaN without the robot's answer.
        state: RUNNING or HOLDING.
        why: The reason of this state, or "".
        observation: The newest one that may be used; None before there is any.
        fresh: It came in this control step.
        asked: ``(W,)`` the action asked for, raw units: the plan's, or the stop action.
        certified: ``(W,)`` the action that the robot was sent.
        sent: ``(W,)`` what the robot says it took; None: its answer never came, and it may have taken the action.
        plan_step: Control step at which the plan was asked for that ``asked`` comes from; None: not from a plan.
        kind: The shield's answer, see `Certified`; ``"uncertified_stop"`` also where a reading contradicts the stated
            bounds.
        rule: Which rule bound first, None when none did.
        by: By how much the asked action would have broken it, the rule's unit.
        moved: Distance between asked and certified action, raw units.
        margin: Smallest certified margin; -infinite where nothing was certified.
        outside: How far the reading lies outside of what was foreseen under the stated bounds [length unit], else 0.
        plan: The newest plan, None while there is none.
        deadline_ms: Of the request that was sent in this step; None when none was.
    """

    step: int
    time: float
    late_s: float
    sent_s: float
    state: State
    why: str
    observation: RobotObservation | None
    fresh: bool
    asked: np.ndarray
    certified: np.ndarray
    sent: np.ndarray | None
    plan_step: int | None
    kind: str
    rule: str | None
    by: float
    moved: float
    margin: float
    outside: float
    plan: PlanReply | None
    deadline_ms: float | None


@dataclass(frozen=True)
class Percentiles:
    """Of a list of times [ms]; NaN when it is empty."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """Of times in milliseconds."""
        if not values:
            return cls(*[float("nan")] * 4)
        return cls(*(float(v) for v in np.percentile(values, [50, 95, 99, 100])))


@dataclass(frozen=True)
class LoopReport:
    """How a run went.

    Attributes:
        state: After the run.
        why: Why it ended.
        duration_s: How long it lasted [s].
        periods: Control periods that were due.
        on_time: Of these, begun within the tolerance of their deadline.
        skipped: Of these, not begun at all, since the one before overran.
        late_ms: Begin of a period after its deadline.
        sent_ms: Action sent after the period's deadline.
        plan_ms: Planning time in the planner's process.
        plans: By what became of them: ``fresh``, ``late``, ``failed``, ``refused``, ``discarded``.
        refused: Observations that were not used, by reason.
        actions: Sent actions by the shield's answer.
        certified: Actions were certified; False: without kinematics none was, only their bounds were kept.
        first_uncertified: The first stop that was not certified, with its control step and rule, or "".
        contradictions: Readings that contradicted the stated bounds.
        outside: By how much at most [length unit].
        altered: Actions that the robot changed before it took them.
        holds: Times that the robot was held.
        last_failure: Of a plan, or "".
        history: Transitions of the state during the run.
    """

    state: State
    why: str
    duration_s: float
    periods: int
    on_time: int
    skipped: int
    late_ms: Percentiles
    sent_ms: Percentiles
    plan_ms: Percentiles
    plans: dict[str, int]
    refused: dict[str, int]
    actions: dict[str, int]
    certified: bool
    first_uncertified: str
    contradictions: int
    outside: float
    altered: int
    holds: int
    last_failure: str
    history: tuple[str, ...]

    @property
    def on_time_share(self) -> float:
        """Share of the periods that were on time; 1 when none was due."""
        return self.on_time / self.periods if self.periods else 1.0

    @property
    def interventions(self) -> int:
        """Actions that the shield changed into certified ones; without kinematics, into ones inside their bounds."""
        return sum(count for kind, count in self.actions.items() if kind not in ("passed", "uncertified_stop"))

    @property
    def uncertified(self) -> int:
        """Actions of which it could not be said that they keep every rule: stops; without kinematics, all of them."""
        return self.actions.get("uncertified_stop", 0) if self.certified else sum(self.actions.values())

    def as_values(self) -> dict[str, Any]:
        """By name, with what follows from them; numbers may be NaN."""
        derived = {name: getattr(self, name) for name in ("on_time_share", "interventions", "uncertified")}
        return dataclasses.asdict(self) | {"state": self.state.value} | derived


@dataclass
class Tally:
    """Counts during a run; `report` sums them up."""

    begin: float
    on_time_s: float
    certified: bool = True
    on_time: int = 0
    skipped: int = 0
    altered: int = 0
    holds: int = 0
    contradictions: int = 0
    outside: float = 0.0
    first_uncertified: str = ""
    last_failure: str = ""
    late_ms: list[float] = field(default_factory=list)
    sent_ms: list[float] = field(default_factory=list)
    plan_ms: list[float] = field(default_factory=list)
    plans: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)

    def begun(self, late_s: float) -> None:
        """A period began so long after its deadline."""
        self.late_ms.append(1000 * late_s)
        self.on_time += late_s <= self.on_time_s

    def sent(self, log: StepLog) -> None:
        """An action was sent."""
        self.sent_ms.append(1000 * log.sent_s)
        self.actions[log.kind] += 1
        self.contradictions += log.outside > 0
        self.outside = max(self.outside, log.outside)
        if log.kind == "uncertified_stop" and not self.first_uncertified:
            self.first_uncertified = f"{log.rule} by {amount(log.by)} in control step {log.step}"

    def failed(self, what: str, reason: str) -> None:
        """No plan came of a request."""
        self.plans[what] += 1
        self.last_failure = reason

    def failures(self) -> str:
        """What became of the plans that were not executed, and why, in brackets."""
        counts = ", ".join(f"{count} {what}" for what, count in self.plans.items() if what != "fresh")
        return f" ({counts or 'no answer'}{'; ' + self.last_failure if self.last_failure else ''})"

    def report(self, state: State, why: str, end: float, refused: Counter[str], history: tuple[str, ...]) -> LoopReport:
        """The summary."""
        return LoopReport(
            state=state,
            why=why,
            duration_s=end - self.begin,
            periods=len(self.late_ms) + self.skipped,
            on_time=self.on_time,
            skipped=self.skipped,
            late_ms=Percentiles.of(self.late_ms),
            sent_ms=Percentiles.of(self.sent_ms),
            plan_ms=Percentiles.of(self.plan_ms),
            plans=dict(self.plans),
            refused=dict(refused),
            actions=dict(self.actions),
            certified=self.certified,
            first_uncertified=self.first_uncertified,
            contradictions=self.contradictions,
            outside=self.outside,
            altered=self.altered,
            holds=self.holds,
            last_failure=self.last_failure,
            history=history,
        )
