"""Pictures of an evaluation: failures side by side, how long the successes took, and the world's measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wm.experiments.episode_log import Record
from wm.experiments.report.figures import png
from wm.experiments.worlds.base import Panel, World
from wm.experiments.worlds.tasks import picture

MOST_FAILURES = 12
_COLUMNS = 3


def failures_png(records: Sequence[Record], env: Any, world: World) -> bytes:
    """Up to 12 failures, evenly spread over all of them: start, goal and end of each, with the errors at the end.

    Args:
        records: Of the evaluation.
        env: Draws the states.
        world: Says the errors.
    """
    failures = [record for record in records if not record.reached]
    spread = np.linspace(0, len(failures) - 1, min(len(failures), MOST_FAILURES)).round().astype(int)
    shown = [failures[i] for i in spread]
    rows = max(1, -(-len(shown) // _COLUMNS))
    figure = Figure(figsize=(4.6 * _COLUMNS, 0.4 + 1.95 * rows), layout="constrained")
    figure.suptitle(f"{len(shown)} of {len(failures)} failures in {len(records)} episodes: start | goal | end")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, record in zip(axes.flat, shown, strict=False):
        states = [np.array(s) for s in (record.start, record.goal, record.end)]
        axis.imshow(np.concatenate([_framed(picture(env, state)) for state in states], axis=1))
        axis.set_title(f"{record.index}: {world.failure_note(record)}", fontsize=9)
    return png(figure)


def summary_png(records: Sequence[Record], budget: int, world: World) -> bytes:
    """Histogram of the steps to success, and the world's panels."""
    panels = world.panels(records)
    figure = Figure(figsize=(5.0 * (1 + len(panels)), 3.6), layout="constrained")
    axes = list(figure.subplots(1, 1 + len(panels), squeeze=False).flat)
    _histogram(axes[0], records, budget)
    for axis, panel in zip(axes[1:], panels, strict=True):
        _scatter(axis, panel, np.array([record.reached for record in records]))
    return png(figure)


def _histogram(axis: Axes, records: Sequence[Record], budget: int) -> None:
    reached = [record.steps for record in records if record.reached]
    width = max(1, budget // 10)
    axis.hist(reached, bins=list(range(0, budget + 5, width)), color="tab:blue", edgecolor="white")
    axis.set(title=f"{len(reached)} of {len(records)} reached", xlabel="control steps to success", ylabel="episodes")
    axis.set_ylim(bottom=0, top=None if reached else 1)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def _scatter(axis: Axes, panel: Panel, reached: np.ndarray) -> None:
    x, y = np.array(panel.x), np.array(panel.y)
    for flag, colour, label in ((True, "tab:blue", "reached"), (False, "tab:red", "missed")):
        axis.scatter(x[reached == flag], y[reached == flag], s=12, alpha=0.7, color=colour, label=label)
    if panel.line is not None:
        axis.axhline(panel.line, color="grey", linewidth=0.8, linestyle="--")
    axis.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
    axis.legend(frameon=False)


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((0, 0), (2, 2), (0, 0)), constant_values=255)
