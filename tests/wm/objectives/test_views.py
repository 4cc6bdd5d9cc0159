from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wm.objectives.views import ViewConfig, crop, jitter, relit, view

STILL = ViewConfig(
    crop_least=1.0, ratio=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur=0.0, noise=0.0
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(m: int = 6, size: int = 24, width: int | None = None) -> Tensor:
    return 1.6 * torch.rand(m, 3, size, width or size, generator=draws(9)) - 0.8


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


@pytest.mark.parametrize("width", [24, 17])
def test_colours_are_changed_one_thing_after_the_other(width: int) -> None:
    """Brightness, contrast around the mean luminance, saturation, hue: step by step as in a textbook."""
    config, x, generator = ViewConfig(hue=0.2), pictures(9, width=width), draws(3)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]

    def uniform(most: float, around: float = 1.0) -> Tensor:
        return (around - most + 2 * most * torch.rand(len(x), generator=generator))[:, None, None, None]

    levels = (x + 1) / 2 * uniform(config.brightness)
    mean = (levels * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    levels = mean + (levels - mean) * uniform(config.contrast)
    grey = (levels * luma).sum(1, keepdim=True)
    levels = grey + (levels - grey) * uniform(config.saturation)
    angle, axis = 2 * torch.pi * uniform(config.hue, 0.0), torch.full((1, 3, 1, 1), 3**-0.5)
    along = (levels * axis).sum(1, keepdim=True) * axis
    around = torch.linalg.cross(axis.expand_as(levels), levels, dim=1)
    turned = along + (levels - along) * angle.cos() + around * angle.sin()
    assert torch.allclose(jitter(x, config, draws(3)), 2 * turned - 1, atol=1e-5)


def test_noise_is_each_pictures_own_and_as_strong_as_it_is_said() -> None:
    grey = torch.zeros(100, 3, 24, 30)
    noise = relit(grey, replace(STILL, noise=0.2), draws()).flatten(1)
    strengths = noise.std(1)
    assert strengths.max() <= 0.23 and strengths.min() < 0.05 and 0.08 < strengths.mean() < 0.12
    strong = noise[strengths > 0.1]
    alike = torch.corrcoef(strong) - torch.eye(len(strong))
    assert (alike.abs() > 0.5).float().mean() < 0.01 and alike.abs().mean() < 0.1  # of one field, seldom of one place


def test_a_blur_spreads_what_is_bright_and_keeps_its_sum() -> None:
    points = torch.full((40, 3, 24, 24), -0.5)
    points[:, :, 12, 10] = 0.5
    seen = relit(points, replace(STILL, blur=1.0), draws()) + 0.5
    assert torch.allclose(seen.sum((2, 3)), torch.ones(40, 3), atol=1e-4)
    peaks = seen[:, 0, 12, 10]
    assert peaks.min() < 0.4 and peaks.max() > 0.8 and (seen[:, 0, 12, 11] > 0).all()


def test_a_large_batch_is_relit_picture_by_picture() -> None:
    x = pictures(70, size=10, width=14)
    seen = relit(x, replace(STILL, brightness=0.1), draws())
    factors = ((seen + 1) / (x + 1)).flatten(1)
    assert seen.shape == x.shape and torch.allclose(factors, factors[:, :1].expand_as(factors), rtol=1e-3)
    assert len(factors[:, 0].unique()) > 60 and factors.min() >= 0.9 and factors.max() <= 1.1 and factors.std() > 0.03
