"""Views: the same pictures seen again, a little otherwise. Batched, in torch, every draw from one generator.

No flips and no large crops by default: where things are is what a robot's pictures say, and an objective that calls two
views the same throws away whatever tells them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_LUMA = (0.299, 0.587, 0.114)
_BLUR = (0.05, 0.25, 0.4, 0.25, 0.05)
"""A Gaussian of about one pixel."""

_AT_A_TIME = 32
"""Pictures: what is made of so many stays in a core's cache."""


@dataclass(frozen=True)
class ViewConfig:
    """How far a view may be from the picture. Every draw is uniform.

    Attributes:
        crop_least: Smallest share of the area that a crop shows, 0 … 1; it is stretched to the picture's size.
        crop_most: Largest share.
        ratio: Largest ratio of a crop's sides, >= 1.
        brightness: Largest relative change.
        contrast: Largest relative change, around the picture's mean luminance.
        saturation: Largest relative change.
        hue: Largest turn of the colour circle, 0 … 0.5 of a whole one.
        blur: Largest share of a blurred copy that is mixed in, 0 … 1.
        noise: Largest standard deviation of added noise, of a scale of -1 … 1.
    """

    crop_least: float = 0.8
    crop_most: float = 1.0
    ratio: float = 1.1
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.03
    blur: float = 0.5
    noise: float = 0.03

    def cropped(self, least: float, most: float) -> ViewConfig:
        """The same with other crops."""
        return replace(self, crop_least=least, crop_most=most)


def view(pixels: Float[Tensor, "M 3 H W"], config: ViewConfig, generator: torch.Generator) -> Float[Tensor, "M 3 H W"]:
    """One view of each picture.

    Args:
        pixels: Normalised, -1 … 1.
        config: How far from it.
        generator: Draws everything.

    Returns:
        Of the same size, -1 … 1; channels-last in memory, in which blurring and encoding are fastest.
    """
    return relit(crop(pixels, config.crop_least, config.crop_most, config.ratio, generator), config, generator)


def relit(pixels: Float[Tensor, "M 3 H W"], config: ViewConfig, generator: torch.Generator) -> Float[Tensor, "M 3 H W"]:
    """Each picture as another camera would have taken it in other light: everything is where it was.

    Args:
        pixels: Normalised, -1 … 1.
        config: How far from it; crops are left out.
        generator: Draws everything.

    Returns:
        As `view`.
    """
    field = _field(pixels, generator)
    return torch.cat([_relit(some, config, field, generator) for some in pixels.split(_AT_A_TIME)])


def _relit(pixels: Tensor, config: ViewConfig, field: Tensor, generator: torch.Generator) -> Tensor:
    m, (height, width) = len(pixels), pixels.shape[2:]
    seen = jitter(pixels, config, generator).contiguous(memory_format=torch.channels_last)
    share = config.blur * _uniform(m, 0.0, 1.0, generator)
    seen = torch.lerp(seen, _blurred(seen), share.to(seen.dtype))
    top, left = (torch.randint(side, (m,), generator=generator).tolist() for side in (height, width))
    noise = torch.stack([field[:, y : y + height, x : x + width] for y, x in zip(top, left, strict=True)])
    strength = config.noise * _uniform(m, -1.0, 1.0, generator)
    return torch.addcmul(seen, strength.to(seen.dtype), noise).clamp_(-1.0, 1.0)


def _field(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of twice the pictures' size, from anywhere in which each picture takes its own: fresh noise is slow."""
    channels, *size = pixels.shape[1:]
    return torch.randn(channels, *(2 * side for side in size), generator=generator, dtype=pixels.dtype)


def crop(
    pixels: Float[Tensor, "M 3 H W"], least: float, most: float, ratio: float, generator: torch.Generator
) -> Float[Tensor, "M 3 H W"]:
    """A random part of each picture, stretched to its size (bilinear).

    Args:
        pixels: Any.
        least: Smallest share of the area.
        most: Largest share.
        ratio: Largest ratio of the part's sides.
        generator: Draws size, shape and place.
    """
    m = len(pixels)
    area, aspect = _draws(m, least, most, generator), torch.exp(_draws(m, -1.0, 1.0, generator) * math.log(ratio))
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    x, y = ((1 - side) * _draws(m, -1.0, 1.0, generator) for side in (width, height))
    nothing = torch.zeros(m)
    rows = [torch.stack(row, 1) for row in ((width, nothing, x), (nothing, height, y))]
    grid = functional.affine_grid(torch.stack(rows, 1).to(pixels.dtype), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def jitter(
    pixels: Float[Tensor, "M 3 H W"], config: ViewConfig, generator: torch.Generator
) -> Float[Tensor, "M 3 H W"]:
    """Other brightness, contrast, saturation and hue for each picture."""
    m, luma = len(pixels), torch.tensor(_LUMA)
    brightness, contrast, saturation = (
        _draws(m, 1 - most, 1 + most, generator)[:, None, None]
        for most in (config.brightness, config.contrast, config.saturation)
    )
    turn = _turned(2 * torch.pi * _draws(m, -config.hue, config.hue, generator))
    mean = ((pixels.float().mean((2, 3)) + 1) / 2 @ luma)[:, None, None]
    # All of it is one affine map of a picture's colours: lighter, nearer to the mean, greyer, turned.
    grey = torch.eye(3) * saturation + (1 - saturation) * luma.expand(3, 3)
    matrix = contrast * brightness * turn @ grey
    shift = (1 - contrast) * brightness * mean * torch.ones(3, 1)  # the grey axis stays as it is
    offset = 2 * shift + matrix.sum(2, keepdim=True) - 1  # for -1 … 1 instead of 0 … 1
    return torch.baddbmm(offset.to(pixels.dtype), matrix.to(pixels.dtype), pixels.flatten(2)).view_as(pixels)


def _turned(angle: Float[Tensor, " M"]) -> Float[Tensor, "M 3 3"]:
    """Rotations of RGB about the grey axis (Rodrigues)."""
    axis = torch.full((3,), 3**-0.5)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * 3**-0.5
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3) + sin * cross + (1 - cos) * torch.outer(axis, axis)


def _blurred(pixels: Tensor) -> Tensor:
    kernel = torch.tensor(_BLUR, dtype=pixels.dtype)
    reach, channels = len(_BLUR) // 2, pixels.shape[1]
    across = kernel.expand(channels, 1, 1, -1)
    padded = functional.pad(pixels, (reach, reach, reach, reach), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, across, groups=channels), across.mT, groups=channels)


def _draws(m: int, low: float, high: float, generator: torch.Generator) -> Float[Tensor, " M"]:
    return low + (high - low) * torch.rand(m, generator=generator)


def _uniform(m: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return _draws(m, low, high, generator)[:, None, None, None]
