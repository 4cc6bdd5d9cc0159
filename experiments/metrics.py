"""From finished episodes to the numbers that are published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm.experiments.episode_log import Record
from wm.experiments.interval import Z95, wilson
from wm.experiments.worlds.base import World
from wm.planners.stopping import SOUNDING

TIMINGS = ("plan_ms_p50", "plan_ms_p95", "observe_ms_p50", "plans_late")
"""The only metrics that may differ between runs of the same settings."""


LATE_MS = 5
"""A plan that takes longer than its deadline by more than this is late [ms]."""


def late(plan_ms: Sequence[float], deadline_ms: float | None) -> int:
    """How many plans came later than their deadline; 0 where there was none."""
    return 0 if deadline_ms is None else sum(ms > deadline_ms + LATE_MS for ms in plan_ms)


def lateness(count: int, deadline_ms: float) -> str:
    """What is said of late plans."""
    plans = "1 plan" if count == 1 else f"{count} plans"
    return f"{plans} took over {deadline_ms + LATE_MS:g} ms; a search tries at least {SOUNDING} candidates"


def rates(records: Sequence[Record], world: World) -> dict[str, Any]:
    """Success of one actor: shares with Wilson's 95 % intervals, counts, steps to success; the world's means."""
    steps = [r.steps for r in records if r.reached]
    flags = {flag.metric: sum(r.measures[name] == 1.0 for r in records) for name, flag in world.flags.items()}
    found: dict[str, Any] = {"episodes": len(records)}
    for name, passed in ({"success": len(steps)} | flags).items():
        found |= {f"{name}_rate": passed / len(records), f"{name}_ci95": list(wilson(passed, len(records)))}
    found["steps_to_success_mean"] = float(np.mean(steps)) if steps else None
    for name in world.averaged:
        values = [r.measures[name] for r in records]
        found |= {f"{name}_mean": float(np.mean(values)), f"{name}_ci95": mean_interval(values)}
    return found


def mean_interval(values: Sequence[float]) -> list[float] | None:
    """95 % interval of a mean by the normal approximation; None for a single value, which has no spread."""
    if len(values) < 2:
        return None
    mean, half = float(np.mean(values)), Z95 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return [mean - half, mean + half]


def timings(records: Sequence[Record], deadline_ms: float | None = None) -> dict[str, float | None]:
    """Wall times in ms: of a plan, from remembered observations to actions; and of taking in (encoding) a frame.

    Also how many plans were late; None without a deadline.
    """
    plans = [ms for record in records for ms in record.plan_ms]
    frames = [ms for record in records for ms in record.observe_ms]
    tardy = None if deadline_ms is None else late(plans, deadline_ms)
    values = (_percentile(plans, 50), _percentile(plans, 95), _percentile(frames, 50), tardy)
    return dict(zip(TIMINGS, values, strict=True))


def efforts(records: Sequence[Record]) -> dict[str, float | None]:
    """What a plan's search was: iterations, and candidates rolled out."""
    iterations = [count for record in records for count in record.iterations]
    candidates = [count for record in records for count in record.candidates]
    return {
        "iterations_mean": float(np.mean(iterations)) if iterations else None,
        "candidates_p50": _percentile(candidates, 50),
        "candidates_p95": _percentile(candidates, 95),
    }


def violations(records: Sequence[Record]) -> int:
    """Executed control steps at which a guardrail was broken."""
    return sum(record.guardrail_violations for record in records)


def _percentile(values: Sequence[float | int], share: float | int) -> float | None:
    return float(np.percentile(values, share)) if values else None
