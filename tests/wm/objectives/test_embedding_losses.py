"""The losses of embeddings of views: their laws, their known values, their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wm.objectives import OBJECTIVES
from wm.objectives.barlow import BarlowConfig, barlow_terms
from wm.objectives.mcr2 import Mcr2Config, coding_rate
from wm.objectives.mmcr import MmcrConfig, nuclear_share
from wm.objectives.multiview import MultiViewConfig
from wm.objectives.simclr import SimclrConfig, nt_xent_terms
from wm.objectives.vicreg import VicregConfig, vicreg_terms

VIEWS = [name for name, config in OBJECTIVES.items() if issubclass(config, MultiViewConfig)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def config_of(name: str) -> MultiViewConfig:
    config = OBJECTIVES[name]()
    assert isinstance(config, MultiViewConfig)
    return config


def loss(config: MultiViewConfig, embeddings: Tensor) -> Tensor:
    return config.embedding_loss(embeddings, torch.Generator().manual_seed(5))[0]


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("views", [2, 3])
def test_gradient_agrees_with_finite_differences(name: str, views: int) -> None:
    embeddings = normal(views, 6, 4).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: loss(config_of(name), z), embeddings)
    bare = config_of(name).unregulated()
    assert isinstance(bare, MultiViewConfig)
    assert torch.autograd.gradcheck(lambda z: loss(bare, z), embeddings)


@pytest.mark.parametrize("name", VIEWS)
def test_the_order_of_pictures_and_of_views_does_not_matter(name: str) -> None:
    embeddings, order = normal(2, 12, 4), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    value = float(loss(config_of(name), embeddings))
    assert float(loss(config_of(name), embeddings[:, order])) == pytest.approx(value, abs=1e-9)
    if name != "sigreg":  # whose random directions are each view's own
        assert float(loss(config_of(name), embeddings.flip(0))) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", VIEWS)
def test_views_that_agree_cost_less(name: str) -> None:
    picture = normal(1, 256, 4)
    values = [float(loss(config_of(name), picture + noise * normal(3, 256, 4, seed=1))) for noise in (0.0, 0.5, 2.0)]
    assert values == sorted(values) and values[0] < values[1] - 1e-3


@pytest.mark.parametrize("name", VIEWS)
def test_a_collapse_costs_more_unless_the_regulariser_is_off(name: str) -> None:
    apart, collapsed = normal(1, 64, 4).expand(2, -1, -1), torch.ones(2, 64, 4, dtype=torch.float64)
    assert loss(config_of(name), apart) < loss(config_of(name), collapsed) - 0.1
    bare = config_of(name).unregulated()
    assert isinstance(bare, MultiViewConfig)
    assert loss(bare, collapsed) <= loss(bare, apart + 0.1 * normal(2, 64, 4, seed=1))


@pytest.mark.parametrize("name", ["mcr2", "mmcr", "simclr"])
def test_only_directions_matter_to_what_is_normalised(name: str) -> None:
    embeddings = normal(2, 8, 4)
    stretched = embeddings * torch.linspace(0.5, 3.0, 8, dtype=torch.float64)[:, None]
    assert float(loss(config_of(name), stretched)) == pytest.approx(float(loss(config_of(name), embeddings)))


@pytest.mark.parametrize("name", ["mcr2", "mmcr", "simclr"])
def test_a_rotation_changes_nothing(name: str) -> None:
    embeddings, rotation = normal(2, 8, 4), torch.linalg.qr(normal(4, 4, seed=3)).Q
    assert float(loss(config_of(name), embeddings @ rotation)) == pytest.approx(
        float(loss(config_of(name), embeddings))
    )


def hadamard() -> Tensor:
    one, two = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    columns = [torch.kron(torch.kron(a, b), c) for a, b, c in [(one, one, two), (one, two, one), (two, one, one)]]
    return torch.stack(columns, 1).double()


def test_vicreg_is_zero_for_agreeing_uncorrelated_unit_numbers() -> None:
    assert float(loss(VicregConfig(), hadamard().expand(2, -1, -1))) == pytest.approx(0, abs=1e-9)
    agreement, _, _ = vicreg_terms(torch.stack([hadamard(), hadamard() + 2.0]))
    assert float(agreement) == pytest.approx(4.0)  # the mean squared difference of two views
    three = normal(3, 8, 3)
    pairs = [(three[i] - three[j]).square().mean() for i in range(3) for j in range(i)]
    assert float(vicreg_terms(three)[0]) == pytest.approx(float(sum(pairs) / 3))


def test_barlow_is_zero_where_the_correlation_is_the_identity_whatever_the_scale() -> None:
    z = hadamard()
    assert float(loss(BarlowConfig(), torch.stack([z, 5 * z - 2]))) == pytest.approx(0, abs=1e-8)
    same, different = barlow_terms(z, -z)
    assert float(same) == pytest.approx(4, rel=1e-4) and float(different) == pytest.approx(0, abs=1e-12)
    repeated = z[:, :1].expand(-1, 3)
    same, different = barlow_terms(repeated, repeated)
    assert float(same) == pytest.approx(0, abs=1e-8) and float(different) == pytest.approx(6 / 3, rel=1e-4)


def test_nt_xent_has_the_value_of_known_similarities() -> None:
    z = torch.eye(4, dtype=torch.float64)  # positives alike, all others at a right angle
    attraction, repulsion = nt_xent_terms(z, 3 * z, 0.5)
    assert float(attraction) == pytest.approx(-2) and float(repulsion) == pytest.approx(math.log(math.exp(2) + 6))
    attraction, repulsion = nt_xent_terms(torch.ones(4, 3), torch.ones(4, 3), 0.5)
    assert float(attraction + repulsion) == pytest.approx(math.log(7))  # collapsed: no picture is told from another


def test_nt_xent_is_the_cross_entropy_of_finding_the_other_view() -> None:
    one, other = normal(5, 3), normal(5, 3, seed=1)
    z = torch.nn.functional.normalize(torch.cat([one, other]), dim=1)
    logits = (z @ z.T / 0.2).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(10).roll(5))
    assert float(loss(SimclrConfig(), torch.stack([one, other]))) == pytest.approx(float(expected))


def test_coding_rate_of_known_samples() -> None:
    assert float(coding_rate(torch.eye(4).double(), 0.5)) == pytest.approx(4 / 2 * math.log(1 + 1 / 0.5))
    one_direction = torch.tensor([[1.0, 0, 0, 0]]).double().expand(7, -1)
    assert float(coding_rate(one_direction, 0.5)) == pytest.approx(0.5 * math.log(1 + 4 / 0.5))
    wide, tall = normal(3, 5), normal(9, 5)
    for z in (wide, tall):  # by the larger determinant
        direct = 0.5 * torch.logdet(torch.eye(5) + 5 / (len(z) * 0.5) * z.T @ z)
        assert float(coding_rate(z, 0.5)) == pytest.approx(float(direct))


def test_mcr2_has_its_optimum_where_agreeing_pictures_fill_the_space() -> None:
    best = 0.5 * math.log(1 + 4 / 0.5) / 4 - 0.5 * math.log(1 + 1 / 0.5)
    axes = torch.eye(4).double().expand(3, -1, -1)
    assert float(loss(Mcr2Config(), axes)) == pytest.approx(best)
    others = [float(loss(Mcr2Config(), normal(3, 4, 4, seed=s))) for s in range(20)]
    assert min(others) > best


def test_mmcr_has_its_optimum_where_agreeing_centroids_are_orthogonal() -> None:
    assert float(loss(MmcrConfig(), torch.eye(4).double().expand(3, -1, -1))) == pytest.approx(-1)
    frame = torch.cat([torch.eye(4), -torch.eye(4)]).double()  # more pictures than numbers: a tight frame
    assert float(loss(MmcrConfig(), frame.expand(2, -1, -1))) == pytest.approx(-1)
    assert float(nuclear_share(torch.ones(4, 4).double() / 2)) == pytest.approx(1 / 2)  # one direction of four
    assert all(-1 < float(loss(MmcrConfig(), normal(3, 6, 4, seed=s))) < 0 for s in range(20))
