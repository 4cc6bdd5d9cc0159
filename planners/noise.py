"""Reproducible noise: the same for a problem alone or in a batch, white or coloured along time."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError


class Noise:
    """Standard normal numbers for B problems, whose noise never depends on B.

    One generator: every problem gets the *same* noise (common random numbers), so that a problem's answer depends
    neither on B nor on its place in the batch. One generator per problem: each has its own noise, the same as alone.
    Exactly one number is drawn from each generator, so that an early stop does not change what a later search draws.

    Args:
        generator: One generator, or one per problem.
        batch: B.
        like: Gives device and dtype.

    Raises:
        BadInputError: the number of generators is not B.
    """

    def __init__(self, generator: torch.Generator | Sequence[torch.Generator], batch: int, like: Tensor) -> None:
        sources = [generator] if isinstance(generator, torch.Generator) else list(generator)
        if not isinstance(generator, torch.Generator) and len(sources) != batch:
            raise BadInputError(f"expected one generator or {batch}, one per problem, came {len(sources)}.")
        self._like = like
        self._streams = [torch.Generator(like.device).manual_seed(_seed(source)) for source in sources]

    def normal(self, *shape: int) -> Tensor:
        """``(B, *shape)``, or ``(1, *shape)`` to be broadcast where all problems share their noise."""
        drawn = torch.empty(len(self._streams), *shape, dtype=self._like.dtype, device=self._like.device)
        for row, stream in zip(drawn, self._streams, strict=True):
            row.normal_(generator=stream)
        return drawn

    def coloured(self, samples: int, time: int, width: int, beta: float | int) -> Float[Tensor, "B S L W"]:
        """Unit-variance noise with power spectral density ~ 1 / f^beta along its ``time`` steps.

        Independent over samples and over the ``width`` action dimensions; shape ``(B or 1, samples, time, width)``.
        """
        white = self.normal(samples, width, time)
        return (white @ colouring(time, beta, white.dtype, white.device)).transpose(-1, -2)

    def controls(
        self, samples: int, horizon: int, width: int, frameskip: int, beta: float | int
    ) -> Float[Tensor, "B S H A"]:
        """Coloured noise for action sequences, at control-step resolution.

        A latent step's ``width`` numbers are ``frameskip`` control steps of width / frameskip numbers each, so noise is
        drawn over horizon * frameskip control steps.

        Raises:
            BadInputError: ``frameskip`` does not divide the width.
        """
        if width % frameskip:
            raise BadInputError(f"frameskip {frameskip} must divide the {width} numbers of a latent step's action.")
        drawn = self.coloured(samples, horizon * frameskip, width // frameskip, beta)
        return drawn.reshape(-1, samples, horizon, width)

    def seeds(self, batch: int) -> list[int]:
        """A seed per problem for a library that draws its own noise; one for all where they share their noise."""
        seeds = [_seed(stream) for stream in self._streams]
        return seeds if len(seeds) == batch else seeds * batch


@functools.lru_cache(maxsize=32)
def colouring(time: int, beta: float | int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "L L"]:
    """Matrix that colours: ``white @ matrix`` has PSD ~ 1 / f^beta and variance 1 at every time step.

    Row by row it is the inverse real FFT of one independent spectral amplitude (Timmer and Koenig 1995, as in Pinneri
    et al. 2020): real and imaginary part of each frequency k / time, scaled by f^(-beta/2). The zero frequency, where
    the law diverges, gets the power of the lowest one. beta 0 is white, 1 pink, 2 red.
    """
    frequency = torch.fft.rfftfreq(time, dtype=torch.float64)
    frequency[0] = 1.0 / time
    amplitude = frequency ** (-beta / 2)
    real, imaginary = torch.diag(amplitude).to(torch.complex128), 1j * torch.diag(amplitude)
    edges = [0, time // 2] if time % 2 == 0 else [0]  # purely real: all of their power is in the real part
    real[edges] *= 2**0.5
    inner = [k for k in range(len(frequency)) if k not in edges]
    matrix = torch.fft.irfft(torch.cat([real, imaginary[inner]]), n=time)  # (time sources, time steps)
    matrix = matrix / matrix.square().sum(0).mean().sqrt()
    return matrix.to(device=device, dtype=dtype)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
