"""Rollouts in latent space, and the autoregressive loop of predictors of state vectors.

Frame-causal transformers keep keys and values from step to step, and have a loop of their own
(`wm.frame_causal.FramePredictor.rollout`). There is no third.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Rollout = Callable[[Tensor], Tensor]
"""Normalised actions ``(B, S, H, A)`` to the state vectors after each latent step, ``(B, S, H, X)``."""


@runtime_checkable
class StepPredictor(Protocol):
    """One latent step ahead.

    Attributes:
        history: Context frames.
    """

    history: int

    def share(self, history: Float[Tensor, "... T X"]) -> Float[Tensor, "... W"]:
        """What all candidates have in common."""
        ...

    def advance(
        self, last: Float[Tensor, "... X"], shared: Float[Tensor, "... W"], action: Float[Tensor, "... A"]
    ) -> Float[Tensor, "... X"]:
        """The next state vector."""
        ...


@runtime_checkable
class PreparedPredictor(Protocol):
    """A predictor with a loop of its own.

    Attributes:
        history: Context frames.
    """

    history: int

    def prepare(self, context: Float[Tensor, "B T X"]) -> Rollout:
        """See `wm.rollout.prepare`."""
        ...


def prepare(predictor: StepPredictor | PreparedPredictor, context: Float[Tensor, "B T X"]) -> Rollout:
    """The rollout from a context: what all candidates share is computed here, once, however often it is called.

    Args:
        predictor: One step ahead.
        context: The last `predictor.history` observed state vectors, oldest first.
    """
    if isinstance(predictor, PreparedPredictor):
        return predictor.prepare(context)
    history = context[:, None]  # (B, 1, T, X): the observed history is one for all candidates
    shared = predictor.share(history)
    return lambda actions: _roll(predictor, history, shared, actions)


def rollout(
    predictor: StepPredictor | PreparedPredictor, context: Float[Tensor, "B T X"], actions: Float[Tensor, "B S H A"]
) -> Float[Tensor, "B S H X"]:
    """Predict the state vectors after each of H latent steps for S candidates of B problems.

    Args:
        predictor: One step ahead.
        context: The last `predictor.history` observed state vectors, oldest first.
        actions: Normalised actions.
    """
    return prepare(predictor, context)(actions)


def _roll(
    predictor: StepPredictor,
    history: Float[Tensor, "B 1 T X"],
    shared: Float[Tensor, "B 1 W"],
    actions: Float[Tensor, "B S H A"],
) -> Float[Tensor, "B S H X"]:
    states: list[Tensor] = []
    for step in range(actions.shape[2]):
        known = predictor.share(history) if states else shared
        state = predictor.advance(history[..., -1, :], known, actions[:, :, step])
        history = torch.cat([history[..., 1:, :].expand(*state.shape[:2], -1, -1), state[..., None, :]], dim=-2)
        states.append(state)
    return torch.stack(states, dim=2)
