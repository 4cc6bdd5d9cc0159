"""What was imagined beside what happened."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.experiments.episode import Outcome
from wm.model import WorldModel


@dataclass(frozen=True)
class Imagined:
    """Which imagined latent belongs to a moment.

    Attributes:
        plan: Index of the plan that was being executed.
        made_at: Control step at which that plan was made.
        latent_step: Index into the plan's latents.
        shows: Control step that this latent stands for: now, or the end of the present latent step.
    """

    plan: int
    made_at: int
    latent_step: int
    shows: int


def imagined_at(planned_at: list[int], step: int, frameskip: int) -> Imagined:
    """The latent that the last plan made before control step `step` predicted for it.

    A model predicts one latent per latent step, so within a latent step it is the one of its end; before the first
    action it is the first plan's first.

    Args:
        planned_at: Control steps at which plans were made, rising from 0.
        step: Control step, >= 0.
        frameskip: Control steps per latent step.
    """
    plan = max((i for i, made in enumerate(planned_at) if made < step), default=0)
    latent_step = max(1, math.ceil((step - planned_at[plan]) / frameskip)) - 1
    return Imagined(plan, planned_at[plan], latent_step, planned_at[plan] + (latent_step + 1) * frameskip)


def imagined_tokens(outcome: Outcome, frameskip: int) -> Float[Tensor, "T N D"]:
    """Imagined state tokens for each executed frame; see `imagined_at`."""
    moments = [imagined_at(outcome.planned_at, step, frameskip) for step in range(outcome.steps + 1)]
    return torch.stack([outcome.plans[moment.plan].tokens[0, moment.latent_step] for moment in moments])


@dataclass(frozen=True)
class PredictionError:
    """Error of a plan's first imagined latent, one latent step later.

    Attributes:
        step: Control step that was predicted.
        error: Mean squared difference of imagined and observed state tokens.
        copy_last: The same for predicting that nothing changes.
    """

    step: int
    error: float
    copy_last: float


def prediction_errors(model: WorldModel, outcome: Outcome) -> list[PredictionError]:
    """Of every plan whose first latent step was executed to its end."""
    frameskip = model.spec.frameskip
    whole = [i for i, made in enumerate(outcome.planned_at) if made + frameskip <= outcome.steps]
    if not whole:
        return []
    made = [outcome.planned_at[i] for i in whole]
    frames = np.stack([outcome.frames[step] for step in [*made, *(step + frameskip for step in made)]])
    before, after = model.encode(torch.from_numpy(frames)[None]).tokens[0].chunk(2)  # (plans, N, D) each
    imagined = torch.stack([outcome.plans[i].tokens[0, 0] for i in whole])
    errors, copies = (imagined - after).square().mean((1, 2)), (before - after).square().mean((1, 2))
    rows = zip(made, errors.tolist(), copies.tolist(), strict=True)
    return [PredictionError(step + frameskip, error, copy) for step, error, copy in rows]
