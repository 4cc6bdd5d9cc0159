from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wm.joint import JointModel
from wm.losses import sigreg
from wm.point_head import PointHead
from wm.predictor import Predictor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_state_vector_is_the_heads_tokens_with_the_proprioception_behind(dot_model: Callable[[], JointModel]) -> None:
    model, tokens, proprio = dot_model(), torch.randn(3, 4, 16, 6), torch.randn(3, 4, 2)
    alone, both = model.state_vectors(tokens, None), model.state_vectors(tokens, proprio)
    assert alone.shape == (3, 4, 8) and torch.equal(both[..., :8], alone) and torch.equal(both[..., 8:], proprio)
    torch.testing.assert_close(alone[1, 2], model.head(tokens[1, 2:3]).flatten())


def test_a_fresh_model_predicts_a_copy(dot_model: Callable[[], JointModel]) -> None:
    model, states, actions = dot_model(), torch.randn(16, 5, 8), torch.randn(16, 4, 4)
    value, figures = model.loss(states, actions, None, 0.0, seeded())
    assert value.item() == pytest.approx(float((states[:, 1:2] - states[:, 2:]).square().mean()), rel=1e-5)
    assert float(figures["share_of_copy"]) == pytest.approx(1.0, rel=1e-5) and float(figures["sigreg"]) == 0


def test_without_proprioception_the_loss_is_prediction_and_regulariser(dot_model: Callable[[], JointModel]) -> None:
    model, states, actions = dot_model(), torch.randn(16, 5, 8), torch.randn(16, 4, 4)
    value, figures = model.loss(states, actions, None, 3.0, seeded())
    collapse = sigreg(states.flatten(0, 1), seeded())
    assert float(figures["sigreg"]) == pytest.approx(float(collapse), rel=1e-5)
    assert value.item() == pytest.approx(float(figures["prediction"] + 3.0 * collapse), rel=1e-5)
    assert float(figures["std"]) == pytest.approx(float(states.flatten(0, 1).std(0).mean()), rel=1e-5)


def with_proprio(states: Tensor) -> JointModel:
    """A model of 8 latent numbers, the last two of which read the two numbers of proprioception behind them."""
    torch.manual_seed(0)
    return JointModel(PointHead(4, 6, 1, 8, points=8), Predictor(states.shape[-1], 4, 2, 32, 1))


def test_the_last_numbers_read_out_the_proprioception() -> None:
    proprio, actions = torch.randn(64, 5, 2), torch.randn(64, 4, 4)
    good = torch.cat([torch.randn(64, 5, 6), proprio, proprio], -1)
    bad = torch.cat([good[..., :6], -proprio, proprio], -1)
    figures = [with_proprio(s).loss(s, actions, proprio, 1.0, seeded())[1] for s in (good, bad)]
    assert float(figures[0]["read_out"]) == 0
    assert float(figures[1]["read_out"]) == pytest.approx(4 * float(proprio.square().mean()), rel=1e-4)


def test_what_proprioception_explains_does_not_count_as_alive() -> None:
    """A latent that only repeats the robot is as collapsed as a constant one, whatever its own spread."""
    proprio, actions = torch.randn(256, 5, 2), torch.randn(256, 4, 4)
    repeats = proprio @ torch.randn(2, 6)
    sees = torch.randn(256, 5, 6)
    found = {}
    for name, world in {"repeats": repeats, "sees": sees, "constant": torch.zeros_like(sees)}.items():
        states = torch.cat([world, proprio, proprio], -1)
        found[name] = with_proprio(states).loss(states, actions, proprio, 1.0, seeded())[1]
    assert float(found["sees"]["sigreg"]) < 0.05 * float(found["constant"]["sigreg"])
    assert float(found["repeats"]["sigreg"]) > 0.8 * float(found["constant"]["sigreg"])
    assert float(found["repeats"]["explained"]) > 0.8 * float(repeats.square().mean())
    assert float(found["sees"]["explained"]) < 0.15


def test_both_the_prediction_and_its_target_are_trained(dot_model: Callable[[], JointModel]) -> None:
    model = dot_model()
    states = torch.randn(4, 5, 8, requires_grad=True)
    value, figures = model.loss(states, torch.randn(4, 4, 4), None, 0.0, seeded())
    value.backward()
    assert isinstance(states.grad, Tensor)
    assert (states.grad[:, 2:].abs().amax((0, 2)) > 0).all() and (states.grad[:, 1].abs().amax() > 0).all()
    assert not any(figure.requires_grad for figure in figures.values())
