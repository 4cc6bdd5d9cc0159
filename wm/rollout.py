"""The only autoregressive loop in the project."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


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


def rollout(
    predictor: StepPredictor, context: Float[Tensor, "B T X"], actions: Float[Tensor, "B S H A"]
) -> Float[Tensor, "B S H X"]:
    """Predict the state vectors after each of H latent steps for S candidates of B problems.

    Args:
        predictor: One step ahead.
        context: The last `predictor.history` observed state vectors, oldest first.
        actions: Normalised actions.
    """
    # (B, 1, T, X): the observed history is one for all candidates; its layer is computed once in the first step.
    history = context[:, None]
    states = []
    for step in range(actions.shape[2]):
        state = predictor.advance(history[..., -1, :], predictor.share(history), actions[:, :, step])
        history = torch.cat([history[..., 1:, :].expand(*state.shape[:2], -1, -1), state[..., None, :]], dim=-2)
        states.append(state)
    return torch.stack(states, dim=2)
