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
from wm.planners import PredictiveSampling
from wm.types import Trajectory


class TestPredictiveSampling(PlannerContract):
    def make(self, **settings: Any) -> PredictiveSampling:
        return PredictiveSampling(FRAMESKIP, **settings)

    def thorough(self) -> PredictiveSampling:
        """It neither adapts its noise nor averages: small steps, and many of them."""
        return self.make(iterations=500, std=0.03, rtol=0.0, patience=500)


def test_is_never_worse_than_its_warm_start() -> None:
    """Noise far too wide to improve anything, on a start that is hard to beat."""
    task = around_disc()
    good = PredictiveSampling(FRAMESKIP, iterations=60, std=0.05, rtol=0.0, patience=99).solve(task, generator=seeded())
    for seed in range(5):
        wild = PredictiveSampling(FRAMESKIP, population=16, std=1.0, iterations=3)
        plan = wild.solve(task, warm_start=good.actions, generator=seeded(seed))
        assert plan.feasible.all() and plan.energy <= good.energy


def test_every_iteration_is_centred_on_the_best_so_far() -> None:
    seen: list[Tensor] = []

    def rollout(actions: Tensor) -> Trajectory:
        seen.append(actions)
        return rollout_actions(actions)

    def energy(actions: Tensor) -> Tensor:
        return (actions - 0.2).square().mean((-2, -1))

    task = problem(rollout, [Term(lambda t: energy(t.actions))])
    solver = PredictiveSampling(FRAMESKIP, population=2000, std=0.1, iterations=4, rtol=0.0, patience=99)
    plan = solver.solve(task, generator=seeded())
    best = torch.zeros(HORIZON, A)
    for k, candidates in enumerate(seen):
        own = candidates[0, 2 if k == 0 else 0 :]  # without staying and the guess
        assert torch.equal(own[0], best) and len(own) == 2001
        assert (own[1:].mean(0) - best).abs().max() < 0.015
        assert (own[1:] - best).std().item() == pytest.approx(0.1, rel=0.03)
        best = own[energy(own).argmin()]
    assert torch.equal(plan.actions[0], best)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frameskip": 0}, "planner setting 'frameskip' must be >= 1, came 0"),
        ({"population": 0}, "planner setting 'population' must be >= 1, came 0"),
        ({"std": -0.1}, "planner setting 'std' must be > 0, came -0.1"),
        ({"beta": -1.0}, "planner setting 'beta' must be >= 0, came -1.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        PredictiveSampling(**{"frameskip": FRAMESKIP, **settings})
