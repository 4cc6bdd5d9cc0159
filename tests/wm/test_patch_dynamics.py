"""The patch form's predictor on state vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.wm.dense_patches import dense_rollout
from wm.errors import BadInputError
from wm.patch_dynamics import PatchDynamics
from wm.rollout import PreparedPredictor, StepPredictor, prepare, rollout
from wm.specs import PatchSizes

N, D, A, HISTORY, REACH = 4, 5, 3, 3, 4
SIZES = PatchSizes(heads=2, head_width=4, proprio_embedding=3, action_embedding=2)


def dynamics(proprio: int = 2, sizes: PatchSizes = SIZES, **more: int) -> PatchDynamics:
    """A small one, in which everything depends on everything."""
    torch.manual_seed(0)
    args: dict[str, Any] = {"history": HISTORY, "reach": REACH, "hidden": 16, "depth": 2} | more
    found = PatchDynamics(N, D, proprio, A, sizes=sizes, **args)
    with torch.no_grad():
        for weights in found.parameters():
            weights.add_(0.2 * torch.randn(weights.shape))
    return found.requires_grad_(False)


def scene(proprio: int = 2, b: int = 2, s: int = 9, h: int = REACH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(b, HISTORY, N * D + proprio, generator=generator)
    return context, torch.randn(b, s, h, A, generator=generator)


CASES = {
    "default": (dynamics, 2, REACH),
    "no proprioception": (lambda: dynamics(0), 0, REACH),
    "sliding, not residual": (lambda: dynamics(2, replace(SIZES, window=3, residual=False)), 2, 6),
    "beyond its reach": (dynamics, 2, REACH + 2),
}


@pytest.mark.parametrize(("make", "proprio", "horizon"), CASES.values(), ids=CASES.keys())
def test_equals_a_dense_transformer_step_by_step(make: Callable[[], PatchDynamics], proprio: int, horizon: int) -> None:
    found = make()
    context, actions = scene(proprio, s=3, h=horizon)
    states = rollout(found, context, actions)
    assert states.shape == (2, 3, horizon, N * D + proprio)
    for b in range(2):
        for s in range(3):
            expected = dense_rollout(found, context[b], actions[b, s])
            torch.testing.assert_close(states[b, s], expected, atol=1e-5, rtol=1e-5)
    assert (states[:, 0] - states[:, 1]).abs().amax((-1, -2)).min() > 1e-2  # candidates differ


def test_it_is_prepared_once_and_not_stepped_by_the_other_loop() -> None:
    found = dynamics()
    assert isinstance(found, PreparedPredictor) and not isinstance(found, StepPredictor)
    context, actions = scene()
    calls, observe = [0], found.predictor.observe
    found.predictor.observe = lambda *a: (calls.__setitem__(0, calls[0] + 1), observe(*a))[1]  # type: ignore[method-assign]
    roll = prepare(found, context)
    one, other = roll(actions), roll(actions + 1.0)
    assert calls == [1] and (one - other).abs().max() > 1e-2
    torch.testing.assert_close(roll(actions), one)
    assert calls == [1]


def test_problems_and_candidates_do_not_disturb_each_other() -> None:
    found = dynamics()
    context, actions = scene()
    together = rollout(found, context, actions)
    for b in range(2):
        alone = rollout(found, context[b : b + 1], actions[b : b + 1, 4:5])
        torch.testing.assert_close(alone[0, 0], together[b, 4], atol=1e-5, rtol=1e-5)


def test_a_fresh_one_stays_where_it_is_and_keeps_its_window_to_what_is_trained() -> None:
    fresh = PatchDynamics(N, D, 2, A, HISTORY, REACH, 16, 1, SIZES)
    context, actions = scene()
    states = rollout(fresh, context, actions)
    assert torch.equal(states[..., : N * D], context[:, None, -1:, : N * D].expand(-1, 9, REACH, -1))
    assert fresh.predictor.window == HISTORY + REACH - 1
    assert PatchDynamics(N, D, 2, A, 3, 5, 16, 1, replace(SIZES, window=3)).predictor.window == 3


def test_dino_wms_own_sizes_can_be_given() -> None:
    sizes = PatchSizes(16, 64, 10, 10, window=3, residual=False)
    found = PatchDynamics(16, 384, 4, 10, history=3, reach=5, hidden=2048, depth=6, sizes=sizes)
    assert sum(p.numel() for p in found.predictor.parameters()) == pytest.approx(20.1e6 - 180 * 3 * 404, rel=0.01)


@pytest.mark.parametrize(
    ("more", "changes", "message"),
    [
        ({"depth": 0}, {}, "form 'patch': expected depth >= 1, came 0"),
        ({"history": 0}, {}, "form 'patch': expected history >= 1, came 0"),
        ({}, {"heads": 0}, "form 'patch': expected heads >= 1, came 0"),
        ({}, {"action_embedding": -1}, "form 'patch': expected action_embedding >= 1, came -1"),
        ({}, {"window": -3}, "form 'patch': expected window >= 1, came -3"),
        ({}, {"window": 2}, "form 'patch': expected a window of 3 frames or more, came 2"),
    ],
)
def test_bad_sizes_are_refused(more: dict[str, int], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        dynamics(2, replace(SIZES, **changes), **more)
