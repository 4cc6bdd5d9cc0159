"""The picture of a training run's held-out report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def training_report(out: Path, report: dict[str, Any]) -> None:
    """Write `<out>/report.png`: prediction error against horizon beside copying, and what a linear probe can read.

    Args:
        out: Run folder.
        report: `wm.experiments.train.held_out_report`'s.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(report["latent_steps"], report["copy_last"], "o--", color="0.6", label="copy the last latent")
    left.plot(report["latent_steps"], report["error"], "o-", color="tab:blue", label="predictor")
    for step, value, share in zip(report["latent_steps"], report["error"], report["share_of_copy"], strict=True):
        left.annotate(f"{share:.1%}", (step, value), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    left.set(xlabel="latent steps ahead", ylabel="mean squared latent error", yscale="log", title="Held-out prediction")
    left.legend()
    names = list(report["probe"])
    scores = [max(0.0, report["probe"][name]["r2"]) for name in names]
    bars = right.barh(names, scores, color="tab:green")
    right.bar_label(bars, [f"{report['probe'][name]['r2']:.3f}" for name in names], padding=3, fontsize=8)
    right.invert_yaxis()
    right.set(xlim=(0, 1.15), xlabel="R² of a linear probe", title="What the latent holds (diagnostic only)")
    figure.savefig(out / "report.png", dpi=120)
