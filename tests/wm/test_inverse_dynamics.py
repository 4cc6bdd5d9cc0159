from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wm.inverse_dynamics import InverseDynamics


def pushed(n: int = 512, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents ``(n, 4, 5)`` of which two numbers are moved by the actions ``(n, 3, 2)``, the others by nobody."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randn(n, 3, 2, generator=generator)
    places = torch.cat([torch.randn(n, 1, 2, generator=generator), 0.3 * actions], 1).cumsum(1)
    return torch.cat([places, torch.randn(n, 4, 3, generator=generator)], -1), actions


def head() -> InverseDynamics:
    torch.manual_seed(0)
    return InverseDynamics(5, 2, 64)


def test_the_action_is_told_from_what_it_moves() -> None:
    module, (latents, actions) = head(), pushed()
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(250):
        optimiser.zero_grad()
        module.error(latents, actions).backward()
        optimiser.step()
    unseen, moves = pushed(seed=1)
    assert module.error(unseen, moves) < 0.1
    without = unseen.clone()
    without[..., :2] = 0  # nothing is left that an action moves
    assert module.error(without, moves) > 0.8


def test_a_head_that_says_the_mean_action_has_the_actions_variance() -> None:
    module, (latents, actions) = head(), pushed()
    last = module.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    assert float(module.error(latents, actions).detach()) == pytest.approx(float(actions.square().mean()))


def test_each_action_belongs_to_the_step_that_it_makes() -> None:
    module, (latents, _) = head(), pushed(6)
    told = torch.stack([module(latents[:, t], latents[:, t + 1]) for t in range(3)], 1).detach()
    assert float(module.error(latents, told).detach()) == pytest.approx(0, abs=1e-12)
    assert module.error(latents, told.flip(1)) > 1e-4


def test_the_latents_learn_from_it_too() -> None:
    module = head().double()
    latents, actions = (each.double() for each in pushed(2))
    assert torch.autograd.gradcheck(lambda x: module.error(x, actions), latents.requires_grad_(True))
