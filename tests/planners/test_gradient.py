from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import (
    FRAMESKIP,
    HORIZON,
    A,
    PlannerContract,
    Term,
    around_disc,
    problem,
    rollout_actions,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import Gradient
from wm.planners.candidates import score
from wm.planners.noise import Noise
from wm.types import Trajectory

SLOW: dict[str, Any] = {"rtol": 0.0, "patience": 999}


class TestGradient(PlannerContract):
    def make(self, **settings: Any) -> Gradient:
        return Gradient(FRAMESKIP, **settings)


class TestNoisyGradient(PlannerContract):
    def make(self, **settings: Any) -> Gradient:
        return Gradient(FRAMESKIP, noise=0.02, **settings)

    def thorough(self) -> Gradient:
        """Half of the iterations are noisy, and smaller steps settle what the noise has spread."""
        return self.make(iterations=80, rate=0.04, rtol=0.0, patience=80)


def recorded(energy: Any, **bounds: float) -> tuple[Any, list[Tensor]]:
    seen: list[Tensor] = []

    def rollout(actions: Tensor) -> Trajectory:
        seen.append(actions.detach())
        return rollout_actions(actions)

    return problem(rollout, [Term(energy)], **bounds), seen


def test_steps_are_those_of_torchs_adam() -> None:
    def energy(t: Trajectory) -> Tensor:
        return (t.actions.square() * torch.linspace(0.1, 3.0, A)).sum((-2, -1)) + t.actions.prod(-1).sum(-1)

    task, seen = recorded(energy)
    solver = Gradient(FRAMESKIP, starts=3, iterations=12, rate=0.02, betas=(0.9, 0.95), **SLOW)
    solver.solve(task, generator=seeded())
    best = energy(rollout_actions(seen[0]))[0].argsort(stable=True)[:3]
    points = seen[0][0, best].clone().requires_grad_()
    adam = torch.optim.Adam([points], lr=0.02, betas=(0.9, 0.95), eps=1e-8)
    for candidates in seen[1:]:
        adam.zero_grad()
        energy(rollout_actions(points[None])).sum().backward()
        adam.step()
        torch.testing.assert_close(candidates[0], points.detach(), atol=1e-5, rtol=1e-4)


def test_steps_are_shares_of_the_bounds_range() -> None:
    """The same problem in another unit: the same search."""

    def energy(unit: float) -> Any:
        return lambda t: (t.actions / unit - 0.3).square().mean((-2, -1))

    small, seen = recorded(energy(1.0))
    large, seen_large = recorded(energy(100.0), low=-100.0, high=100.0)
    for task in (small, large):
        Gradient(FRAMESKIP, iterations=8, **SLOW).solve(task, generator=seeded())
    for one, other in zip(seen, seen_large, strict=True):
        torch.testing.assert_close(one, other / 100.0, atol=1e-4, rtol=1e-3)


def test_points_are_projected_to_the_bounds_and_leave_them_again() -> None:
    """Half of the minimum lies outside: those numbers end on the bound, the others at their minimum."""
    target = torch.cat([torch.full((A // 2,), 1.7), torch.full((A // 2,), -0.25)])
    task, seen = recorded(lambda t: (t.actions - target).square().mean((-2, -1)))
    plan = Gradient(FRAMESKIP, iterations=80, rate=0.05, **SLOW).solve(task, generator=seeded())
    assert torch.equal(plan.actions[0, :, : A // 2], torch.ones(HORIZON, A // 2))
    torch.testing.assert_close(plan.actions[0, :, A // 2 :], torch.full((HORIZON, A // 2), -0.25), atol=0.01, rtol=0)
    assert max(candidates.abs().max() for candidates in seen) <= 1.0


def test_many_starts_find_the_better_valley() -> None:
    """Two valleys, the deeper one far from the guess: one start at the guess rolls into the shallow one."""

    def energy(t: Trajectory) -> Tensor:
        x = t.actions.mean((-2, -1))
        return torch.minimum((x - 0.1).square() + 0.05, 10 * (x + 0.3).square())

    task = problem(rollout_actions, [Term(energy)])
    many = Gradient(FRAMESKIP, starts=32, iterations=30, **SLOW).solve(task, generator=seeded())
    alone = Gradient(FRAMESKIP, starts=1, std=1e-3, iterations=30, **SLOW).solve(task, generator=seeded())
    assert alone.energy.item() >= 0.05 - 1e-6
    assert many.energy.item() < 0.01


def test_a_broken_rule_is_left_along_the_gradient() -> None:
    """All starts go through the disc: the penalty alone moves them out of it."""
    task = around_disc()
    through = torch.zeros(1, HORIZON, A).index_fill_(-1, torch.arange(0, A, 2), 0.12)
    through[..., 1::2] = 0.004  # not exactly through the centre, where no direction is better than another
    assert task.guardrails[0](task.rollout(through[:, None])).min() < 0
    seen: dict[float, bool] = {}
    for penalty in (0.0, 1.0):
        solver = Gradient(FRAMESKIP, starts=1, std=1e-4, iterations=40, rate=0.01, penalty=penalty, **SLOW)
        state = solver.start_at(through[:, None])
        noise = Noise(seeded(), 1, task.low)
        for k in range(1, 40):
            candidates = task.clip(solver.propose(task, state, noise, k, False))
            found = score(task, candidates, solver.penalty_at(k))
            seen[penalty] = bool((found.violation == 0).all()) or seen.get(penalty, False)
            state = solver.update(task, state, found, found.order())
    assert seen == {0.0: False, 1.0: True}


def test_noise_is_annealed_to_nothing_over_the_first_half() -> None:
    task, seen = recorded(lambda t: 0.0 * t.actions.sum((-2, -1)))
    solver = Gradient(FRAMESKIP, starts=200, iterations=12, std=0.01, noise=0.1, **SLOW)
    solver.solve(task, generator=seeded())
    moved = [(after - before).std().item() for before, after in zip(seen[1:], seen[2:], strict=False)]
    assert moved[:4] == pytest.approx([0.1 * (1 - t / 6) for t in (2, 3, 4, 5)], rel=0.05)
    assert moved[4:] == [0.0] * 6


def test_the_descended_points_are_kept_for_the_next_search() -> None:
    task, seen = recorded(lambda t: (t.actions - 0.2).square().mean((-2, -1)))
    _, elites = Gradient(FRAMESKIP, starts=5, iterations=4, **SLOW).search(task, generator=seeded())
    assert elites is not None and elites.shape == (1, 5, HORIZON, A)
    assert torch.equal(elites, seen[-1])


def test_a_plan_is_part_of_no_graph() -> None:
    plan = Gradient(FRAMESKIP, iterations=3).solve(around_disc(), generator=seeded())
    parts = [plan.actions, plan.tokens, plan.energy, *plan.energy_terms.values(), *plan.margins.values(), *plan.trace]
    assert not any(part.requires_grad for part in parts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frameskip": 0}, "planner setting 'frameskip' must be >= 1, came 0"),
        ({"starts": 0}, "planner setting 'starts' must be >= 1, came 0"),
        ({"rate": 0.0}, "planner setting 'rate' must be > 0, came 0.0"),
        ({"betas": (0.9, 1.0)}, r"planner setting 'betas' must be two numbers in \[0, 1\), came \(0.9, 1.0\)"),
        ({"std": 0.0}, "planner setting 'std' must be > 0, came 0.0"),
        ({"beta": -1.0}, "planner setting 'beta' must be >= 0, came -1.0"),
        ({"noise": -1.0}, "planner setting 'noise' must be >= 0, came -1.0"),
        ({"penalty": -1.0}, "planner setting 'penalty' must be >= 0, came -1.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Gradient(**{"frameskip": FRAMESKIP, **settings})
