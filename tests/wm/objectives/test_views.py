from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wm.objectives.views import ViewConfig, crop, jitter, relit, view

STILL = ViewConfig(
    crop_least=1.0, ratio=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur=0.0, noise=0.0
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(m: int = 6, size: int = 24) -> Tensor:
    return 1.6 * torch.rand(m, 3, size, size, generator=draws(9)) - 0.8


def test_the_generator_decides_the_view() -> None:
    x = pictures()
    one, same, other = (view(x, ViewConfig(), draws(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.allclose(one, other)
    assert one.shape == x.shape and one.abs().max() <= 1 and not torch.allclose(one, x)


def test_every_picture_of_a_batch_gets_its_own_view() -> None:
    seen = view(pictures(1).expand(5, -1, -1, -1), ViewConfig(), draws())
    assert all(not torch.allclose(seen[i], seen[j]) for i in range(5) for j in range(i))


def test_a_view_that_changes_nothing_is_the_picture() -> None:
    x = pictures()
    assert torch.allclose(view(x, STILL, draws()), x, atol=1e-5)


def test_other_light_leaves_things_where_they_are() -> None:
    x = torch.full((30, 3, 24, 24), -0.5)
    x[:, :, 8:16, 4:12] = 0.4
    seen = relit(x, ViewConfig(crop_least=0.2, ratio=2.0, noise=0.0), draws())
    outside, inside = seen[:, :, :5].mean((1, 2, 3)), seen[:, :, 11:13, 7:9].mean((1, 2, 3))
    middle = (outside + inside)[:, None, None] / 2
    assert torch.equal(seen.mean(1) > middle, x.mean(1) > -0.05)
    assert inside.std() > 0.05


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_crop_shows_its_share_of_the_picture(share: float) -> None:
    axis = torch.linspace(-1, 1, 64)
    ramps = torch.stack([axis.expand(64, 64), axis[:, None].expand(64, 64), torch.zeros(64, 64)])[None].expand(
        40, -1, -1, -1
    )
    seen = crop(ramps, share, share, 1.5, draws())
    wide = seen[:, 0].amax((1, 2)) - seen[:, 0].amin((1, 2))
    high = seen[:, 1].amax((1, 2)) - seen[:, 1].amin((1, 2))
    assert torch.allclose(wide * high / 4, torch.full((40,), share), rtol=0.06)
    assert (wide / high).max() < 1.6 and (wide / high).min() > 1 / 1.6 and (wide / high).std() > 0.05
    assert seen[:, :2].abs().max() <= 1.0  # nothing beyond the picture's edge
    assert seen[:, 0].mean((1, 2)).std() > 0.05  # and not always its middle


def test_colours_change_and_places_do_not() -> None:
    x = torch.full((8, 3, 24, 24), -0.5)
    x[:, 0, 4:9, 10:15] = 0.5
    seen = jitter(x, ViewConfig(), draws())
    inside = seen[:, :, 4:9, 10:15]
    assert torch.allclose(inside, inside[:, :, :1, :1].expand_as(inside), atol=1e-5)
    assert (seen[:, 0, 6, 12] - x[:, 0, 6, 12]).abs().mean() > 0.02
    assert (seen[:, 0, 6, 12] > seen[:, 0, 0, 0]).all()


def test_hue_turns_colours_and_leaves_grey_alone() -> None:
    turning = ViewConfig(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.5)
    grey, red = torch.full((8, 3, 2, 2), 0.2), torch.tensor([1.0, -1, -1])[None, :, None, None].expand(8, -1, 2, 2)
    assert torch.allclose(jitter(grey, turning, draws()), grey, atol=1e-5)
    turned = jitter(red, turning, draws())
    assert torch.allclose(turned.mean(1), red.mean(1), atol=1e-5) and (turned - red).abs().amax((1, 2, 3)).min() > 0.01
