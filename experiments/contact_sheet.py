"""Pictures of an evaluation: failures side by side, and how long the successes took."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wm.experiments.episode_log import Record
from wm.experiments.goals import picture

MOST_FAILURES = 12
_COLUMNS = 3


def failures_png(records: Sequence[Record], env: Any) -> bytes:
    """Up to 12 failures, evenly spread over all of them: start, goal and end of each, with the errors at the end.

    Args:
        records: Of the evaluation.
        env: Draws the states.
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
        degrees = np.degrees(record.angle_error_rad)
        errors = f"pusher {record.agent_error_px:.0f} px, block {record.block_error_px:.0f} px, {degrees:.0f}°"
        axis.set_title(f"{record.index}: {errors}", fontsize=9)
    return _png(figure)


def summary_png(records: Sequence[Record], budget: int) -> bytes:
    """Histogram of the steps to success, and the block's error at the end against how far it had to go."""
    reached = [record.steps for record in records if record.reached]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(reached, bins=np.arange(0, budget + 5, max(1, budget // 10)), color="tab:blue", edgecolor="white")
    left.set(title=f"{len(reached)} of {len(records)} reached", xlabel="control steps to success", ylabel="episodes")
    left.set_ylim(bottom=0, top=None if reached else 1)
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    for flag, colour, label in ((True, "tab:blue", "reached"), (False, "tab:red", "missed")):
        chosen = [record for record in records if record.reached == flag]
        shift = [float(np.linalg.norm(np.subtract(r.goal[2:4], r.start[2:4]))) for r in chosen]
        right.scatter(shift, [r.block_error_px for r in chosen], s=12, alpha=0.7, color=colour, label=label)
    right.axhline(20.0, color="grey", linewidth=0.8, linestyle="--")
    right.set(title="the block", xlabel="start to goal [px]", ylabel="end to goal [px]")
    right.legend(frameon=False)
    return _png(figure)


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((0, 0), (2, 2), (0, 0)), constant_values=255)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return data.getvalue()
