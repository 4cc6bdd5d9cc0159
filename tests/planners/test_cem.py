from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import (
    FRAMESKIP,
    HORIZON,
    A,
    Allowed,
    Term,
    problem,
    quadratic,
    rollout_actions,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import CEM, ICEM
from wm.types import Trajectory


def test_the_mean_is_better_than_the_best_sample_on_a_quadratic() -> None:
    """Averaging the elites cancels their noise."""
    settings: dict[str, Any] = {"iterations": 15, "rtol": 0.0, "patience": 99}
    best = CEM(**settings).solve(quadratic(), generator=seeded())
    mean = CEM(returns="mean", **settings).solve(quadratic(), generator=seeded())
    assert mean.energy.item() < 0.7 * best.energy.item()
    assert not torch.equal(mean.actions, best.actions)


def test_the_mean_is_not_returned_where_it_is_less_safe() -> None:
    """Two allowed sides of a forbidden middle, equally good: their mean lies in the middle."""

    class Sides(Allowed):
        def __call__(self, trajectory: Trajectory) -> Tensor:
            return trajectory.actions[:, :, :, 0].abs() - 0.2

    task = problem(rollout_actions, [Term(lambda t: t.actions[:, :, 0, 0].abs())], [Sides(0.0, 0.0)])
    task = dataclasses.replace(task, horizon=1)
    solver = CEM(returns="mean", iterations=1, elites=50)
    plan = solver.solve(task, generator=seeded())
    assert plan.feasible.all() and plan.actions[0, 0, 0].abs() >= 0.2


def test_cem_converges_to_a_point_as_its_floor_allows() -> None:
    solver = CEM(iterations=30, min_std=0.0, rtol=0.0, patience=99)
    state = solver.start(quadratic(), torch.zeros(1, HORIZON, A))
    assert state.std.unique().item() == 0.5
    assert solver.solve(quadratic(), generator=seeded()).energy.item() < 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "planner setting 'iterations' must be >= 1, came 0"),
        ({"elites": 0}, "planner setting 'elites' must be >= 1, came 0"),
        ({"population": 5, "elites": 6}, "planner setting 'population' must be >= 6, came 5"),
        ({"momentum": 1.0}, r"planner setting 'momentum' must be in \[0, 1\), came 1.0"),
        ({"init_std": 0.0}, "planner setting 'init_std' must be > 0, came 0.0"),
        ({"min_std": -0.1}, "planner setting 'min_std' must be >= 0, came -0.1"),
        ({"rtol": float("nan")}, "planner setting 'rtol' must be >= 0, came nan"),
        ({"patience": 0}, "planner setting 'patience' must be >= 1, came 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        CEM(**settings)
    with pytest.raises(BadInputError, match=message):
        ICEM(FRAMESKIP, **settings)
