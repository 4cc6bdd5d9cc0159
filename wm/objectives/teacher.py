"""Teachers: copies of a network that follow it as an exponential moving average (EMA)."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def teacher_of(student: ModuleT) -> ModuleT:
    """A copy without gradients; in a checkpoint like any other submodule."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``t ← momentum · t + (1 - momentum) · s`` for every parameter.

    Buffers stay: a teacher normalises its own batches, and its running statistics are of what it saw itself.
    """
    for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
        t.mul_(momentum).add_(s, alpha=1 - momentum)


def momentum_at(share: float, start: float) -> float:
    """A cosine from `start` to 1 over a run, of which `share` is over (Grill et al. 2020, BYOL)."""
    return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * share))
