from __future__ import annotations

import torch

from wm.planners.gaussian import Gaussian, refit


def test_refit_is_the_maximum_likelihood_fit_mixed_with_the_old_one() -> None:
    torch.manual_seed(0)
    elites = torch.randn(2, 7, 3, 4)
    old = Gaussian(torch.randn(2, 3, 4), torch.rand(2, 3, 4))
    everyone = torch.ones(2, 7, dtype=torch.bool)
    mean, std = refit(old, elites, everyone, 0.25, torch.zeros(4))
    torch.testing.assert_close(mean, 0.25 * old.mean + 0.75 * elites.mean(1))
    torch.testing.assert_close(std, 0.25 * old.std + 0.75 * elites.std(1, correction=0))


def test_std_keeps_its_floor() -> None:
    old = Gaussian(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2))
    floor = torch.tensor([0.1, 0.2])
    std = refit(old, torch.ones(1, 5, 3, 2), torch.ones(1, 5, dtype=torch.bool), 0.1, floor)[1]
    torch.testing.assert_close(std, floor.expand(1, 3, 2))


def test_elites_without_a_finite_energy_do_not_count() -> None:
    torch.manual_seed(0)
    elites, old = torch.randn(2, 4, 3, 2), Gaussian(torch.randn(2, 3, 2), torch.rand(2, 3, 2))
    finite = torch.tensor([[True, True, False, False], [False] * 4])
    mean, std = refit(old, elites, finite, 0.0, torch.zeros(2))
    torch.testing.assert_close(mean[0], elites[0, :2].mean(0))
    torch.testing.assert_close(mean[1], old.mean[1])
    torch.testing.assert_close(std[1], old.std[1])
