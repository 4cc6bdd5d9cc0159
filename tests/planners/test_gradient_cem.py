from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import (
    FRAMESKIP,
    PlannerContract,
    Term,
    problem,
    quadratic,
    rollout_actions,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import ICEM, Gradient, GradientCEM
from wm.types import Trajectory

SLOW: dict[str, Any] = {"rtol": 0.0, "patience": 999}


class TestGradientCEM(PlannerContract):
    def make(self, iterations: int = 13, **settings: Any) -> GradientCEM:
        first = -(-iterations // 4)
        descent = Gradient(FRAMESKIP, iterations=max(1, iterations - first))
        return GradientCEM(ICEM(FRAMESKIP, iterations=first), descent, **settings)


def test_the_finish_improves_on_its_start() -> None:
    sampler, descent = ICEM(FRAMESKIP, iterations=4, **SLOW), Gradient(FRAMESKIP, iterations=16, rate=0.05)
    plan = GradientCEM(sampler, descent, **SLOW).solve(quadratic(), generator=seeded())
    alone = sampler.solve(quadratic(), generator=seeded())
    assert plan.iterations == 20
    torch.testing.assert_close(plan.trace[3], alone.energy)  # until then the very same search
    assert plan.energy.item() < 0.1 * alone.energy.item()
    longer = ICEM(FRAMESKIP, iterations=20, **SLOW).solve(quadratic(), generator=seeded())
    assert plan.energy.item() < longer.energy.item()


def test_only_what_descends_is_rolled_out_with_gradients() -> None:
    seen: list[tuple[Tensor, bool]] = []

    def rollout(actions: Tensor) -> Trajectory:
        seen.append((actions.detach(), actions.requires_grad))
        return rollout_actions(actions)

    def energy(actions: Tensor) -> Tensor:
        return (actions - 0.2).square().mean((-2, -1))

    task = problem(rollout, [Term(lambda t: energy(t.actions))])
    sampler = ICEM(FRAMESKIP, population=100, elites=10, iterations=2)
    solver = GradientCEM(sampler, Gradient(FRAMESKIP, starts=3, iterations=4), **SLOW)
    _, elites = solver.search(task, generator=seeded())
    assert [needed for _, needed in seen] == [False, False, True, True, True, True]
    assert [candidates.shape[1] for candidates, _ in seen[2:]] == [3] * 4
    assert elites is not None and torch.equal(elites, seen[-1][0])  # kept for the next search
    last = seen[1][0]
    assert torch.equal(seen[2][0][0], last[0, energy(last)[0].argsort(stable=True)[:3]])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(BadInputError, match="'starts' must be <= the sampler's 10 elites, came 11"):
        GradientCEM(ICEM(FRAMESKIP, population=50, elites=10), Gradient(FRAMESKIP, starts=11))
