"""Adversarial world modelling: a predictor is trained where, near the log, it errs most.

A planner that follows gradients finds the actions for which the model promises too much, and those are seldom the
logged ones. So inputs of the log are moved a little in the direction in which the error of the rollout grows, and the
predictor learns to reach the logged states from there as well, so that it is smoother around the log. Parthasarathy
et al. 2025, "Closing the Train-Test Gap in World Models for Gradient-Based Planning" (arXiv 2512.09929), here with a
single step of the fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572):

    x' = x + radius * std * sign(d error / d x),   x: the context's states and the actions

The target stays what was logged, which is nearly right only as long as the radius is small, e.g. 0.05. Each
training step costs one more rollout and its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.logs import LogWindows, window_states

SAMPLE = 4096
"""Windows from which standard deviations are taken: they are within about 1 % of the log's."""

RolloutError = Callable[[Tensor, Tensor], Tensor]
"""Context states ``(B, T, X)`` and normalised actions ``(B, H, A)`` to the error of the rollout, a scalar."""


def require_radius(radius: float, form: str) -> None:
    """Refuse what cannot be trained with; 0, which means without, always can.

    Raises:
        BadInputError: the radius is negative or no finite number, or the form of the model is not compact.
    """
    if not (math.isfinite(radius) and radius >= 0):
        raise BadInputError(f"adversarial: expected a finite number >= 0, came {radius}.")
    if radius > 0 and form != "compact":
        raise BadInputError(f"adversarial: expected 0 in the {form} form (the compact form has it), came {radius}.")


def deviations(windows: LogWindows) -> tuple[Float[Tensor, " X"], Float[Tensor, " A"]]:
    """Standard deviation of each number of the state vectors and of the normalised actions, always the same sample."""
    found = window_states(windows, *windows.sampler.sample(np.random.default_rng(0), SAMPLE))
    states, actions = (each.flatten(0, 1).std(0) for each in found)
    return states, actions


def perturbed(
    error: RolloutError,
    context: Float[Tensor, "B T X"],
    actions: Float[Tensor, "B H A"],
    radius: float,
    scales: tuple[Float[Tensor, " X"], Float[Tensor, " A"]],
) -> tuple[Float[Tensor, "B T X"], Float[Tensor, "B H A"]]:
    """Context and actions, each number moved by `radius` standard deviations, to where the error grows.

    A number on which the error does not depend stays. No gradient is left behind, neither in the inputs nor in the
    predictor's parameters.

    Args:
        error: What the predictor is trained to make small.
        context: The observed state vectors.
        actions: Normalised actions of the rollout.
        radius: >= 0, in standard deviations; keep it small.
        scales: The standard deviations, see `deviations`.
    """
    inputs = [each.detach().clone().requires_grad_(True) for each in (context, actions)]
    slopes = torch.autograd.grad(error(*inputs), inputs)
    moved = [x.detach() + radius * std * g.sign() for x, g, std in zip(inputs, slopes, scales, strict=True)]
    return moved[0], moved[1]
