"""`energy.png`: energies, searches, planning times, prediction errors and margins of one planned episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wm.experiments.report.figures import tidied_png
from wm.experiments.report.record import PlanRecord

_BLUE, _ORANGE, _RED, _GREY = "#2563eb", "#ea7317", "#c0362c", "#8a94a6"


def energy_png(record: PlanRecord, margins: Mapping[str, Sequence[float]], units: Mapping[str, str]) -> bytes:
    """The picture.

    Args:
        record: The episode.
        margins: Executed margin of each guardrail at every control step, the start first.
        units: Unit of each guardrail's margin.
    """
    rows = 2 + (len(margins) + 1) // 2
    figure = Figure(figsize=(11, 3.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False, gridspec_kw={"hspace": 0.08, "wspace": 0.05})
    _energies(axes[0, 0], record)
    _searches(axes[0, 1], record)
    _times(axes[1, 0], record)
    _prediction(axes[1, 1], record)
    below = list(axes[2:].flat)
    for axis, (name, executed) in zip(below, margins.items(), strict=False):
        _margin(axis, record, name, executed, units[name])
    for axis in below[len(margins) :]:
        axis.axis("off")
    return tidied_png(figure)


def _energies(axis: Axes, record: PlanRecord) -> None:
    total = [energy["total"] for energy in record.energies]
    axis.plot(record.planned_at, total, "o-", color=_BLUE, label="total", markersize=4)
    names = list(record.energies[0]["terms"]) if record.energies else []
    if len(names) > 1:
        for name in names:
            axis.plot(record.planned_at, [e["terms"][name] for e in record.energies], "--", linewidth=1, label=name)
        axis.legend(frameon=False)
    axis.set(title="Energy of the chosen plan", xlabel="control step", ylabel="energy (less is better)")
    axis.set_ylim(bottom=0)


def _searches(axis: Axes, record: PlanRecord) -> None:
    colours = colormaps["viridis"]
    for index, search in enumerate(record.searches):
        share = index / max(1, len(record.searches) - 1)
        label = f"step {record.planned_at[index]}" if index in (0, len(record.searches) - 1) else None
        line = range(1, len(search["trace"]) + 1)
        axis.plot(line, search["trace"], ".-", color=colours(0.9 * share), linewidth=1, label=label)
    axis.set(title="Every search, first to last replan", xlabel="iteration", ylabel="best energy so far")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, title="planned at")


def _times(axis: Axes, record: PlanRecord) -> None:
    width = 0.6 * record.model["frameskip"] * record.planner["execute"]
    axis.bar(record.planned_at, record.plan_ms, width=width, color=_BLUE, alpha=0.85)
    deadline = record.planner["deadline_ms"]
    if deadline is not None:
        axis.axhline(deadline, color=_RED, linewidth=1.2, linestyle="--", label=f"deadline {deadline:g} ms")
        axis.set_ylim(0, 1.3 * max([deadline, *record.plan_ms]))  # room for the legend
        axis.legend(frameon=False, loc="upper right")
    axis.set(title="Time of each replan", xlabel="control step", ylabel="ms")


def _prediction(axis: Axes, record: PlanRecord) -> None:
    errors = record.prediction_errors
    steps = [error["step"] for error in errors]
    axis.plot(steps, [e["copy_last"] for e in errors], "o--", color=_GREY, label="predicting no change", markersize=4)
    axis.plot(steps, [e["error"] for e in errors], "o-", color=_ORANGE, label="imagined", markersize=4)
    axis.set(title="One latent step ahead: imagined and real", xlabel="control step", ylabel="squared error")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)


def _margin(axis: Axes, record: PlanRecord, name: str, executed: Sequence[float], unit: str) -> None:
    axis.plot(range(len(executed)), executed, "-", color=_BLUE, label="executed")
    planned = [margin[name] for margin in record.margins]
    axis.plot(record.planned_at, planned, "o", color=_ORANGE, label="smallest in the plan", markersize=4)
    low, high = axis.get_ylim()
    high = max(high, 0.0)
    axis.set_ylim(min(low, -0.08 * (high - low)), high + 0.3 * (high - low))  # room for the legend
    axis.axhspan(axis.get_ylim()[0], 0, color=_RED, alpha=0.12, linewidth=0)
    axis.axhline(0, color=_RED, linewidth=1.2, label="broken below")
    axis.set(title=f"Guardrail {name}", xlabel="control step", ylabel=f"margin [{unit}]")
    axis.legend(frameon=False, loc="upper center", ncol=3, columnspacing=1.2, fontsize=9)
