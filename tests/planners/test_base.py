"""What the loop does when a deadline falls into an iteration; the rest of its promises is in the contract suite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import FRAMESKIP, HORIZON, A, Term, problem, rollout_actions, seeded
from wm import planners
from wm.planners import (
    CEM,
    CMAES,
    ICEM,
    LBFGS,
    MPPI,
    AdaptiveICEM,
    Gradient,
    GradientCEM,
    PredictiveSampling,
    Problem,
    Solver,
    stopping,
)
from wm.planners.mpc import MPC
from wm.types import Trajectory

CANDIDATE_MS, WITH_GRADIENT = 0.1, 4
"""Of a rollout's candidate, and how many times as long one takes whose gradient is asked for."""

ENDLESS: dict[str, Any] = {"iterations": 10**4, "rtol": 0.0, "patience": 10**4}
SOLVERS: dict[str, Solver[Any]] = {
    "cem": CEM(population=128, elites=12, **ENDLESS),
    "icem": ICEM(FRAMESKIP, population=128, **ENDLESS),
    "adaptive-icem": AdaptiveICEM(FRAMESKIP, population=128, most=512, **ENDLESS),
    "mppi": MPPI(FRAMESKIP, population=128, **ENDLESS),
    "predictive-sampling": PredictiveSampling(FRAMESKIP, population=128, **ENDLESS),
    "cma-es": CMAES(population=128, **ENDLESS),
    "gradient": Gradient(FRAMESKIP, **ENDLESS),
    "lbfgs": LBFGS(FRAMESKIP, **ENDLESS),
    "gradient+cem": GradientCEM(
        ICEM(FRAMESKIP, population=128, iterations=1), Gradient(FRAMESKIP, **ENDLESS), rtol=0.0, patience=10**4
    ),
}


class Machine:
    """A machine on which a candidate takes `CANDIDATE_MS` times how slow it is, and nothing else takes time."""

    def __init__(self) -> None:
        self.now, self.slow = 0.0, 1.0
        self.seen: list[Tensor] = []

    def perf_counter(self) -> float:
        return self.now

    def rollout(self, actions: Tensor) -> Trajectory:
        self.seen.append(actions)
        times = WITH_GRADIENT if actions.requires_grad else 1
        self.now += CANDIDATE_MS * self.slow * times * actions.shape[1] / 1e3
        return rollout_actions(actions)

    @property
    def problem(self) -> Problem:
        return problem(self.rollout, [Term(lambda t: (t.actions - 0.5).square().mean((-2, -1)))])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(stopping, "time", made)
    return made


def solver() -> ICEM:
    return ICEM(5, population=128, iterations=6, rtol=0.0, patience=6)


@pytest.mark.parametrize("slow", [1, 2, 3, 5, 8, 12, 15])
def test_no_search_passes_its_deadline(machine: Machine, slow: float) -> None:
    machine.slow = slow
    plan = solver().solve(machine.problem, generator=seeded(), deadline_ms=50.0)
    assert plan.milliseconds <= 50.0
    free = solver().solve(machine.problem, generator=seeded())
    assert plan.stopped_by == ("iterations" if free.milliseconds <= 49.0 else "deadline")
    assert plan.milliseconds > 50.0 - CANDIDATE_MS * slow * 131 or plan.stopped_by == "iterations"


@pytest.mark.parametrize("slow", [1, 3, 8])
@pytest.mark.parametrize("name", SOLVERS)
def test_no_solver_passes_its_deadline(machine: Machine, name: str, slow: float) -> None:
    machine.slow = slow
    plan = SOLVERS[name].solve(machine.problem, generator=seeded(), deadline_ms=50.0)
    assert plan.stopped_by == "deadline" and 25.0 < plan.milliseconds <= 50.0
    descended = any(actions.requires_grad for actions in machine.seen)
    assert descended == (name in ("gradient", "lbfgs") or (name == "gradient+cem" and slow == 1))


def test_every_solver_is_timed() -> None:
    solvers = {each for each in vars(planners).values() if isinstance(each, type) and issubclass(each, Solver)}
    assert solvers - {Solver} == {type(each) for each in SOLVERS.values()}


def test_a_deadline_that_is_not_reached_changes_nothing(machine: Machine) -> None:
    free = solver().solve(machine.problem, generator=seeded())
    bound = solver().solve(machine.problem, generator=seeded(), deadline_ms=1e4)
    torch.testing.assert_close(bound.actions, free.actions)
    torch.testing.assert_close(torch.stack(bound.trace), torch.stack(free.trace))
    assert (bound.iterations, bound.stopped_by) == (free.iterations, free.stopped_by)


def test_without_a_deadline_an_iteration_is_one_rollout(machine: Machine) -> None:
    plan = solver().solve(machine.problem, generator=seeded())
    assert len(machine.seen) == plan.iterations == 6


def test_what_is_known_comes_first_and_the_best_of_it_is_returned(machine: Machine) -> None:
    machine.slow = 1000
    warm = torch.full((1, HORIZON, A), 0.4)
    elites = torch.stack([torch.full((1, HORIZON, A), value) for value in (0.9, 0.45)], 1)
    plan = solver().solve(machine.problem, warm_start=warm, elites=elites, generator=seeded(), deadline_ms=5.0)
    (tried,) = machine.seen
    assert tried.shape[1] == stopping.SOUNDING
    assert torch.equal(tried[:, :4], torch.stack([warm, torch.zeros_like(warm), *elites.unbind(1)], dim=1))
    assert (plan.iterations, plan.stopped_by) == (1, "deadline") and len(plan.trace) == 1
    assert float(plan.energy) <= 0.05**2 + 1e-6


def test_of_an_iteration_cut_short_only_the_best_candidate_counts(machine: Machine) -> None:
    """The Gaussian is not refitted to a few, and its mean, which nothing was learned of, is not the answer."""
    machine.slow = 20
    mean = CEM(population=128, elites=10, init_std=0.1, returns="mean")
    plan, elites = mean.search(machine.problem, generator=seeded(), deadline_ms=50.0)
    assert plan.stopped_by == "deadline" and elites is None
    assert float(plan.energy) < 0.5**2  # of the mean, which is still the guess


def test_the_next_search_goes_on_from_a_plan_that_was_cut_short(machine: Machine) -> None:
    machine.slow = 10
    mpc = MPC(solver(), HORIZON, 1, 5)
    energies = []
    for seed in range(8):
        plan, _ = mpc.plan(machine.problem, generator=seeded(seed), deadline_ms=50.0, passed=0)
        assert plan.stopped_by == "deadline" and plan.milliseconds <= 50.0
        energies.append(float(plan.energy))
    assert energies == sorted(energies, reverse=True) and energies[-1] < energies[0]
