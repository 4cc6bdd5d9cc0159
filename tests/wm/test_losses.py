from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wm.losses import effective_rank, explained_part, rollout_loss, sigreg, straightening, variance_covariance


def normal(m: int = 4096, d: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed))


def regularity(embeddings: Tensor, projections: int = 64) -> float:
    return float(sigreg(embeddings, torch.Generator().manual_seed(7), projections))


def integral(function: Callable[[Tensor], Tensor]) -> float:
    t = torch.linspace(0.0, 4.0, 4001, dtype=torch.float64)
    return 2 * float(torch.trapezoid(function(t) * torch.exp(-0.5 * t.square()), t))


def test_rollout_loss_is_the_weighted_mean_square() -> None:
    target = normal(6, 5)[None]
    assert rollout_loss(target, target, torch.ones(5)) == 0
    off = target + torch.tensor([2.0, 0.0, 0.0, 0.0, 3.0])
    assert float(rollout_loss(off, target, torch.ones(5))) == pytest.approx((4 + 9) / 5, rel=1e-5)
    assert float(rollout_loss(off, target, torch.tensor([0.0, 1, 1, 1, 0]))) == 0
    assert float(rollout_loss(off, target, torch.tensor([2.0, 1, 1, 1, 0]))) == pytest.approx(8 / 5, rel=1e-5)


def test_sigreg_vanishes_on_a_standard_normal_sample_only() -> None:
    sample = normal()
    nothing = regularity(sample)
    assert 0 <= nothing < 2e-3
    wide = torch.rand(4096, 2, generator=torch.Generator().manual_seed(0)).sub(0.5).mul(math.sqrt(12))
    others = [wide, 2 * sample, 0.5 * sample, sample + 1.0, sample[:, :1].expand(-1, 4), sample.abs()]
    assert all(regularity(other) > 5 * nothing for other in others)


def test_sigreg_grows_as_a_sample_collapses() -> None:
    sample = normal()
    values = [regularity(scale * sample) for scale in (1.0, 0.7, 0.4, 0.1, 0.0)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(integral(lambda t: (1 - torch.exp(-0.5 * t.square())).square()), rel=1e-2)


def test_sigreg_is_largest_for_a_sample_collapsed_far_from_the_origin() -> None:
    sample = normal()
    collapsed = regularity(torch.full((16, 4), 40.0), projections=4096)
    most = integral(lambda t: (1 + torch.exp(-0.5 * t.square())).square())
    assert 3.0 < collapsed < most
    assert collapsed > max(regularity(s * sample + o) for s in (0.01, 1.0, 100.0) for o in (0.0, 1.0))


def test_sigreg_does_not_depend_on_the_axes() -> None:
    sample = normal(256) * torch.tensor([2.0, 1.0, 0.5, 0.1])
    rotation = torch.linalg.qr(normal(4, 4, seed=3)).Q
    assert regularity(sample @ rotation, 4096) == pytest.approx(regularity(sample, 4096), rel=0.05)


def test_sigreg_gradient_agrees_with_finite_differences() -> None:
    sample = normal(12, 3).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: sigreg(x, torch.Generator().manual_seed(0), 8), sample)


def test_following_sigregs_gradient_makes_a_sample_normal() -> None:
    sample = (0.2 * normal(256, 3) + 0.5).requires_grad_(True)
    optimiser = torch.optim.Adam([sample], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        optimiser.zero_grad()
        sigreg(sample, generator, 32).backward()
        optimiser.step()
    assert (sample.std(0) - 1).abs().max() < 0.15 and sample.mean(0).abs().max() < 0.15


def test_explained_part_is_the_smooth_function_of_what_is_known() -> None:
    known, noise = normal(2000, 2), normal(2000, 3, seed=1)
    smooth = torch.stack([known[:, 0] - 2 * known[:, 1], (2 * known[:, 0]).sin(), known.square().sum(1) - 3], 1)
    explained = explained_part(smooth + noise, known, torch.Generator().manual_seed(0))
    rest = smooth + noise - explained
    assert (explained - smooth).square().mean(0).max() < 0.3
    assert (rest.square().mean(0) - 1).abs().max() < 0.25
    assert (rest.T @ known / len(known)).abs().max() < 0.05
    assert explained_part(noise, known, torch.Generator().manual_seed(0)).square().mean() < 0.1


def test_variance_and_covariance_vanish_on_uncorrelated_unit_numbers() -> None:
    one, two = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    columns = [torch.kron(torch.kron(a, b), c) for a, b, c in [(one, one, two), (one, two, one), (two, one, one)]]
    variance, covariance = variance_covariance(torch.stack(columns, 1))
    assert float(variance) == 0 and float(covariance) == 0


def test_variance_term_is_largest_when_collapsed() -> None:
    variance, covariance = variance_covariance(torch.full((64, 3), 5.0))
    assert float(variance) == pytest.approx(1 - math.sqrt(1e-4)) and float(covariance) == 0
    assert float(variance_covariance(0.5 * normal())[0]) == pytest.approx(0.5, abs=0.03)


def test_covariance_term_counts_repeated_numbers() -> None:
    column = normal(4096, 1)
    _, covariance = variance_covariance(column.expand(-1, 3))
    assert float(covariance) == pytest.approx(6 * float(column.var()) ** 2 / 3, rel=1e-3)


def test_variance_covariance_gradient_agrees_with_finite_differences() -> None:
    sample = (0.4 * normal(10, 3)).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: sum(variance_covariance(x)), sample)


def test_effective_rank_counts_directions() -> None:
    sample = normal(d=8)
    assert 7.8 < effective_rank(sample) <= 8.001
    assert effective_rank(sample[:, :1] * torch.ones(8)) == pytest.approx(1.0, abs=1e-2)
    assert effective_rank(torch.cat([sample[:, :3], torch.zeros(4096, 5)], 1)) == pytest.approx(3.0, abs=0.05)
    assert effective_rank(100 * sample + 7) == pytest.approx(effective_rank(sample), rel=1e-3)
    assert effective_rank(torch.ones(64, 8)) == pytest.approx(1.0, abs=1e-2)


def trajectory(velocities: Tensor) -> Tensor:
    """Places ``(B, T + 1, X)`` that start at random."""
    return torch.cat([normal(len(velocities), velocities.shape[2])[:, None], velocities], 1).cumsum(1)


def test_straightening_is_nothing_on_a_line_and_two_on_the_way_back() -> None:
    direction = normal(5, 3, seed=1)[:, None]
    line = trajectory(direction * torch.tensor([1.0, 0.3, 2.0, 5.0])[:, None])
    there_and_back = trajectory(direction * torch.tensor([1.0, -0.3, 2.0, -5.0])[:, None])
    square = trajectory(torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]]]))
    assert float(straightening(line)) == pytest.approx(0, abs=1e-6)
    assert float(straightening(there_and_back)) == pytest.approx(2, abs=1e-6)
    assert float(straightening(square)) == pytest.approx(1, abs=1e-6)


def test_straightening_is_the_mean_of_one_minus_the_cosine() -> None:
    way = normal(24, 5).view(4, 6, 5).double()
    bends = []
    for each in way.numpy():
        steps = each[1:] - each[:-1]
        for now, later in zip(steps[:-1], steps[1:], strict=True):
            bends.append(1 - now @ later / math.sqrt((now @ now) * (later @ later)))
    assert len(bends) == 16 and float(straightening(way)) == pytest.approx(sum(bends) / 16)
    rotation = torch.linalg.qr(normal(5, 5, seed=2).double()).Q
    assert float(straightening(7 * way @ rotation + 3)) == pytest.approx(float(straightening(way)))


def test_straightening_leaves_out_what_rests() -> None:
    steps = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1e-4, 1e-4]])
    way = trajectory(steps[None]).requires_grad_(True)
    value = straightening(way)
    value.backward()
    assert float(value.detach()) == pytest.approx((1 + 2) / 2, abs=1e-6)  # the triples that touch no rest
    assert way.grad is not None and bool(way.grad.isfinite().all())


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 2, 4), (3, 1, 4)])
def test_straightening_of_what_never_moves_is_nothing(shape: tuple[int, int, int]) -> None:
    way = torch.ones(shape).requires_grad_(True)
    value = straightening(way)
    value.backward()
    assert float(value.detach()) == 0 and way.grad is not None and bool((way.grad == 0).all())


def test_straightening_gradient_agrees_with_finite_differences() -> None:
    way = normal(18, 3).view(3, 6, 3).double().requires_grad_(True)
    assert torch.autograd.gradcheck(straightening, way)


def test_following_straightenings_gradient_makes_a_way_straight() -> None:
    way = normal(40, 3).view(4, 10, 3).requires_grad_(True)
    optimiser, before = torch.optim.Adam([way], lr=0.05), float(straightening(way.detach()))
    for _ in range(200):
        optimiser.zero_grad()
        straightening(way).backward()
        optimiser.step()
    assert float(straightening(way.detach())) < 0.2 * before
