from __future__ import annotations

import torch

from wm.point_head import PointHead


def make(grid: int = 4) -> PointHead:
    torch.manual_seed(0)
    return PointHead(grid, 6, tokens=3, width=5, points=8)


def test_shape_and_independence_of_frames() -> None:
    head, tokens = make(), torch.randn(7, 16, 6)
    states = head(tokens)
    assert states.shape == (7, 3, 5)
    torch.testing.assert_close(head(tokens[4:5])[0], states[4])


def test_reads_where_something_is() -> None:
    """A map that looks at one feature gives the place where that feature is, row and column in -1…1."""
    head = PointHead(5, 1, tokens=1, width=2, points=1)
    with torch.no_grad():
        head.maps.weight.zero_()
        head.maps.weight[:, :, 1, 1] = 50.0
        head.pool.weight.copy_(torch.eye(2) / 3.0)
        head.pool.bias.zero_()
    for row in range(5):
        for column in range(5):
            tokens = torch.zeros(1, 25, 1)
            tokens[0, row * 5 + column] = 1.0
            expected = torch.tensor([row, column]) / 2.0 - 1.0
            torch.testing.assert_close(head(tokens)[0, 0], expected, atol=1e-4, rtol=0)


def test_spread_of_the_first_states_is_of_order_one() -> None:
    states = make(8)(20 * torch.randn(256, 64, 6)).detach()
    assert 0.05 < float(states.std(0).mean()) < 3.0
