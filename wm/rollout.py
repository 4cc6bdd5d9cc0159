"""The only autoregressive loop in the project."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wm.predictor import Predictor


def rollout(
    predictor: Predictor, context: Float[Tensor, "B T X"], actions: Float[Tensor, "B S H A"]
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
