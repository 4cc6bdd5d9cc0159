from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wm.errors import BadInputError
from wm.objectives.masks import MaskConfig, draw_masks, hide


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rectangle(mask: Tensor) -> tuple[int, int]:
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert bool(box.all()) and int(box.sum()) == int(mask.sum())
    return box.shape[0], box.shape[1]


def test_a_block_is_a_rectangle_of_the_asked_size_anywhere_in_the_grid() -> None:
    masks = draw_masks(300, 8, MaskConfig(blocks=1), draws()).unflatten(1, (8, 8))
    sides = torch.tensor([rectangle(mask) for mask in masks])
    assert sides.min() >= 2 and sides.max() <= 5  # 9.6 to 12.8 tokens, sides 1 : 1.5 at most
    assert masks.any(0).all() and 0.12 < masks.float().mean() < 0.22


@pytest.mark.parametrize("grid", [2, 3, 8, 16])
@pytest.mark.parametrize("blocks", [1, 4, 12])
def test_something_is_hidden_and_enough_is_visible(grid: int, blocks: int) -> None:
    config = MaskConfig(blocks=blocks, visible=0.25)
    masks = draw_masks(200, grid, config, draws())
    assert masks.any(1).all() and ((~masks).float().mean(1) >= 0.25).all()
    assert masks.shape == (200, grid**2) and len(masks.unique(dim=0)) > 1


def test_more_blocks_hide_more_and_the_generator_decides() -> None:
    few, many = (draw_masks(100, 8, MaskConfig(blocks=n), draws()).float().mean() for n in (1, 6))
    assert many > 2 * few
    assert torch.equal(draw_masks(9, 8, MaskConfig(), draws(3)), draw_masks(9, 8, MaskConfig(), draws(3)))


def test_hiding_greys_exactly_the_hidden_tokens_pixels() -> None:
    pixels = torch.rand(2, 3, 24, 24, generator=draws()) + 0.1
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 6] = True  # row 1, column 2 of 4 x 4
    seen = hide(pixels, hidden, 4)
    assert (seen[0, :, 6:12, 12:18] == 0).all() and torch.equal(seen[1], pixels[1])
    assert int((seen[0] != pixels[0]).sum()) == 3 * 36


def test_a_grid_of_one_token_is_refused() -> None:
    with pytest.raises(BadInputError, match="expected a grid of at least 2 x 2 tokens, came 1 x 1"):
        draw_masks(3, 1, MaskConfig(), draws())
