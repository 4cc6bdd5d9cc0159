"""The encoder study's pictures: success against logs, success under shifts, and what the shifts look like."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from wm.envs.pusht.env import PushTEnv
from wm.envs.pusht.shifts import ShiftedPushTEnv
from wm.experiments.goals import sample_tasks
from wm.experiments.report.figures import png
from wm.experiments.studies.encoders_candidates import CONTROLS
from wm.experiments.studies.encoders_models import BUDGET, FORMS, LOOKS, OFFSET, USUAL
from wm.experiments.studies.encoders_numbers import Figures, Success

_COLOURS = [f"C{i}" for i in range(10) if i != 7] + ["black", "gold"]  # C7 is a grey, as the controls are


def logs_png(found: Mapping[str, Figures]) -> bytes:
    """Success with its interval against the number of logs; controls are dashed."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axis = figure.subplots()
    for place, (name, each) in enumerate(found.items()):
        counts = {n: count for (form, n, look), count in each.success.items() if (form, look) == (FORMS[0], USUAL)}
        if not counts:
            continue
        logs = np.array(sorted(counts))
        apart = logs * 1.02 ** (place - len(found) / 2)  # so that their bars do not cover each other
        rates, bars = _bars([counts[n] for n in logs])
        style = {"color": _COLOURS[place % len(_COLOURS)]}
        if name in CONTROLS:
            style = {"color": "0.45", "linestyle": ("--", ":", "-.")[CONTROLS.index(name)]}
        axis.errorbar(apart, rates, yerr=bars, marker="o", markersize=4, elinewidth=0.7, label=name, **style)  # type: ignore[arg-type]
    axis.set(
        xscale="log", xlabel="logged episodes", ylabel="success [%]", ylim=(0, 100), title="push-T, usual pictures"
    )
    ticks = sorted({n for each in found.values() for form, n, _ in each.success if form == FORMS[0]})
    axis.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    if ticks:
        figure.legend(loc="outside right upper")
    return png(figure)


def shifts_png(found: Mapping[str, Figures], middle: int) -> bytes:
    """Success with its interval on the usual pictures and under each shift, of every encoder."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    axis, names = figure.subplots(), list(found)
    for index, look in enumerate(LOOKS):
        some = [(place, found[name].success.get((FORMS[0], middle, look))) for place, name in enumerate(names)]
        known = [(place, count) for place, count in some if count is not None]
        if known:
            rates, bars = _bars([count for _, count in known])
            places = [place + 0.2 * (index - (len(LOOKS) - 1) / 2) for place, _ in known]
            colour = "0.6" if look == USUAL else _COLOURS[index - 1]
            axis.bar(places, rates, 0.19, yerr=bars, color=colour, label=look, error_kw={"elinewidth": 0.7})
    axis.set(ylabel="success [%]", ylim=(0, 100), title=f"{middle:,} logs; pictures that no log shows")
    axis.set_xticks(range(len(names)), names, rotation=25, ha="right")
    if axis.patches:
        axis.legend(ncols=len(LOOKS))
    return png(figure)


def looks_png(seed: int, strength: float, size: int = 96, count: int = 4) -> bytes:
    """Starts and goals of some tasks (columns in pairs) as each look shows them (rows)."""
    figure = Figure(figsize=(1.9 * 2 * count, 1.9 * len(LOOKS)), layout="constrained")
    axes = figure.subplots(len(LOOKS), 2 * count)
    tasks = sample_tasks("pusht", seed, count, OFFSET, size)
    for row, look in zip(axes, LOOKS, strict=True):
        env = PushTEnv(image_size=size) if look == USUAL else ShiftedPushTEnv(look, strength, image_size=size)
        for column, task in enumerate(tasks):
            for side, (state, path) in enumerate(((task.start_state, task.seed), (task.goal_state, task.seed + 1))):
                row[2 * column + side].imshow(env.reset(seed=path, options={"state": state})[0]["image"])
                row[2 * column + side].set_title(("start", "goal")[side] if look == USUAL else "", fontsize=9)
        row[0].set_ylabel(look)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    figure.suptitle(f"strength of the shifts: {strength:g}; goals within {BUDGET} control steps", fontsize=9)
    return png(figure)


def _bars(counts: list[Success]) -> tuple[list[float], np.ndarray]:
    """Rates and the lengths of their bars down and up, percent."""
    rates = [100 * count.rate for count in counts]
    ends = 100 * np.array([count.interval for count in counts])
    return rates, np.abs(ends.T - np.array(rates))
