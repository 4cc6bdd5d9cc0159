from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.wm.windows import with_observations
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.probe import LinearProbe, error_by_horizon


def sample(seed: int, m: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents, and three targets: linear in them, half noise, all noise."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(m, 5, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0]) + 3.0
    linear = 100.0 + latents @ torch.tensor([2.0, -1.0, 30.0, 0.0, 0.0])
    noise = torch.randn(m, 2, generator=generator)
    return latents, torch.stack([linear, latents[:, 3] + noise[:, 0], 7.0 * noise[:, 1]], 1)


def test_finds_what_is_linear_and_nothing_else() -> None:
    score, rmse = LinearProbe(*sample(0)).score(*sample(1))
    assert score[0] > 0.9999 and rmse[0] < 0.05
    assert score[1] == pytest.approx(0.5, abs=0.06) and rmse[1] == pytest.approx(1.0, abs=0.06)
    assert abs(score[2]) < 0.02 and rmse[2] == pytest.approx(7.0, rel=0.05)


def test_reads_values_in_the_targets_unit() -> None:
    latents, targets = sample(2)
    torch.testing.assert_close(LinearProbe(latents, targets)(latents)[:, 0], targets[:, 0], rtol=0, atol=0.05)


def test_survives_a_constant_latent() -> None:
    latents, targets = sample(3)
    latents[:, 4] = 1.0
    assert LinearProbe(latents, targets).score(latents, targets)[0][0] > 0.9999


def test_a_fresh_model_is_as_good_as_copying_and_copying_grows_worse(
    drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows = drifting_dot(horizon=4)
    states = torch.as_tensor(windows.log.observations).flatten(1)[:, :8]
    error, copy = error_by_horizon(dot_model(), with_observations(windows, states), 8, count=500)
    assert len(error) == 4 and error == pytest.approx(copy, rel=1e-5) and copy == sorted(copy)
    half, _ = error_by_horizon(dot_model(), with_observations(windows, states), 4, count=500)
    index = windows.sampler
    rows = index.observation_index(*index.sample(np.random.default_rng(0), 500))
    expected = (states[rows[:, 1]] - states[rows[:, 3]])[:, :4].square().mean()
    assert half[1] == pytest.approx(float(expected), rel=1e-5)
