"""From a frozen encoder's tokens to as many narrow ones: the state of worlds that are a field of many things."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.errors import BadInputError
from wm.linear import Linear
from wm.state_head import StateHead


class PatchHead(nn.Module):
    """One linear map for every patch: the first principal components of the encoder's tokens.

    As DINO-WM (arXiv 2411.04983) keeps every patch's token, but only what varies most in it. What goals ask for may
    vary least: a block's angle is a small share of the tokens' variance. So there can be a read-out beside it, the
    compact form's state head on the tokens that the narrow ones stand for.

    Args:
        grid: Side of the encoder's token grid.
        encoder_width: De, numbers per encoder token.
        width: D, numbers per state token.
        read_out: R, numbers of the read-out; 0: there is none.
    """

    def __init__(self, grid: int, encoder_width: int, width: int, read_out: int = 0) -> None:
        super().__init__()
        self.grid, self.tokens, self.width = grid, grid * grid, width
        self.narrow = nn.Linear(encoder_width, width)
        self.widen = Linear(width, encoder_width) if read_out else None
        self.state = StateHead(grid, encoder_width, 1, read_out) if read_out else None

    def forward(self, tokens: Float[Tensor, "M Ne De"]) -> Float[Tensor, "M N D"]:
        """State tokens of frames; N = Ne."""
        return self.narrow(tokens)

    def read(self, tokens: Float[Tensor, "*n N D"]) -> Float[Tensor, "*n 1 R"]:
        """The read-out of state tokens, observed or predicted.

        Raises:
            BadInputError: there is none.
        """
        if self.widen is None or self.state is None:
            raise BadInputError("patch head: expected one with a read-out, came one without.")
        found: Tensor = self.state(self.widen(tokens.flatten(0, -3)))
        return found.unflatten(0, tokens.shape[:-2])


@torch.no_grad()
def fit_patch_head(head: PatchHead, tokens: Float[Tensor, "M Ne De"]) -> list[float]:
    """Set the map: principal components of all patches' tokens, all scaled alike so that the first varies by 1.

    What a patch's token is where nothing ever happens, its median over frames and patches, becomes zero. The way back
    is the nearest token that the components can tell (the read-out's state head is not set here).

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
    axes, middle, mean = axes * axes.sum(0).sign() / variance[0].sqrt(), rows.median(0).values, rows.mean(0)
    head.narrow.weight.copy_(axes.T)
    head.narrow.bias.copy_(-(middle @ axes))
    if head.widen is not None:
        back = axes * variance[0]
        head.widen.weight.copy_(back)
        head.widen.bias.copy_(mean + back @ (axes.T @ (middle - mean)))
    return (variance[: head.width] / variance.clamp_min(0).sum()).tolist()
