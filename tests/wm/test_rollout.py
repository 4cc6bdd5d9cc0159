from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from wm.predictor import Predictor
from wm.rollout import prepare, rollout

B, S, H, X, A = 2, 5, 4, 6, 3


@pytest.fixture(params=[1, 2, 3])
def predictor(request: pytest.FixtureRequest, moving: Callable[[Predictor], Predictor]) -> Predictor:
    torch.manual_seed(0)
    return moving(Predictor(X, A, history=request.param, hidden=16, depth=2))


def test_equals_calling_the_predictor_step_by_step(predictor: Predictor) -> None:
    context, actions = torch.randn(B, predictor.history, X), torch.randn(B, S, H, A)
    states = rollout(predictor, context, actions)
    assert states.shape == (B, S, H, X)
    for b in range(B):
        for s in range(S):
            seen = list(context[b])
            for h in range(H):
                seen.append(predictor(torch.stack(seen[-predictor.history :]), actions[b, s, h]))
            torch.testing.assert_close(states[b, s], torch.stack(seen[-H:]))


def test_candidates_and_problems_do_not_disturb_each_other(predictor: Predictor) -> None:
    context, actions = torch.randn(B, predictor.history, X), torch.randn(B, S, H, A)
    states = rollout(predictor, context, actions)
    changed = actions.clone()
    changed[1, 2] += 1.0
    difference = (rollout(predictor, context, changed) - states).abs().amax((2, 3))
    assert difference[1, 2] > 1e-3
    difference[1, 2] = 0
    assert difference.max() < 1e-6
    torch.testing.assert_close(rollout(predictor, context[1:], actions[1:, 2:3]), states[1:, 2:3])


def test_later_actions_do_not_change_earlier_states(predictor: Predictor) -> None:
    context, actions = torch.randn(B, predictor.history, X), torch.randn(B, S, H, A)
    changed = actions.clone()
    changed[:, :, 2:] += 1.0
    one, other = rollout(predictor, context, actions), rollout(predictor, context, changed)
    torch.testing.assert_close(one[:, :, :2], other[:, :, :2])
    assert ((one - other)[:, :, 2:].abs().amax((-1, -2)) > 1e-4).all()


def test_a_fresh_predictor_stays_where_it_is() -> None:
    torch.manual_seed(0)
    context = torch.randn(B, 2, X)
    states = rollout(Predictor(X, A, history=2, hidden=8, depth=1), context, torch.randn(B, S, H, A))
    assert torch.equal(states, context[:, None, -1:].expand(B, S, H, X))


def test_gradient_reaches_every_action(predictor: Predictor) -> None:
    context, actions = torch.randn(B, predictor.history, X), torch.randn(B, S, H, A, requires_grad=True)
    rollout(predictor, context, actions)[:, :, -1].square().sum().backward()
    assert actions.grad is not None and (actions.grad.abs().amax(-1) > 0).all()


def test_what_candidates_share_is_computed_once_however_often_they_are_rolled_out(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, actions = torch.randn(B, predictor.history, X), torch.randn(B, S, 1, A)
    expected, seen, real = rollout(predictor, context, actions), [], predictor.share

    def counting(history: torch.Tensor) -> torch.Tensor:
        seen.append(history.shape[:2])
        return real(history)

    monkeypatch.setattr(predictor, "share", counting)
    roll = prepare(predictor, context)
    for _ in range(3):
        assert torch.equal(roll(actions), expected)
    assert seen == [(B, 1)]  # once for all candidates of a problem
