"""From finished plans to planning time at the same energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wm.experiments.interval import wilson

Plans = Sequence[Mapping[str, Any]]
"""Rows of one search, a problem each: ``index``, ``plan_ms``, ``energy`` of the plan, and for every iteration
``trace``, the best energy so far, and ``ended_ms`` since the plan began."""

FASTER = 20.0
"""A search meets the bar that takes such a share of the reference's time at a mean energy that is no higher."""

RESAMPLES = 10_000
"""Of the problems, for a bootstrap interval."""


def numbers(plans: Plans, reference: Plans) -> dict[str, Any]:
    """A search beside the reference on the problems, at least one, that both have planned.

    ``times_faster`` is the reference's time for a whole plan over this search's: ``total`` of the sums over all
    problems, ``p50`` and ``geometric_mean`` of the problems' ratios. ``energy``: of the plans, in the mean; the
    difference to the reference's and the mean logarithm of the ratio, with percentile bootstrap intervals over the
    problems (None of one problem), and the ratio's quartiles. ``no_higher``: problems whose plan's energy is not above
    the reference's. ``reached``: problems in which the search had an energy that is not, at some time, and the
    reference's whole time over that time; a problem where it never had counts as 0 in the median, which is None where
    that makes it 0, and is left out of the geometric mean.
    """
    theirs = {row["index"]: row for row in reference}
    pairs = [(row, theirs[row["index"]]) for row in plans if row["index"] in theirs]
    times, reference_times = _paired(pairs, "plan_ms")
    energies, reference_energies = _paired(pairs, "energy")
    difference, logs = energies - reference_energies, np.log(energies / reference_energies)
    return {
        "problems": len(pairs),
        "plan_ms": _quartiles(times),
        "candidates_p50": float(np.median([row["candidates"] for row, _ in pairs])),
        "iterations_p50": float(np.median([len(row["trace"]) for row, _ in pairs])),
        "times_faster": {
            "total": float(reference_times.sum() / times.sum()),
            "p50": float(np.median(reference_times / times)),
            "geometric_mean": _geometric_mean(reference_times / times),
        },
        "energy": {
            "mean": float(energies.mean()),
            "reference_mean": float(reference_energies.mean()),
            "difference": float(difference.mean()),
            "difference_ci95": _mean_interval(difference),
            "log_ratio": float(logs.mean()),
            "log_ratio_ci95": _mean_interval(logs),
            "ratio": _quartiles(energies / reference_energies),
        },
        "no_higher": _share(difference <= 0),
        "reached": _reached(pairs),
    }


def met(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The searches that meet the bar, the fastest first; see `FASTER`."""
    found = [n for n, r in table.items() if r["times_faster"]["total"] >= FASTER and r["energy"]["difference"] <= 0]
    return sorted(found, key=lambda name: -table[name]["times_faster"]["total"])


def milliseconds_to(energy: float, row: Mapping[str, Any]) -> float | None:
    """When the search had an energy that is not above this one: at an iteration's end, or with its plan; or never."""
    for best, ended in zip(row["trace"], row["ended_ms"], strict=True):
        if best <= energy:
            return float(ended)
    return float(row["plan_ms"]) if row["energy"] <= energy else None


def _reached(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    after = [milliseconds_to(theirs["energy"], row) for row, theirs in pairs]
    found = [0.0 if ms is None else theirs["plan_ms"] / ms for ms, (_, theirs) in zip(after, pairs, strict=True)]
    ratios = np.array(found)
    return _share(ratios > 0) | {
        "times_faster_p50": float(np.median(ratios)) or None,
        "times_faster_geometric_mean": _geometric_mean(ratios[ratios > 0]) if ratios.any() else None,
    }


def _share(holds: np.ndarray) -> dict[str, Any]:
    count, of = int(holds.sum()), len(holds)
    return {"problems": count, "share": count / of, "ci95": list(wilson(count, of))}


def _paired(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], key: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row[key] for row, _ in pairs], float), np.array([row[key] for _, row in pairs], float)


def _quartiles(values: np.ndarray) -> dict[str, float]:
    return dict(zip(("p25", "p50", "p75"), np.quantile(values, [0.25, 0.5, 0.75]).tolist(), strict=True))


def _geometric_mean(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


def _mean_interval(values: np.ndarray) -> list[float] | None:
    """95 % percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13)."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    found: list[float] = np.quantile(values[drawn].mean(1), [0.025, 0.975]).tolist()
    return found
