"""Pretraining an encoder without labels: one loop for every objective (`wm.objectives`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wm.encoders.base import Encoder
from wm.fit import FitConfig, Hooks, fit
from wm.objectives.base import Moment, Objective, ObjectiveConfig, Source
from wm.objectives.monitors import Watched, collapse, least_of, measure

NAME = "pretrain"
"""Of the log and the checkpoint."""


def pretrain(
    encoder: Encoder,
    source: Source,
    config: ObjectiveConfig,
    fit_config: FitConfig,
    out: Path,
    watched: Sequence[Watched] = (),
    probe_every: int = 300,
) -> dict[str, float]:
    """Train `encoder` in place; progress, log and checkpoints as `wm.fit.fit`.

    Args:
        encoder: Freshly initialised.
        source: Frames, at least `config.frames` per sample.
        config: The objective.
        fit_config: The schedule.
        out: Run folder.
        watched: Frames of each source that the features are watched on (`wm.objectives.monitors.measure`): with each
            log line, and again at the end; of several sources the least of each figure is told. A collapse that is
            seen after the schedule's warm-up is said on stderr and logged as ``collapsed`` 1. Watching changes nothing
            of what is learned.
        probe_every: Steps between probes of the true state, for they take longer.

    Returns:
        The figures in the end, with ``collapsed`` where the run was long enough; none where nothing is watched.
    """
    objective = config.build(encoder, source)
    run = _Run(objective, fit_config, watched, probe_every)

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        batch = source.draw(rng, fit_config.batch)
        value, figures = objective.loss(batch, run.moment(generator))
        return value, {**figures}

    fit(objective, loss, fit_config, out, NAME, run)
    if objective.kept is not encoder:
        encoder.load_state_dict(objective.kept.state_dict())
    encoder.eval()
    return run.figures(fit_config.steps)


class _Run(Hooks):
    """Tells the objective which step it is, and watches it."""

    def __init__(self, objective: Objective, schedule: FitConfig, watched: Sequence[Watched], probe_every: int) -> None:
        self.objective, self.schedule, self.watched, self.probe_every = objective, schedule, watched, probe_every
        self.step, self.collapsed = 0, False

    def moment(self, generator: torch.Generator) -> Moment:
        return Moment(self.step, self.schedule.steps, generator)

    def before_step(self, step: int) -> None:
        self.step = step

    def after_step(self, done: int) -> None:
        self.objective.after_step(done / self.schedule.steps)

    def figures(self, done: int) -> dict[str, float]:
        if not self.watched:
            return {}
        probe = done % self.probe_every == 0 or done == self.schedule.steps
        of_each = [measure(self.objective, each, probe, source) for source, each in enumerate(self.watched)]
        figures = least_of(of_each)
        if done <= self.schedule.warmup:  # fresh features hardly vary: too early to judge
            return figures
        why = collapse(figures)
        if why and not self.collapsed:
            of = [f" (source {n})" for n, each in enumerate(of_each, start=1) if len(of_each) > 1 and collapse(each)]
            seen = f"COLLAPSE seen at step {done}{''.join(of)}: {', '.join(why)}"
            print(f"wm: {seen}. The run goes on.", file=sys.stderr)
        self.collapsed = bool(why)
        return figures | {"collapsed": float(self.collapsed)}
