"""The one training loop: progress, JSON-lines log, checkpoints, and an exact resume.

Every random draw of step k comes from generators seeded with (seed, k), so a run that was killed and resumed from its
checkpoint takes the same steps as one that never stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from wm.checkpoint import load_training, save_training
from wm.errors import BadInputError


@dataclass(frozen=True)
class FitConfig:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps.
        batch: Windows per step.
        learning_rate: Peak of the schedule (linear warm-up over `warmup` steps, then cosine to 1 %).
        weight_decay: AdamW's, on matrices only.
        warmup: Steps.
        clip: Largest gradient norm.
        seed: Of everything random in the run.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between log lines.
    """

    steps: int
    batch: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 200
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200
    log_every: int = 50


StepLoss = Callable[[np.random.Generator, torch.Generator], tuple[Tensor, dict[str, float | Tensor]]]
"""Draws a batch from the first generator, returns the loss and named figures for the log."""


class Hooks:
    """What a run may do beside its steps; these hooks do nothing.

    Whatever a hook changes has to be in the module's state (parameters or buffers) and follow from it and the step's
    number alone, or a resumed run would not end as one that never stopped.
    """

    def before_step(self, step: int) -> None:
        """Called before the loss of step `step` (the first is 0), also of the first step after a resume."""

    def after_step(self, done: int) -> None:
        """Called when `done` steps are taken, before they are logged or saved."""

    def figures(self, done: int) -> dict[str, float]:
        """Further figures for the log line after `done` steps."""
        return {}


NO_HOOKS = Hooks()


def fit(module: nn.Module, loss: StepLoss, config: FitConfig, out: Path, name: str, hooks: Hooks = NO_HOOKS) -> None:
    """Train `module`'s parameters that require gradients; leaves it trained and in evaluation mode.

    Writes `<out>/<name>.jsonl` (a line each `log_every` steps) and `<out>/<name>.ckpt.safetensors`; a checkpoint found
    there is resumed, and refused when its configuration differs.

    Args:
        module: All that is trained, and all that a checkpoint holds.
        loss: Of one step.
        config: The schedule.
        out: Run folder.
        name: Of the files and the progress bar.
        hooks: What else happens at each step.

    Raises:
        BadInputError: the loss became non-finite; the last checkpoint is kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = out / f"{name}.ckpt.safetensors", out / f"{name}.jsonl"
    optimiser = _optimiser(module, config)
    first = load_training(checkpoint, module, optimiser, config) if checkpoint.exists() else 0
    _drop_lines_from(log, first)
    module.train()
    with _progress() as progress, log.open("a") as lines:
        task = progress.add_task(name, total=config.steps, completed=first, note="")
        start = time.monotonic()
        for step in range(first, config.steps):
            hooks.before_step(step)
            figures = _step(module, loss, optimiser, config, step)
            if not math.isfinite(figures["loss"]):
                raise BadInputError(f"training '{name}': the loss became {figures['loss']} at step {step}.")
            done = step + 1
            hooks.after_step(done)
            if done % config.log_every == 0 or done == config.steps:
                figures |= hooks.figures(done) | {"step": done, "seconds": round(time.monotonic() - start, 2)}
                lines.write(json.dumps(figures) + "\n")
                lines.flush()
                progress.update(task, note=f"loss {figures['loss']:.4f}")
            if done % config.checkpoint_every == 0 or done == config.steps:
                save_training(checkpoint, module, optimiser, config, done)
            progress.advance(task)
    module.eval()


def fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 natively (measured 2 to 3 times faster, encoder and predictor)."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def learning_rate(config: FitConfig, step: int) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _step(
    module: nn.Module, loss: StepLoss, optimiser: torch.optim.Optimizer, config: FitConfig, step: int
) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    value, figures = loss(np.random.default_rng([config.seed, step]), generator)
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    trained = [p for p in module.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, config.clip)
    if torch.isfinite(norm):  # a single overflowing batch must not poison the weights
        optimiser.step()
    return {"loss": float(value.detach()), **{k: float(v) for k, v in figures.items()}}


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    note = TextColumn("{task.fields[note]}")
    return Progress(*columns, TimeRemainingColumn(), note, console=Console(stderr=True))


def _optimiser(module: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99))


def _drop_lines_from(log: Path, step: int) -> None:
    """Forget log lines past the checkpoint: those steps are taken again."""
    if not log.exists():
        return
    kept = [line for line in log.read_text().splitlines() if _step_of(line) <= step]
    log.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line torn by a kill
