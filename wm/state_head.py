"""From a frozen encoder's many tokens to the few numbers that the compact model predicts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StateHead(nn.Module):
    """A linear map of the tokens and of their pooled products.

    The tokens as they stand tell where things are. Their products, channel by channel, averaged over the grid (bilinear
    pooling, Lin et al. 2015, arXiv 1504.07889) do not change when a thing moves but do when it turns: measured on
    push-T, the block's sine and cosine are linear in them with R² 0.92, in the mean token with 0.2. What of all this is
    state is decided in closed form (`wm.slow_features`), not by gradients.

    Args:
        grid: Side of the encoder's token grid.
        encoder_width: De, numbers per encoder token.
        tokens: N, state tokens per frame.
        width: D, numbers per state token.
    """

    channel_mean: Tensor
    channel_std: Tensor
    pairs: Tensor

    def __init__(self, grid: int, encoder_width: int, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.register_buffer("channel_mean", torch.zeros(encoder_width))
        self.register_buffer("channel_std", torch.ones(encoder_width))
        self.register_buffer("pairs", torch.triu_indices(encoder_width, encoder_width), persistent=False)
        self.places = nn.Linear(grid * grid * encoder_width, tokens * width)
        self.products = nn.Linear(self.pairs.shape[1], tokens * width, bias=False)

    def forward(self, tokens: Float[Tensor, "M Ne De"]) -> Float[Tensor, "M N D"]:
        """State tokens of frames."""
        places, products = self.features(tokens)
        return (self.places(places) + self.products(products)).unflatten(1, (self.tokens, self.width))

    def features(self, tokens: Float[Tensor, "M Ne De"]) -> tuple[Float[Tensor, "M L"], Float[Tensor, "M Q"]]:
        """What the linear maps see: standardised tokens, flattened, and their pooled products (Q = De (De + 1) / 2)."""
        standard = (tokens - self.channel_mean) / self.channel_std
        gram = standard.transpose(1, 2) @ standard / tokens.shape[1]  # (M, De, De)
        return standard.flatten(1), gram[:, self.pairs[0], self.pairs[1]]
