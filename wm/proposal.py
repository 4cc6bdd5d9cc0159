"""The proposal: what the log's robot did in such a place when it was about to end up where the goal is.

A small network gives K action sequences in one forward pass; a search that starts from them beside its own guesses
finds ways round an obstacle that small steps from the last plan do not. It is fitted to the log by hindsight: the state
h latent steps later is the goal of what was done in between (Andrychowicz et al. 2017, arXiv 1707.01495). Several ways
lead to a goal and their mean to none, so only the sequence nearest to what was done learns from it, the others a little
(multiple choice learning, Guzman-Rivera et al. 2012; relaxed, Rupprecht et al. 2017, arXiv 1612.00197).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.fit import FitConfig, fast_bf16, fit
from wm.linear import Linear
from wm.logs import LogWindows, draw_states

NARROW = 4
"""Numbers of each patch's token that the proposal looks at: with all of them its first layer would be larger than the
rest of the model."""

RELAXED = 0.03
"""Weight of the mean over all sequences beside that of the nearest one; without it some never learn."""


class Proposal(nn.Module):
    """History, goal and the latent steps to it, to K action sequences of H latent steps.

    Args:
        state_width: X, numbers of a state vector.
        latent_width: N * D of them are the latent, which a goal picture has too.
        action_width: A, numbers of a latent step's action.
        history: Context frames.
        sequences: K.
        horizon: H.
        hidden: Width of its three layers.
        patches: N where the latent has a token per patch: one linear map makes `NARROW` numbers of each. 0: the latent
            is looked at as it stands.
    """

    def __init__(
        self,
        state_width: int,
        latent_width: int,
        action_width: int,
        history: int,
        sequences: int,
        horizon: int,
        hidden: int,
        patches: int = 0,
    ) -> None:
        super().__init__()
        self.sequences, self.horizon, self.latent_width, self.patches = sequences, horizon, latent_width, patches
        self.narrow = Linear(latent_width // patches, NARROW) if patches else None
        seen = patches * NARROW if patches else latent_width
        layers: list[nn.Module] = []
        width = history * (state_width - latent_width + seen) + seen + 1
        for _ in range(3):
            layers += [nn.Linear(width, hidden), nn.SiLU(), nn.LayerNorm(hidden)]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, sequences * horizon * action_width))

    def forward(
        self, history: Float[Tensor, "B T X"], goal: Float[Tensor, "B L"], steps: Float[Tensor, " B"]
    ) -> Float[Tensor, "B K H A"]:
        """Normalised actions; what lies beyond `steps`, 1 … H, means nothing."""
        inputs = torch.cat([self._seen(history).flatten(1), self._seen(goal), steps[:, None] / self.horizon], dim=1)
        return self.layers(inputs).unflatten(1, (self.sequences, self.horizon, -1))

    def _seen(self, vectors: Float[Tensor, "*n X"]) -> Float[Tensor, "*n Y"]:
        """State vectors, or latents, with their tokens narrowed."""
        if self.narrow is None:
            return vectors
        tokens = vectors[..., : self.latent_width].unflatten(-1, (self.patches, -1))
        return torch.cat([self.narrow(tokens).flatten(-2), vectors[..., self.latent_width :]], dim=-1)


def train_proposal(proposal: Proposal, windows: LogWindows, history: int, config: FitConfig, out: Path) -> None:
    """Fit to a log; progress, log and checkpoints as `wm.fit.fit`, under the name ``proposal``.

    Args:
        proposal: Trained in place.
        windows: Of states ``(O, N * D)``, ``history + proposal.horizon`` per window.
        history: Context frames.
        config: The schedule.
        out: Run folder.
    """
    bf16, horizon = fast_bf16(), proposal.horizon

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        states, actions = draw_states(windows, history, rng, config.batch)
        n = len(states)
        steps = torch.from_numpy(rng.integers(1, horizon + 1, n))
        goal = states[torch.arange(n), history - 1 + steps, : proposal.latent_width]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found = proposal(states[:, :history], goal, steps.float()).float()
        error = (found - actions[:, None, history - 1 :]).square().mean(-1)  # (n, K, H)
        wanted = (torch.arange(horizon) < steps[:, None]).float()[:, None]
        error = (error * wanted).sum(-1) / wanted.sum(-1)
        nearest = error.amin(1).mean()
        return nearest + RELAXED * error.mean(), {"nearest": nearest.detach(), "mean": error.detach().mean()}

    fit(proposal, loss, config, out, "proposal")
