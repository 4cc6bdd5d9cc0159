"""Diagnostics of a trained model on held-out logs; nothing here is ever an input of a model or planner."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.joint import JointModel
from wm.logs import LogWindows, window_states
from wm.rollout import rollout


@torch.inference_mode()
def error_by_horizon(
    joint: JointModel, windows: LogWindows, width: int, count: int = 2048, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Prediction error against the horizon, beside "copy the last latent".

    Args:
        joint: The model.
        windows: Held-out windows of a table of states.
        width: Numbers of the state (proprioception behind it does not count).
        count: Windows.
        seed: Of the draw.

    Returns:
        Mean squared error after 1, 2, … latent steps, of the model and of copying.
    """
    history = joint.predictor.history
    states, actions = window_states(windows, *windows.sampler.sample(np.random.default_rng(seed), count))
    imagined = rollout(joint.predictor, states[:, :history], actions[:, None, history - 1 :])[:, 0]
    target = states[:, history:]
    model = (imagined - target)[..., :width].square().mean((0, 2))
    copy = (states[:, history - 1 : history] - target)[..., :width].square().mean((0, 2))
    return model.tolist(), copy.tolist()


class LinearProbe:
    """Ridge regression from latents to the simulator's state, to see what a latent holds.

    Args:
        latents: ``(M, K)`` of training frames.
        targets: ``(M, S)`` in the state's own units (give an angle as its cosine and sine).
        penalty: Ridge penalty on standardised latents, per sample.
    """

    def __init__(self, latents: Float[Tensor, "M K"], targets: Float[Tensor, "M S"], penalty: float = 1e-4) -> None:
        x, y = latents.double(), targets.double()
        self.mean, self.std, self.offset = x.mean(0), x.std(0) + 1e-9, y.mean(0)
        x = (x - self.mean) / self.std
        gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        self.weights = torch.linalg.solve(gram, x.T @ (y - self.offset))

    def __call__(self, latents: Float[Tensor, "M K"]) -> Float[Tensor, "M S"]:
        """Read the state from latents."""
        return (((latents.double() - self.mean) / self.std) @ self.weights + self.offset).float()

    def score(self, latents: Float[Tensor, "M K"], targets: Float[Tensor, "M S"]) -> tuple[list[float], list[float]]:
        """R² (1 is perfect, 0 is the mean, negative is worse) and root mean squared error, per state number."""
        error = (self(latents).double() - targets.double()).square().mean(0)
        spread = (targets.double() - targets.double().mean(0)).square().mean(0)
        return (1 - error / spread).tolist(), error.sqrt().tolist()
