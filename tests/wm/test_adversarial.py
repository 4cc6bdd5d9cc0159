from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm.windows import with_observations
from wm.adversarial import deviations, perturbed, require_radius
from wm.errors import BadInputError
from wm.logs import Log, LogWindows, Moments
from wm.losses import rollout_loss
from wm.predictor import Predictor
from wm.rollout import rollout

SCALES = torch.tensor([1.0, 0.5, 2.0, 0.0, 0.1, 3.0]), torch.tensor([1.0, 1.0, 0.7])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def world(moving: Callable[[Predictor], Predictor]) -> tuple[Predictor, Callable[[Tensor, Tensor], Tensor]]:
    """A predictor and the error of its rollouts of four latent steps."""
    torch.manual_seed(0)
    predictor, target = moving(Predictor(6, 3, 2, 32, 2)), drawn(16, 4, 6, seed=5)

    def error(context: Tensor, actions: Tensor) -> Tensor:
        return rollout_loss(rollout(predictor, context, actions[:, None])[:, 0], target, torch.ones(6))

    return predictor, error


@pytest.mark.parametrize("radius", [0.001, 0.05, 0.2])
def test_the_error_grows_and_the_radius_is_kept(world: tuple[Predictor, Callable], radius: float) -> None:
    predictor, error = world
    inputs = drawn(16, 2, 6, seed=1), drawn(16, 4, 3, seed=2)
    before = [each.clone() for each in inputs]
    moved = perturbed(error, *inputs, radius, SCALES)
    assert error(*moved) > error(*inputs)
    for old, new, first, scale in zip(inputs, moved, before, SCALES, strict=True):
        assert torch.equal(old, first) and not new.requires_grad
        distance = (new - old).abs()
        assert bool((distance <= radius * scale + 1e-6).all())
        assert torch.allclose(distance.amax((0, 1)), radius * scale, atol=1e-6)
    assert all(p.grad is None for p in predictor.parameters())


def test_no_random_direction_is_worse(world: tuple[Predictor, Callable]) -> None:
    _, error = world
    context, actions = drawn(16, 2, 6, seed=1), drawn(16, 4, 3, seed=2)
    worst = error(*perturbed(error, context, actions, 0.05, SCALES))
    for seed in range(20):
        there = context + 0.05 * SCALES[0] * drawn(16, 2, 6, seed=seed).sign()
        assert error(there, actions + 0.05 * SCALES[1] * drawn(16, 4, 3, seed=100 + seed).sign()) < worst


def test_a_radius_of_nothing_moves_nothing(world: tuple[Predictor, Callable]) -> None:
    context, actions = drawn(16, 2, 6, seed=1), drawn(16, 4, 3, seed=2)
    moved = perturbed(world[1], context, actions, 0.0, SCALES)
    assert torch.equal(moved[0], context) and torch.equal(moved[1], actions)


def test_a_square_error_drives_its_inputs_away_from_its_minimum() -> None:
    context, actions = torch.tensor([[[2.0, -1.0, 0.5]]]), torch.tensor([[[3.0, 0.0]]])
    centre = torch.tensor([1.0, 1.0, 0.5])

    def error(states: Tensor, moves: Tensor) -> Tensor:
        return (states - centre).square().sum() + (2 * moves[..., 0]).square().sum()

    moved = perturbed(error, context, actions, 0.1, (torch.tensor([1.0, 2.0, 3.0]), torch.ones(2)))
    torch.testing.assert_close(moved[0], torch.tensor([[[2.1, -1.2, 0.5]]]))  # the last is at its minimum
    torch.testing.assert_close(moved[1], torch.tensor([[[3.1, 0.0]]]))  # the last has no part in the error


def test_deviations_are_those_of_the_log(drifting_dot: Callable[..., LogWindows]) -> None:
    windows = drifting_dot()
    rows = len(windows.log.observations)
    states = torch.stack([4 * drawn(rows), 0.5 * drawn(rows, seed=1) + 3, torch.full((rows,), 7.0)], 1)
    windows = with_observations(windows, states)
    proprio = np.random.default_rng(0).normal(5, 9, (rows, 2)).astype(np.float32)
    log = Log(states, proprio, windows.log.actions)
    found = deviations(LogWindows(log, windows.sampler, windows.action_moments, Moments.of(proprio)))
    assert found[0].tolist() == pytest.approx([4, 0.5, 0, 1, 1], rel=0.15, abs=1e-5)
    assert found[1].tolist() == pytest.approx([1.0] * 4, rel=0.15)  # two control steps of two numbers
    again = deviations(LogWindows(log, windows.sampler, windows.action_moments, Moments.of(proprio)))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("radius", [-1.0, -1e-9, math.nan, math.inf])
def test_a_radius_out_of_range_is_refused(radius: float) -> None:
    with pytest.raises(BadInputError, match=rf"^adversarial: expected a finite number >= 0, came {radius}\.$"):
        require_radius(radius, "compact")


@pytest.mark.parametrize("form", ["patch", "strokes"])
def test_only_the_compact_form_has_it(form: str) -> None:
    require_radius(0.0, form)
    require_radius(0.1, "compact")
    with pytest.raises(BadInputError, match=rf"^adversarial: expected 0 in the {form} form \(.*\), came 0\.1\.$"):
        require_radius(0.1, form)
