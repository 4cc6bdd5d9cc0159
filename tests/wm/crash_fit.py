"""Trains the toy of `test_fit.py` and kills itself at a given step: `crash_fit.py OUT STEP`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wm.fit import FitConfig, fit

CONFIG = FitConfig(
    steps=20, batch=8, learning_rate=0.05, warmup=3, seed=4, checkpoint_every=5, log_every=1, weight_decay=0.01
)


class Toy(nn.Module):
    """A regression with everything that has a state: matrices, biases, batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 1))
        self.taken: list[int] = []

    def loss(self, rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        x = torch.from_numpy(rng.normal(size=(CONFIG.batch, 3))).float()
        noise = 0.01 * torch.randn(CONFIG.batch, 1, generator=generator)
        error = self.net(x) - x.sum(1, keepdim=True) + noise
        self.taken.append(len(self.taken))
        return error.square().mean(), {"largest": error.detach().abs().max()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, last = Path(sys.argv[1]), int(sys.argv[2])
    toy = Toy()

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        if len(toy.taken) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return toy.loss(rng, generator)

    fit(toy, loss, CONFIG, out, "toy")
