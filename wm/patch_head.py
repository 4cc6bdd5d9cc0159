"""From a frozen encoder's tokens to as many narrow ones: the state of worlds that are a field of many things."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.errors import BadInputError


class PatchHead(nn.Module):
    """One linear map for every patch: the first principal components of the encoder's tokens.

    As DINO-WM (arXiv 2411.04983) keeps every patch's token, but only what varies most in it.

    Args:
        grid: Side of the encoder's token grid.
        encoder_width: De, numbers per encoder token.
        width: D, numbers per state token.
    """

    def __init__(self, grid: int, encoder_width: int, width: int) -> None:
        super().__init__()
        self.grid, self.tokens, self.width = grid, grid * grid, width
        self.narrow = nn.Linear(encoder_width, width)

    def forward(self, tokens: Float[Tensor, "M Ne De"]) -> Float[Tensor, "M N D"]:
        """State tokens of frames; N = Ne."""
        return self.narrow(tokens)


@torch.no_grad()
def fit_patch_head(head: PatchHead, tokens: Float[Tensor, "M Ne De"]) -> list[float]:
    """Set the map: principal components of all patches' tokens, all scaled alike so that the first varies by 1.

    What a patch's token is where nothing ever happens, its median over frames and patches, becomes zero.

    Args:
        head: Its map is set.
        tokens: Of frames of the log.

    Returns:
        Share of the tokens' variance that each component has.

    Raises:
        BadInputError: NaN or infinity, tokens narrower than the head, or tokens that are all the same.
    """
    rows = tokens.flatten(0, 1).double()
    if rows.shape[1] < head.width:
        raise BadInputError(f"patch head: expected tokens of {head.width} or more numbers, came {rows.shape[1]}.")
    if not bool(torch.isfinite(rows.sum())):
        raise BadInputError("patch head: expected finite tokens, came NaN or infinity.")
    covariance = torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])
    variance, axes = torch.linalg.eigh(covariance)
    variance, axes = variance.flip(0), axes.flip(1)[:, : head.width]
    if not float(variance[0]) > 1e-12:
        raise BadInputError("patch head: expected tokens that differ from place to place, all are the same.")
    axes = axes * axes.sum(0).sign() / variance[0].sqrt()
    head.narrow.weight.copy_(axes.T)
    head.narrow.bias.copy_(-(rows.median(0).values @ axes))
    return (variance[: head.width] / variance.clamp_min(0).sum()).tolist()
