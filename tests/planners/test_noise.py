from __future__ import annotations

import pytest
import torch

from wm.errors import BadInputError
from wm.planners.noise import Noise, colouring


def matrix(time: int, beta: float) -> torch.Tensor:
    return colouring(time, beta, torch.float64, torch.device("cpu"))


@pytest.mark.parametrize("time", [1, 2, 3, 24, 25])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.5])
def test_variance_is_one_at_every_time_step(time: int, beta: float) -> None:
    torch.testing.assert_close(matrix(time, beta).square().sum(0), torch.ones(time, dtype=torch.float64))


@pytest.mark.parametrize("time", [24, 25])
def test_beta_zero_is_white(time: int) -> None:
    mixing = matrix(time, 0.0)
    torch.testing.assert_close(mixing.T @ mixing, torch.eye(time, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.0])
def test_spectrum_of_samples_follows_the_power_law(beta: float) -> None:
    noise = Noise(torch.Generator().manual_seed(0), 1, torch.zeros(()))
    samples = noise.coloured(4000, 50, 2, beta)
    assert samples.shape == (1, 4000, 50, 2)
    assert samples.var().item() == pytest.approx(1.0, abs=0.05)
    assert samples.mean().item() == pytest.approx(0.0, abs=0.05)
    power = torch.fft.rfft(samples.double(), dim=2).abs().square().mean((0, 1, 3))[1:25]  # without zero and Nyquist
    frequency = torch.arange(1, 25, dtype=torch.float64)
    design = torch.stack([frequency.log(), torch.ones(24, dtype=torch.float64)], 1)
    slope = torch.linalg.lstsq(design, power.log()[:, None]).solution[0].item()
    assert slope == pytest.approx(-beta, abs=0.05)


def test_samples_and_dimensions_are_independent() -> None:
    drawn = Noise(torch.Generator().manual_seed(0), 1, torch.zeros(())).coloured(4000, 10, 2, 2.0)[0]
    assert abs((drawn[..., 0] * drawn[..., 1]).mean().item()) < 0.05
    assert abs((drawn[1:] * drawn[:-1]).mean().item()) < 0.05


def test_one_generator_is_shared_and_several_are_not() -> None:
    seeds = (3, 4, 5)

    def make(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    shared = Noise(make(3), 3, torch.zeros(())).normal(4, 2)
    own = Noise([make(seed) for seed in seeds], 3, torch.zeros(())).normal(4, 2)
    assert shared.shape == (1, 4, 2) and own.shape == (3, 4, 2)
    assert torch.equal(shared[0], own[0])
    for row, seed in enumerate(seeds):
        assert torch.equal(own[row], Noise(make(seed), 1, torch.zeros(())).normal(4, 2)[0])


def test_wrong_number_of_generators_is_refused() -> None:
    with pytest.raises(BadInputError, match="expected one generator or 3, one per problem, came 2"):
        Noise([torch.Generator(), torch.Generator()], 3, torch.zeros(()))


def test_controls_are_smooth_across_latent_steps_and_split_by_control_step() -> None:
    drawn = Noise(torch.Generator().manual_seed(0), 1, torch.zeros(())).controls(3000, 4, 10, 5, 2.0)
    assert drawn.shape == (1, 3000, 4, 10)
    steps = drawn.reshape(3000, 20, 2)
    assert (steps.diff(dim=1).square().mean((0, 2)) < 0.5).all()  # white noise: 2
    assert steps[..., 0].flatten().dot(steps[..., 1].flatten()).abs() / steps[..., 0].numel() < 0.05
    with pytest.raises(BadInputError, match="frameskip 3 must divide the 10 numbers of a latent step's action"):
        Noise(torch.Generator(), 1, torch.zeros(())).controls(1, 4, 10, 3, 2.0)


def test_seeds_are_shared_with_one_generator_and_as_alone_with_one_each() -> None:
    def seeds(source: object, batch: int) -> list[int]:
        return Noise(source, batch, torch.zeros(())).seeds(batch)

    shared = seeds(torch.Generator().manual_seed(3), 3)
    assert shared == seeds(torch.Generator().manual_seed(3), 1) * 3
    own = seeds([torch.Generator().manual_seed(s) for s in (3, 4)], 2)
    assert own == [shared[0], *seeds(torch.Generator().manual_seed(4), 1)] and own[0] != own[1]
