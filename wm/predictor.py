"""The compact predictor: one latent step ahead, for real-time planning."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.linear import Linear


class Predictor(nn.Module):
    """Residual MLP: state of `history` frames and one latent step's action to the next frame's state.

    A frame's *state vector* is its latent tokens, flattened, and the normalised proprioception behind them. The first
    layer is split by input, so that what all candidates share (the observed history) is multiplied once (`share`) and
    only added for each candidate.

    Args:
        state_width: Numbers in a frame's state vector, N * D + P.
        action_width: A, numbers in one latent step's action.
        history: Context frames.
        hidden: Width of the residual stream.
        depth: Residual blocks.
    """

    def __init__(self, state_width: int, action_width: int, history: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.history = history
        self.from_state = Linear(history * state_width, hidden)
        self.from_action = Linear(action_width, hidden, bias=False)
        self.blocks = nn.ModuleList([ResidualBlock(hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(hidden)
        self.out = Linear(hidden, state_width)
        nn.init.zeros_(self.out.weight)  # starts as "copy the last state"
        nn.init.zeros_(self.out.bias)

    def forward(self, history: Float[Tensor, "... T X"], action: Float[Tensor, "... A"]) -> Float[Tensor, "... X"]:
        """Next state vector; `history` is oldest first, `action` normalised."""
        return self.advance(history[..., -1, :], self.share(history), action)

    def share(self, history: Float[Tensor, "... T X"]) -> Float[Tensor, "... W"]:
        """The history's part of the first layer."""
        return self.from_state(history.flatten(-2))

    def advance(
        self, last: Float[Tensor, "... X"], shared: Float[Tensor, "... W"], action: Float[Tensor, "... A"]
    ) -> Float[Tensor, "... X"]:
        """Next state vector from the last one, the shared part and an action (broadcast over leading dimensions)."""
        x = shared + self.from_action(action)
        for block in self.blocks:
            x = block(x)
        return last + self.out(self.norm(x))


class ResidualBlock(nn.Module):
    """Pre-norm feed-forward block, twice as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = Linear(width, 2 * width)
        self.narrow = Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "*n W"]) -> Float[Tensor, "*n W"]:
        """The residual stream after it."""
        return x + self.narrow(torch.nn.functional.silu(self.widen(self.norm(x))))
