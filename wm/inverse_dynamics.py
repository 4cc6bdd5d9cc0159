"""Inverse dynamics: which action lies between two states.

A state from which the action can be told has to hold what the robot has a hand in; what it cannot influence is of no
use to it (Pathak et al. 2017, arXiv 1705.05363). As a term of the loss, it works against the states' losing what is
hard to predict. The head serves the training only: no model keeps it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class InverseDynamics(nn.Module):
    """MLP: the latents of two consecutive frames to the normalised action of the latent step between them.

    Proprioception is no input: it would often give the action away, and the encoder would have nothing to learn.

    Args:
        latent_width: N * D, numbers of a frame's latent.
        action_width: A, numbers of a latent step's action.
        hidden: Width of its two layers.
    """

    def __init__(self, latent_width: int, action_width: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * latent_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, action_width),
        )

    def forward(self, before: Float[Tensor, "*n L"], after: Float[Tensor, "*n L"]) -> Float[Tensor, "*n A"]:
        """Normalised actions; the network sees the first latent and the change, which is small beside it."""
        return self.layers(torch.cat([before, after - before], dim=-1))

    def error(self, latents: Float[Tensor, "B T L"], actions: Float[Tensor, "B T-1 A"]) -> Float[Tensor, ""]:
        """Mean squared error over all latent steps; 1 is what the mean action would have."""
        return (self(latents[:, :-1], latents[:, 1:]) - actions).square().mean()
