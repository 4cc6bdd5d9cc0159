"""A small DINO run that kills itself at a given step: `crash_pretrain.py DATA OUT STEP` (0: it does not)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import wm.fit
from wm.experiments import pretrain
from wm.fit import FitConfig


def run(data: Path, out: Path) -> Path:
    """The run, with a checkpoint every second step."""

    def schedule(steps: int, batch: int, **settings: Any) -> FitConfig:
        return FitConfig(steps, batch, warmup=1, checkpoint_every=2, **settings)

    original = pretrain.FitConfig
    pretrain.FitConfig = schedule  # type: ignore[assignment,misc]
    try:
        sizes = {"width": 4, "episodes": 6, "steps": 7, "batch": 4, "seed": 0}
        return pretrain.run(data, out, objective="dino", encoder="wm-tiny", **sizes)
    finally:
        pretrain.FitConfig = original  # type: ignore[misc]


if __name__ == "__main__":
    torch.set_num_threads(1)
    last, step, taken = int(sys.argv[3]), wm.fit._step, []

    def killing(*arguments: Any) -> dict[str, float]:
        taken.append(1)
        if len(taken) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments)

    wm.fit._step = killing  # type: ignore[assignment]
    run(Path(sys.argv[1]), Path(sys.argv[2]))
