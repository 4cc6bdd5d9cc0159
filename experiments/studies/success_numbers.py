"""From finished episodes to success against planning time, and to what that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from wm.experiments.interval import paired_difference, wilson
from wm.experiments.studies.success_settings import ORACLE, REFERENCE

Episodes = Sequence[Mapping[str, Any]]

EQUAL, FASTER = 0.02, 20.0
"""A setting is as good as the reference, and enough faster, where it loses no more success and takes such a share."""

GRADIENT_LOSS, GRADIENT_SHARE = 0.03, 0.5
"""The same for gradient searches beside CEM."""

VARIES = 1.1
"""Effort varies where the 90th percentile of a setting's candidates is so many times the 10th."""

AUTO = "think-auto"


def numbers(rows: Episodes, reference: Episodes) -> dict[str, Any]:
    """Success, times and effort of a setting, and its difference to the reference on the goals that both played.

    ``plan_ms_*``: per replan, from remembered observations to actions. ``observe_ms_p50``: of encoding a picture, the
    same work in every search, so that it tells how fast the machine was meanwhile. ``observing_share``: of all the time
    that is spent observing (encoding every control step's picture) and planning.
    """
    count, reached = len(rows), sum(row["reached"] for row in rows)
    plans, frames = _all(rows, "plan_ms"), _all(rows, "observe_ms")
    found: dict[str, Any] = {
        "episodes": count,
        "success": reached / count,
        "success_ci95": list(wilson(reached, count)),
        "plan_ms_p50": float(np.median(plans)),
        "plan_ms_mean": float(plans.mean()),
        "plan_ms_p95": float(np.quantile(plans, 0.95)),
        "observe_ms_p50": float(np.median(frames)),
        "observing_share": float(frames.sum() / (frames.sum() + plans.sum())),
        "candidates_p50": float(np.median(_all(rows, "candidates"))),
        "candidates_p95": float(np.quantile(_all(rows, "candidates"), 0.95)),
        "iterations_mean": float(_all(rows, "iterations").mean()),
        "points_per_ms": 100.0 * reached / count / float(plans.mean()),
    }
    beside = _beside(rows, reference)
    return found if beside is None else found | {"beside_reference": beside}


def _beside(rows: Episodes, reference: Episodes) -> dict[str, Any] | None:
    """Difference of success and ratio of times on the goals that both played; None where there are none."""
    pairs = _paired(rows, reference)
    if not pairs:
        return None
    difference, interval = paired_difference([bool(a["reached"]) for a, _ in pairs], [b["reached"] for _, b in pairs])
    both = [_all([pair[i] for pair in pairs], "plan_ms") for i in (0, 1)]
    return {
        "episodes": len(pairs),
        "difference": difference,
        "ci95": list(interval),
        "times_faster": float(np.median(both[1]) / np.median(both[0])),
        "times_faster_mean": float(both[1].mean() / both[0].mean()),
    }


def answers(found: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Episodes]) -> dict[str, Any]:
    """What the study is for; None where what a question needs was not played."""
    return {
        "as_good_and_faster": _as_good(found),
        "gradient": {cem: _gradient(cem, found, rows) for cem in (REFERENCE, "cem-300x10") if cem in rows},
        "effort_follows": {name: _follows(some) for name, some in rows.items() if name != ORACLE and _varies(some)},
        "effort_follows_oracle_steps": _follows_oracle(rows),
        "auto_beside_fixed": _auto(found, rows),
    }


def _as_good(found: Mapping[str, Mapping[str, Any]]) -> list[str] | None:
    """Settings within `EQUAL` of the reference's success, in the mean `FASTER` times faster; the fastest first."""
    if REFERENCE not in found:
        return None
    beside = {name: row["beside_reference"] for name, row in found.items() if "beside_reference" in row}
    passed = [n for n, b in beside.items() if _no_worse(b["difference"], EQUAL) and b["times_faster_mean"] >= FASTER]
    return sorted(passed, key=lambda name: -beside[name]["times_faster_mean"])


def _gradient(
    cem: str, found: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Episodes]
) -> dict[str, dict[str, Any]]:
    """Every search by gradients alone beside a CEM: its loss, its share of the mean time, and whether both will do."""
    result = {}
    for name in found:
        if not name.startswith(("gradient-", "lbfgs-")):
            continue
        beside = _beside(rows[name], rows[cem])
        if beside is None:
            continue
        share = 1.0 / beside["times_faster_mean"]
        passed = _no_worse(beside["difference"], GRADIENT_LOSS) and share <= GRADIENT_SHARE
        result[name] = {"difference": beside["difference"], "time_share": share, "passed": passed}
    return result


def _varies(rows: Episodes) -> bool:
    """Effort differs by more than what an episode's first plan and its last, shorter ones make of it."""
    low, high = np.quantile(_all(rows, "candidates"), [0.1, 0.9])
    return bool(high > VARIES * low)


def _follows(rows: Episodes) -> dict[str, float | None]:
    """Rank correlation of a replan's candidates with the goal's energy and distance, and with the steps still needed.

    ``steps`` is over the replans of episodes that reached their goal, the control steps that they still took.
    """
    reached = [row for row in rows if row["reached"]]
    spent = _all(rows, "candidates")
    return {
        "energy": rank_correlation(spent, _all(rows, "goal_energy")),
        "distance": rank_correlation(spent, _all(rows, "goal_distance")),
        "steps": rank_correlation(_all(reached, "candidates"), _all(reached, "steps_left")),
        "plan_energy": rank_correlation(spent, _all(rows, "plan_energy")),
    }


def _follows_oracle(rows: Mapping[str, Episodes]) -> dict[str, Any] | None:
    """Rank correlation of an episode's mean candidates a replan with the steps that the oracle needed for its goal."""
    if not {AUTO, ORACLE} <= rows.keys():
        return None
    pairs = [(a, b) for a, b in _paired(rows[AUTO], rows[ORACLE]) if b["reached"] and a["candidates"]]
    spent, steps = [float(np.mean(a["candidates"])) for a, _ in pairs], [b["steps"] for _, b in pairs]
    return {"episodes": len(pairs), "correlation": rank_correlation(np.array(spent), np.array(steps))}


def _auto(found: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Episodes]) -> dict[str, Any] | None:
    """`AUTO` beside every setting of fixed effort.

    It ``beats`` them where none of those that take no longer in the mean reaches as much. ``dominated_by``: those that
    reach at least as much in no more time. ``beside``: by how much more `AUTO` reaches than each on the goals that both
    played, and its share of the other's mean time.
    """
    if AUTO not in found:
        return None
    own = found[AUTO]
    fixed = {n: r for n, r in found.items() if not n.startswith(("think-auto", "auto")) and n != ORACLE}
    quick = {n: r for n, r in fixed.items() if r["plan_ms_mean"] <= own["plan_ms_mean"]}
    return {
        "beats_all_of_its_time": bool(quick) and all(r["success"] < own["success"] for r in quick.values()),
        "dominated_by": [n for n, r in quick.items() if r["success"] >= own["success"]],
        "fixed_of_its_success_take": {
            n: r["plan_ms_mean"] / own["plan_ms_mean"] for n, r in fixed.items() if r["success"] >= own["success"]
        },
        "beside": {n: _ahead(rows[AUTO], rows[n]) for n in fixed},
        "points_per_ms": own["points_per_ms"],
        "best_fixed_points_per_ms": max(fixed.items(), key=lambda item: item[1]["points_per_ms"])[0] if fixed else None,
    }


def _ahead(rows: Episodes, others: Episodes) -> dict[str, Any] | None:
    found = _beside(rows, others)
    if found is None:
        return None
    return {key: found[key] for key in ("episodes", "difference", "ci95")} | {"time": 1 / found["times_faster_mean"]}


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's; None where one of them is constant or there are fewer than three."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _no_worse(difference: float, loss: float) -> bool:
    return difference >= -loss - 1e-9  # differences are multiples of 1 / episodes


def _all(rows: Episodes, key: str) -> np.ndarray:
    return np.array([value for row in rows for value in row[key]], float)


def _paired(rows: Episodes, others: Episodes) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    theirs = {row["index"]: row for row in others}
    return [(row, theirs[row["index"]]) for row in rows if row["index"] in theirs]
