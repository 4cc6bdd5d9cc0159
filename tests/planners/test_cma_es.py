from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import (
    HORIZON,
    A,
    PlannerContract,
    Term,
    around_disc,
    problem,
    quadratic,
    rollout_actions,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import CEM, CMAES, Problem
from wm.types import Trajectory

SLOW: dict[str, Any] = {"rtol": 0.0, "patience": 9999}


class TestCMAES(PlannerContract):
    def make(self, **settings: Any) -> CMAES:
        return CMAES(**settings)

    def thorough(self) -> CMAES:
        """It learns a covariance of 50 numbers from ranks alone: many small populations."""
        return self.make(population=32, iterations=200, rtol=0.0, patience=200)


class TestDiagonalCMAES(PlannerContract):
    def make(self, **settings: Any) -> CMAES:
        return CMAES(diagonal=True, **settings)

    def thorough(self) -> CMAES:
        return self.make(population=32, iterations=200, rtol=0.0, patience=200)


def ellipsoid(width: int, condition: float = 1e4) -> tuple[Problem, Tensor]:
    """A rotated ellipsoid of one latent step of ``width`` numbers, and its Hessian; the minimum is at 0.3."""
    axes = torch.linalg.qr(torch.randn(width, width, generator=seeded(1), dtype=torch.float64))[0]
    hessian = axes @ torch.diag(torch.logspace(0, -np.log10(condition), width, dtype=torch.float64)) @ axes.T
    root = torch.linalg.cholesky(hessian).float()
    task = problem(rollout_actions, [Term(lambda t: ((t.actions - 0.3).flatten(-2) @ root).square().sum(-1))])
    return dataclasses.replace(task, low=-torch.ones(width), high=torch.ones(width), horizon=1), hessian


class Watched(CMAES):
    """Keeps its last state."""

    def update(self, *args: Any) -> Any:
        self.state = super().update(*args)
        return self.state


def test_adapts_its_covariance_on_a_rotated_ellipsoid() -> None:
    """Its covariance becomes the inverse Hessian, up to a factor; that of variances alone cannot."""
    task, hessian = ellipsoid(8)
    solver = Watched(population=16, iterations=150, **SLOW)
    plan = solver.solve(task, generator=seeded())
    learnt = torch.from_numpy(np.array(solver.state.each[0].strategy.C))
    whitened = torch.linalg.eigvalsh(torch.linalg.cholesky(hessian).T @ learnt @ torch.linalg.cholesky(hessian))
    assert whitened.max() / whitened.min() < 30  # the Hessian itself: 1e4
    diagonal = CMAES(population=16, iterations=150, diagonal=True, **SLOW).solve(task, generator=seeded())
    cem = CEM(population=16, elites=4, iterations=150, min_std=0.0, **SLOW).solve(task, generator=seeded())
    assert plan.energy.item() < 1e-9
    assert min(diagonal.energy.item(), cem.energy.item()) > 100 * plan.energy.item()


def test_is_independent_of_numpys_global_state_and_leaves_it_alone() -> None:
    np.random.seed(1)
    one = CMAES(iterations=5, **SLOW).solve(around_disc(), generator=seeded())
    before = np.random.get_state()[1].copy()
    np.random.seed(2)
    two = CMAES(iterations=5, **SLOW).solve(around_disc(), generator=seeded())
    assert torch.equal(one.actions, two.actions)
    np.random.seed(1)
    assert (np.random.get_state()[1] == before).all()


def test_begins_at_a_known_candidate_that_is_better_than_the_guess() -> None:
    """An elite near the minimum, far from the guess: the second iteration is centred on it."""
    seen: list[Tensor] = []

    def rollout(actions: Tensor) -> Trajectory:
        seen.append(actions)
        return rollout_actions(actions)

    task = problem(rollout, [Term(lambda t: (t.actions - 0.7).square().mean((-2, -1)))])
    elite = torch.full((1, 1, HORIZON, A), 0.6)
    warm = torch.full((1, HORIZON, A), -0.6)
    CMAES(population=200, std=0.1, iterations=2, **SLOW).solve(task, warm_start=warm, elites=elite, generator=seeded())
    assert seen[0][0, 3:].mean().item() == pytest.approx(-0.6, abs=0.02)
    assert seen[1].mean().item() == pytest.approx(0.6, abs=0.02)
    seen.clear()
    CMAES(population=200, std=0.1, iterations=2, **SLOW).solve(task, warm_start=elite[:, 0], generator=seeded())
    assert seen[1].mean().item() == pytest.approx(0.6, abs=0.1)  # the guess was the best: the first samples count
    assert seen[1].mean() > 0.6


def test_ranks_alone_decide() -> None:
    """Any rising function of the energy gives the same search."""

    def solve(change: Any) -> Tensor:
        task = problem(rollout_actions, [Term(lambda t: change((t.actions - 0.2).square().mean((-2, -1))))])
        return CMAES(iterations=8, **SLOW).solve(task, generator=seeded()).actions

    assert torch.equal(solve(lambda e: e), solve(lambda e: 1024 * e))


def test_bounds_of_no_width_are_kept() -> None:
    task = dataclasses.replace(quadratic(), low=torch.full((A,), 0.5), high=torch.full((A,), 0.5))
    plan = CMAES(iterations=3, **SLOW).solve(task, generator=seeded())
    assert torch.equal(plan.actions, torch.full((1, HORIZON, A), 0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 3}, "planner setting 'population' must be >= 4, came 3"),
        ({"std": 0.0}, "planner setting 'std' must be > 0, came 0.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        CMAES(**settings)
