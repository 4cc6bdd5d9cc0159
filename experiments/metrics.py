"""From finished episodes to the numbers that are published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm.experiments.episode_log import Record
from wm.experiments.goals import MOVED_PX
from wm.experiments.interval import wilson

TIMINGS = ("plan_ms_p50", "plan_ms_p95", "observe_ms_p50")
"""The only metrics that may differ between runs of the same settings."""


def rates(records: Sequence[Record]) -> dict[str, Any]:
    """Success of one actor: shares with Wilson's 95 % intervals, counts, and steps to success."""
    count = len(records)
    reached, block = sum(r.reached for r in records), sum(r.block_reached for r in records)
    steps = [r.steps for r in records if r.reached]
    return {
        "episodes": count,
        "success_rate": reached / count,
        "success_ci95": list(wilson(reached, count)),
        "block_success_rate": block / count,
        "block_success_ci95": list(wilson(block, count)),
        "steps_to_success_mean": float(np.mean(steps)) if steps else None,
    }


def timings(records: Sequence[Record]) -> dict[str, float | None]:
    """Wall times in ms: of a plan, from remembered observations to actions; and of taking in (encoding) a frame."""
    plans = [ms for record in records for ms in record.plan_ms]
    frames = [ms for record in records for ms in record.observe_ms]
    values = (_percentile(plans, 50), _percentile(plans, 95), _percentile(frames, 50))
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


def goals(records: Sequence[Record]) -> dict[str, float]:
    """How far the goals ask the block to move: mean in px, and the share of more than 20 px."""
    shifts = np.array([np.linalg.norm(np.subtract(r.goal[2:4], r.start[2:4])) for r in records])
    return {
        "goal_block_shift_px_mean": float(shifts.mean()),
        "goals_moving_block": float((shifts > MOVED_PX).mean()),
    }


def violations(records: Sequence[Record]) -> int:
    """Executed control steps at which a guardrail was broken."""
    return sum(record.guardrail_violations for record in records)


def _percentile(values: Sequence[float | int], share: float | int) -> float | None:
    return float(np.percentile(values, share)) if values else None
