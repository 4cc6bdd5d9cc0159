"""Energy against planning time, every search beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from wm.experiments.report.figures import png
from wm.experiments.studies.same_energy_numbers import FASTER, Plans

POINTS = 300
"""Of a course."""


def energy_png(reference: str, plans: Mapping[str, Plans], table: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The course of every search's best energy, median, and where its plans end, with quartiles.

    Args:
        reference: Name of the search whose final energies are 1.
        plans: Rows of each search, see `wm.experiments.studies.same_energy_numbers.Plans`.
        table: Their `numbers`, of all but the reference.
    """
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    axis, colours = figure.subplots(), colormaps["tab20"].colors  # type: ignore[attr-defined]
    slow = float(np.median([row["plan_ms"] for row in plans[reference]]))
    _course(axis, plans[reference], plans[reference], slow, "black")
    axis.plot(slow, 1.0, "o", color="black", label=reference)
    for colour, (name, row) in zip(colours * len(table), table.items(), strict=False):
        times, ratios = row["plan_ms"], row["energy"]["ratio"]
        _course(axis, plans[name], plans[reference], times["p50"], colour)
        x, y = ([[q["p50"] - q["p25"]], [q["p75"] - q["p50"]]] for q in (times, ratios))
        axis.errorbar(times["p50"], ratios["p50"], y, x, "o", color=colour, elinewidth=0.8, label=name)
    axis.axhline(1.0, color="0.5", linewidth=0.8, linestyle="--")
    axis.axvline(slow / FASTER, color="0.5", linewidth=0.8, linestyle=":", label=f"1/{FASTER:g} of its time")
    axis.set(xscale="log", yscale="log", xlabel="ms since the plan began", ylabel=f"energy over that of {reference}")
    axis.set(title="Best energy so far (median), and plans (quartiles)")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return png(figure)


def course(plans: Plans, reference: Plans, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """``(len(times),)`` the best energy so far over the reference's final one, median over the problems.

    NaN before half of them have ended an iteration.
    """
    final, found = {row["index"]: row["energy"] for row in reference}, []
    for row in plans:
        if row["index"] in final:
            ended = np.searchsorted(row["ended_ms"], times, side="right")
            found.append(np.array([np.inf, *row["trace"]])[ended] / final[row["index"]])
    middle = np.median(found, axis=0)
    return np.where(np.isfinite(middle), middle, np.nan)


def _course(axis: Any, plans: Plans, reference: Plans, end: float, colour: Any) -> None:
    times = np.geomspace(min(row["ended_ms"][0] for row in plans), end, POINTS)
    axis.plot(times, course(plans, reference, times), color=colour, linewidth=0.9, alpha=0.7)
