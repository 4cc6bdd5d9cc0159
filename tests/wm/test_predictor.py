from __future__ import annotations

from collections.abc import Callable

import torch

from wm.predictor import Predictor


def make(history: int = 3) -> Predictor:
    torch.manual_seed(0)
    return Predictor(state_width=5, action_width=4, history=history, hidden=16, depth=2)


def test_starts_as_copy_the_last_state() -> None:
    history, action = torch.randn(7, 3, 5), torch.randn(7, 4)
    assert torch.equal(make()(history, action), history[:, -1])


def test_split_first_layer_is_one_linear_layer_of_everything(moving: Callable[[Predictor], Predictor]) -> None:
    predictor, history, action = moving(make()), torch.randn(7, 3, 5), torch.randn(7, 4)
    weight = torch.cat([predictor.from_state.weight, predictor.from_action.weight], 1)
    x = torch.cat([history.flatten(1), action], 1) @ weight.T + predictor.from_state.bias
    for block in predictor.blocks:
        x = x + block.narrow(torch.nn.functional.silu(block.widen(block.norm(x))))
    expected = history[:, -1] + predictor.out(predictor.norm(x))
    torch.testing.assert_close(predictor(history, action), expected)


def test_shared_history_serves_all_candidates(moving: Callable[[Predictor], Predictor]) -> None:
    predictor, history, actions = moving(make()), torch.randn(2, 1, 3, 5), torch.randn(2, 6, 4)
    once = predictor.advance(history[..., -1, :], predictor.share(history), actions)
    for b in range(2):
        for s in range(6):
            torch.testing.assert_close(once[b, s], predictor(history[b, 0], actions[b, s]))


def test_order_of_the_history_matters(moving: Callable[[Predictor], Predictor]) -> None:
    predictor, history, action = moving(make()), torch.randn(1, 3, 5), torch.randn(1, 4)
    swapped = history[:, [1, 0, 2]]
    assert (predictor(history, action) - predictor(swapped, action)).abs().max() > 1e-3


def test_action_matters(moving: Callable[[Predictor], Predictor]) -> None:
    predictor, history = moving(make()), torch.randn(1, 3, 5)
    assert (predictor(history, torch.ones(1, 4)) - predictor(history, -torch.ones(1, 4))).abs().max() > 1e-3
