from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import (
    FRAMESKIP,
    HORIZON,
    WIDTH,
    A,
    Term,
    around_disc,
    point_robot,
    problem,
    quadratic,
    rollout_actions,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import ICEM
from wm.planners.energies import GoalDistance
from wm.planners.noise import Noise
from wm.types import Trajectory

SLOW = {"rtol": 0.0, "patience": 99}


def watched(seen: list[Tensor]) -> Any:
    """A quadratic that keeps every batch of candidates that it is asked about."""

    def rollout(actions: Tensor) -> Trajectory:
        seen.append(actions)
        return rollout_actions(actions)

    return problem(rollout, [Term(lambda t: (t.actions - 0.2).square().mean((-2, -1)))])


def test_population_shrinks_to_twice_the_elites() -> None:
    solver, seen = ICEM(FRAMESKIP, population=100, elites=10, gamma=2.0, iterations=4, **SLOW), []
    solver.solve(watched(seen), generator=seeded())
    assert [solver.population_at(i) for i in range(4)] == [100, 50, 25, 20]
    kept = 3
    assert [s.shape[1] for s in seen] == [2 + 100, 50 + kept, 25 + kept, 20 + kept + 1]  # staying and guess; the mean


def test_kept_elites_are_the_best_of_the_iteration_before() -> None:
    solver, seen = ICEM(FRAMESKIP, iterations=2, **SLOW), []
    task = watched(seen)
    solver.solve(task, generator=seeded())
    energy = (seen[0] - 0.2).square().mean((-2, -1))
    best = seen[0][0, energy[0].argsort(stable=True)[:6]]
    assert torch.equal(seen[1][0, -7:-1], best)


def test_the_mean_joins_the_last_iteration_only() -> None:
    solver = ICEM(FRAMESKIP, iterations=3)
    task = quadratic()
    state = dataclasses.replace(solver.start(task, torch.full((1, HORIZON, A), 0.125)), elites=None)
    for last in (False, True):
        candidates = solver.propose(task, state, Noise(seeded(), 1, task.low), 1, last)
        assert bool((candidates == 0.125).all((-2, -1)).any()) is last


def test_noise_is_smooth_across_latent_steps_at_control_rate() -> None:
    solver, task = ICEM(FRAMESKIP, population=2000, beta=2.0), quadratic()
    state = solver.start(task, torch.zeros(1, HORIZON, A))
    candidates = solver.propose(task, state, Noise(seeded(), 1, task.low), 0, False)
    controls = candidates.reshape(2000, HORIZON * FRAMESKIP, WIDTH)
    assert controls.std().item() == pytest.approx(0.5, abs=0.02)
    step = controls.diff(dim=1).square().mean((0, 2))  # one number per pair of neighbouring control steps
    assert step.max() < 0.5 * controls.square().mean()  # white noise: 2
    assert step.max() / step.min() < 1.2  # no seam between latent steps


def test_returns_kept_elites_for_the_next_search() -> None:
    plan, elites = ICEM(FRAMESKIP, **SLOW).search(around_disc(), generator=seeded())
    assert elites is not None and elites.shape == (1, 6, HORIZON, A)
    assert ICEM(FRAMESKIP, keep=0.0).search(around_disc(), generator=seeded())[1] is None
    again = ICEM(FRAMESKIP, iterations=1).solve(around_disc(), elites=elites, generator=seeded(9))
    assert again.energy <= plan.energy * 1.5  # starts where the other one ended


def test_coloured_noise_reaches_far_goals_sooner() -> None:
    """The paper's point: white noise averages out over the control steps, coloured noise moves the robot."""
    far = problem(point_robot(torch.zeros(1, 4)), [GoalDistance(torch.tensor([[[8.0, -8.0]]]), earlier_weight=0.0)])
    energy = {}
    for beta in (0.0, 2.0):
        solver = ICEM(FRAMESKIP, iterations=2, beta=beta, **SLOW)
        energy[beta] = sum(solver.solve(far, generator=seeded(s)).energy.item() for s in range(5))
    assert energy[2.0] < 0.3 * energy[0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frameskip": 0}, "planner setting 'frameskip' must be >= 1, came 0"),
        ({"beta": -1.0}, "planner setting 'beta' must be >= 0, came -1.0"),
        ({"gamma": 0.9}, "planner setting 'gamma' must be >= 1, came 0.9"),
        ({"keep": 1.1}, r"planner setting 'keep' must be in \[0, 1\], came 1.1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        ICEM(**{"frameskip": FRAMESKIP, **settings})


def test_a_frameskip_that_does_not_divide_the_action_is_refused() -> None:
    with pytest.raises(BadInputError, match="frameskip 3 must divide the 10 numbers of a latent step's action"):
        ICEM(3).solve(quadratic(), generator=seeded())
