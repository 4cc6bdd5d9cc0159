"""Which tokens are hidden: rectangles of a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from wm.errors import BadInputError


@dataclass(frozen=True)
class MaskConfig:
    """How much is hidden. Every draw is uniform.

    Attributes:
        blocks: Rectangles that are hidden; they may overlap.
        least: Smallest area of one, a share of the grid, 0 … 1.
        most: Largest.
        ratio: Largest ratio of its sides, >= 1.
        visible: Least share of the tokens that stays visible, 0 … 1: a rectangle that would leave less is not hidden.
    """

    blocks: int = 4
    least: float = 0.15
    most: float = 0.2
    ratio: float = 1.5
    visible: float = 0.25


def draw_masks(count: int, grid: int, config: MaskConfig, generator: torch.Generator) -> Bool[Tensor, "count N"]:
    """Hidden tokens of each of `count` pictures; at least one is hidden and at least one is visible.

    Args:
        count: Pictures.
        grid: Side of the grid, >= 2; N = grid².
        config: How much is hidden.
        generator: Draws everything.

    Raises:
        BadInputError: a grid of one token.
    """
    if grid < 2:
        raise BadInputError(f"masks: expected a grid of at least 2 x 2 tokens, came {grid} x {grid}.")
    hidden = torch.zeros(count, grid * grid, dtype=torch.bool)
    for index in range(config.blocks):
        joined = hidden | _blocks(count, grid, config, generator)
        enough = (~joined).float().mean(1) >= config.visible
        hidden = joined if index == 0 else torch.where(enough[:, None], joined, hidden)
    return hidden


def _blocks(count: int, grid: int, config: MaskConfig, generator: torch.Generator) -> Bool[Tensor, "count N"]:
    """A rectangle in each grid, smaller than the grid on both sides."""
    place = torch.rand(4, count, generator=generator)
    area = (config.least + (config.most - config.least) * place[0]) * grid**2
    aspect = torch.exp((2 * place[1] - 1) * math.log(config.ratio))
    sides = [(area * aspect).sqrt(), (area / aspect).sqrt()]
    ranges = []
    for side, where in zip(sides, place[2:], strict=True):
        length = side.round().clamp(1, grid - 1)
        first = (where * (grid - length + 1)).floor()
        axis = torch.arange(grid)
        ranges.append((axis >= first[:, None]) & (axis < (first + length)[:, None]))
    return (ranges[0][:, :, None] & ranges[1][:, None, :]).flatten(1)


def hide(pixels: Float[Tensor, "M 3 H W"], hidden: Bool[Tensor, "M N"], grid: int) -> Float[Tensor, "M 3 H W"]:
    """The pictures with the hidden tokens' pixels grey (0).

    A convolution looks beyond a token's own pixels, so hiding tokens alone would let their neighbours tell.
    """
    cover = hidden.unflatten(1, (1, grid, grid)).to(pixels.dtype)
    return pixels * (1 - functional.interpolate(cover, size=pixels.shape[-2:], mode="nearest"))
