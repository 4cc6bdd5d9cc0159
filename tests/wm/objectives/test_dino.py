from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from wm.encoders.tiny import TinyEncoder
from wm.logs import Batch
from wm.objectives.base import Moment, Pictures
from wm.objectives.dino import Dino, DinoConfig, balanced, distillation

SMALL = DinoConfig(prototypes=16, hidden=8, bottleneck=4)


def make(config: DinoConfig, encoder: TinyEncoder) -> Dino:
    objective = config.build(encoder, Pictures(np.zeros((1, 24, 24, 3), np.uint8), np.zeros(1, np.int64)))
    assert isinstance(objective, Dino)
    return objective


def batch(n: int = 6) -> Batch:
    frames = np.random.default_rng(0).integers(0, 255, (n, 1, 24, 24, 3)).astype(np.uint8)
    return Batch(torch.from_numpy(frames), None, torch.zeros(n, 0, 0))


def moment(step: int, steps: int = 11) -> Moment:
    return Moment(step, steps, torch.Generator().manual_seed(step))


def test_sharpening_goes_from_every_name_to_one() -> None:
    cosines = torch.tensor([[0.3, 0.2, -0.5]])
    assert torch.allclose(balanced(cosines / 1e6, 0), torch.full((1, 3), 1 / 3), atol=1e-5)
    assert torch.allclose(balanced(cosines / 1e-3, 0), torch.tensor([[1.0, 0, 0]]), atol=1e-6)
    entropy = [float(torch.special.entr(balanced(cosines / t, 0)).sum()) for t in (0.01, 0.04, 0.1, 1.0)]
    assert entropy == sorted(entropy)


def test_balancing_gives_every_name_the_same_share_of_the_views() -> None:
    logits = (
        torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 + 3 * torch.eye(5)[0]
    )
    shares = [(balanced(logits, k).sum(0) - 12 / 5).abs().max() for k in (0, 3, 300)]
    assert shares[0] > shares[1] > shares[2] and shares[2] < 1e-9
    chosen = balanced(logits, 3)
    assert torch.allclose(chosen.sum(1), torch.ones(12, dtype=torch.float64)) and chosen.min() >= 0
    assert torch.allclose(balanced(logits, 0), logits.softmax(1))


def test_balancing_takes_away_what_all_pictures_have_in_common() -> None:
    common, own = torch.tensor([100.0, 0, 0]), 8 * torch.eye(3)
    assert (balanced(own + common, 0).argmax(1) == 0).all()  # one name for everything
    assert torch.allclose(balanced(own + common, 3), balanced(own, 3), atol=1e-5)
    assert (balanced(own + common, 3).argmax(1) == torch.arange(3)).all()
    assert torch.allclose(balanced(common.expand(4, 3), 1), torch.full((4, 3), 1 / 3))


def test_distillation_is_the_entropy_where_the_student_agrees_and_skips_the_same_view() -> None:
    p = torch.tensor([0.7, 0.2, 0.1]).double()
    agreeing = p.log().expand(3, 4, 3)
    entropy = float(torch.special.entr(p).sum())
    assert float(distillation(agreeing, p.expand(2, 4, 3))) == pytest.approx(entropy)
    assert float(distillation(agreeing + 3.0, p.expand(2, 4, 3))) == pytest.approx(entropy)  # a softmax's freedom
    off = agreeing.clone()
    off[0] = torch.tensor([0.0, 0, 0])  # pairs (0,1), (0,2), (1,0), (1,2): one of four has the student's view 0
    assert float(distillation(off, p.expand(2, 4, 3))) == pytest.approx((3 * entropy + math.log(3)) / 4)


def test_distillation_gradient_agrees_with_finite_differences() -> None:
    logits = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    teacher = torch.randn(2, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(-1)
    assert torch.autograd.gradcheck(lambda z: distillation(z, teacher), logits)


def test_names_are_balanced_and_no_gradient_reaches_the_teacher(square_encoder: Callable[[], TinyEncoder]) -> None:
    torch.manual_seed(0)
    objective = make(SMALL, square_encoder())
    value, figures = objective.loss(batch(), moment(0))
    value.backward()
    assert all(p.grad is None for p in [*objective.teacher.parameters(), *objective.teacher_head.parameters()])
    assert all(p.grad is not None for p in [*objective.encoder.parameters(), *objective.head.parameters()])
    assert 0 <= figures["teacher_entropy"] <= figures["mean_entropy"] + 1e-5 <= math.log(16) + 1e-4
    assert math.isclose(figures["divergence"], value.item() - figures["teacher_entropy"], rel_tol=1e-5)
    torch.manual_seed(0)
    bare = make(SMALL.unregulated(), square_encoder()).loss(batch(), moment(0))[1]
    assert bare["mean_entropy"] + 0.3 < figures["mean_entropy"] > 0.9 * math.log(16)


def test_the_teachers_temperature_warms_up() -> None:
    config = replace(SMALL, warmup=0.5)
    torch.manual_seed(0)
    encoder = TinyEncoder(8)
    objective = make(config, encoder)
    values = [objective._temperature(moment(step).share) for step in range(11)]
    assert values[0] == 0.03 and values[5] == values[-1] == pytest.approx(0.04) and values == sorted(values)
    bare = make(config.unregulated(), encoder)
    assert {bare._temperature(share) for share in (0.0, 0.3, 1.0)} == {0.1}
