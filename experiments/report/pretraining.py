"""`pretrain.png`: the loss of a pretraining and what its monitors saw, over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from wm.experiments.report.figures import tidied_png
from wm.objectives.monitors import LEAST_STD

_BLUE, _ORANGE, _RED = "#2563eb", "#ea7317", "#c0362c"


def pretraining_png(objective: str, log: Sequence[dict[str, Any]]) -> bytes:
    """The picture.

    Args:
        objective: Its name.
        log: Lines of `pretrain.jsonl`, with or without monitors.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, gridspec_kw={"hspace": 0.08, "wspace": 0.05})
    _curves(axes[0, 0], log, {"loss": "loss"})
    axes[0, 0].set(title=f"Loss of {objective}", ylabel="loss")
    _curves(axes[0, 1], log, {"feature_rank": "features", "embedding_rank": "embedding"})
    axes[0, 1].set(title="Effective rank (RankMe)", ylabel="directions")
    axes[0, 1].set_ylim(bottom=0)
    _curves(axes[1, 0], log, {"feature_std": "features", "embedding_std": "embedding"})
    axes[1, 0].set(title="Standard deviation, mean over numbers", ylabel="std", yscale="log")
    axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[1, 0].yaxis.set_major_formatter("{x:g}")
    axes[1, 0].yaxis.set_minor_formatter(NullFormatter())
    if axes[1, 0].lines:
        axes[1, 0].axhline(LEAST_STD, color=_RED, linewidth=1.2, linestyle="--", label="embedding collapsed below")
    _curves(axes[1, 1], log, {"probe_r2": "linear", "knn_r2": "nearest neighbours"})
    axes[1, 1].set(title="True state read from the features", ylabel="R² on held-out frames", ylim=(0, 1.02))
    if any(line.get("collapsed") for line in log):
        figure.suptitle("shaded: the monitors see a collapse", color=_RED)
    for axis in axes.flat:
        _shade_collapse(axis, log)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
        axis.set(xlabel="step", xlim=(0, 1.03 * log[-1]["step"]))
    return tidied_png(figure)


def _curves(axis: Axes, log: Sequence[dict[str, Any]], names: dict[str, str]) -> None:
    """A line for each figure that the log has; where it has none, the panel says so."""
    for (name, label), colour in zip(names.items(), (_BLUE, _ORANGE), strict=False):
        points = [(line["step"], line[name]) for line in log if name in line]
        if points:
            axis.plot(*zip(*points, strict=True), ".-", color=colour, label=label, markersize=4)
    if not axis.lines:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color="0.5")


def _shade_collapse(axis: Axes, log: Sequence[dict[str, Any]]) -> None:
    """Red behind the steps after which the monitors saw a collapse."""
    before = 0
    for line in log:
        if line.get("collapsed"):
            axis.axvspan(before, line["step"], color=_RED, alpha=0.12, linewidth=0)
        before = line["step"]
