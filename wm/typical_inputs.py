"""Inputs like those of planning, to calibrate, warm up or time a model's rollouts with."""

from __future__ import annotations

import torch
from torch import Tensor

from wm.model import WorldModel
from wm.types import Latent


def typical_inputs(
    model: WorldModel, observations: int = 256, candidates: int = 4, steps: int = 5, seed: int = 0
) -> tuple[Latent, Tensor]:
    """Histories of a robot at rest, and actions with the moments of the training log's.

    In the compact form a history is a state that the model remembers of its log. The others remember no whole states:
    there its tokens are standard normal and its proprioception is the log's mean.

    Args:
        model: The world model.
        observations: B.
        candidates: S.
        steps: H, latent steps.
        seed: Of states and actions.

    Returns:
        Context of B observations, and ``(B, S, H, A)`` raw actions.
    """
    spec, generator = model.spec, torch.Generator().manual_seed(seed)
    mean, std = model.action_moments
    if spec.form == "compact":
        rows = torch.randint(len(model.bank), (observations,), generator=generator)
        frames = model.bank[rows].view(-1, 1, spec.tokens, spec.width)
    else:
        frames = torch.randn(observations, 1, spec.tokens, spec.width, generator=generator)
    tokens = frames.expand(-1, spec.history, -1, -1)
    shape = (observations, candidates, steps, spec.frameskip, len(mean))
    actions = torch.randn(shape, generator=generator) * std + mean
    return Latent(tokens, _proprio(model, tokens)), actions.flatten(-2)


def _proprio(model: WorldModel, tokens: Tensor) -> Tensor | None:
    if model.spec.env.proprio is None:
        return None
    mean, std = model.proprio_moments
    if model.spec.form != "compact":
        return mean.expand(*tokens.shape[:2], -1)
    told: Tensor = tokens.flatten(2)[..., -len(mean) :]  # the last numbers of a state are the robot's own
    return told * std + mean
