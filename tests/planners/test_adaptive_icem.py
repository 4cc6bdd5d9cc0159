from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import (
    FRAMESKIP,
    PlannerContract,
    Term,
    around_disc,
    problem,
    quadratic,
    rollout_actions,
    same,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import AdaptiveICEM, Problem
from wm.types import Trajectory

MODES = torch.tensor([-0.6, 0.6])
FOREVER = {"rtol": 0.0, "patience": 99}


class TestAdaptiveICEM(PlannerContract):
    def make(self, **settings: Any) -> AdaptiveICEM:
        return AdaptiveICEM(FRAMESKIP, **settings)


class LooksFirst(AdaptiveICEM):
    """Looks at any problem, as if its energy were enough at 0 (elsewhere the model tells)."""

    def enough(self, problem: Problem) -> float:
        return 0.0


class TestAdaptiveICEMWithALook(PlannerContract):
    def make(self, **settings: Any) -> AdaptiveICEM:
        return LooksFirst(FRAMESKIP, look=16, **settings)


def counted(task: Problem) -> tuple[Problem, list[int]]:
    """The problem, and how many candidates every rollout of it had."""
    counts: list[int] = []

    def rollout(actions: Tensor) -> Trajectory:
        counts.append(actions.shape[1])
        return task.rollout(actions)

    return dataclasses.replace(task, rollout=rollout), counts


def two_ways(batch: int = 1) -> Problem:
    """All actions -0.6 or all 0.6, as one likes; in a batch every second problem has one way only."""
    only = (torch.arange(batch) % 2 == 1)[:, None]

    def energy(t: Trajectory) -> Tensor:
        left, right = ((t.actions - mode).square().mean((-2, -1)) for mode in MODES)
        return torch.where(only, right, torch.minimum(left, right))

    return problem(rollout_actions, [Term(energy)], batch=batch)


def elites_of_both(count: int = 6, spread: float = 0.01) -> Tensor:
    """Good candidates of both ways."""
    near = spread * torch.randn(2, count, 5, 10, generator=seeded(8))
    return (MODES[:, None, None, None] + near).flatten(0, 1)[None]


def test_an_obstacle_is_thought_about_more_than_a_bowl() -> None:
    solver, spent = AdaptiveICEM(FRAMESKIP, population=64, elites=10, gamma=1.5), {}
    for name, task in {"bowl": quadratic(), "obstacle": around_disc()}.items():
        watched, counts = counted(task)
        for seed in range(3):
            solver.solve(watched, generator=seeded(seed))
        spent[name] = sum(counts)
    assert spent["obstacle"] > 2 * spent["bowl"]


def test_the_population_shrinks_to_twice_the_elites_while_they_agree() -> None:
    task, counts = counted(quadratic())
    AdaptiveICEM(FRAMESKIP, population=40, elites=10, gamma=1.5, iterations=4, **FOREVER).solve(
        task, generator=seeded()
    )
    assert counts == [2 + 40, 26 + 4, 20 + 4, 20 + 4]  # staying and guess; three kept elites and the mean


def test_the_population_grows_while_the_mean_of_the_elites_is_worse_than_they_are() -> None:
    """As long as both ways are among the elites; `std` is so small that samples around their mean are none."""
    solver = AdaptiveICEM(
        FRAMESKIP, population=20, most=50, elites=10, keep=1.0, momentum=0.99, init_std=1e-3, iterations=4, **FOREVER
    )
    task, counts = counted(two_ways())
    solver.solve(task, elites=elites_of_both(), generator=seeded())
    assert counts == [2 + 12 + 20, 20 + 11, 40 + 11, 50 + 11]


def test_the_search_ends_when_the_energy_falls_no_more() -> None:
    """With what is known already the optimum: one iteration finds it, two more find nothing better."""
    task, counts = counted(quadratic())
    plan = AdaptiveICEM(FRAMESKIP, population=64, elites=10, iterations=50).solve(
        task, warm_start=torch.full((1, 5, 10), 0.2), generator=seeded()
    )
    assert (plan.iterations, plan.stopped_by, len(counts)) == (3, "converged", 3)


def test_a_problem_that_agrees_is_not_changed_by_one_that_does_not() -> None:
    """The first problem's population grows, the second one's shrinks: its surplus is none of its candidates."""
    solver = AdaptiveICEM(FRAMESKIP, population=20, elites=6, keep=1.0, init_std=0.1, iterations=5, **FOREVER)
    sizes = []
    elites = elites_of_both().expand(2, -1, -1, -1)
    together, found = solver.search(two_ways(2), elites=elites, generator=[seeded(1), seeded(2)])
    alone_tasks = [two_ways(1), problem(rollout_actions, [Term(lambda t: (t.actions - 0.6).square().mean((-2, -1)))])]
    for row, task in enumerate(alone_tasks):
        watched, counts = counted(task)
        alone, own = solver.search(watched, elites=elites[:1], generator=seeded(row + 1))
        sizes.append(counts)
        torch.testing.assert_close(together.actions[row], alone.actions[0], atol=1e-6, rtol=0)
        assert found is not None and own is not None
        torch.testing.assert_close(found[row], own[0], atol=1e-6, rtol=0)
    assert sum(sizes[0]) > 1.5 * sum(sizes[1])  # else nothing was tested


def test_where_all_agree_growth_changes_nothing() -> None:
    """Bowls: no population grows."""
    still, growing = (
        AdaptiveICEM(FRAMESKIP, population=20, most=300, growth=growth).solve(quadratic(3), generator=seeded())
        for growth in (1.0, 2.0)
    )
    assert same(still, growing)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"most": 10, "population": 20}, "planner setting 'most' must be >= population = 20, came 10"),
        ({"growth": 0.5}, "planner setting 'growth' must be >= 1, came 0.5"),
        ({"gamma": 0.5}, "planner setting 'gamma' must be >= 1, came 0.5"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        AdaptiveICEM(FRAMESKIP, **settings)


LOOK: dict[str, Any] = {"population": 40, "look": 8, "elites": 10, "gamma": 1.5, "iterations": 4, **FOREVER}


def test_a_look_is_all_where_it_is_enough() -> None:
    task, counts = counted(dataclasses.replace(quadratic(), enough=1.0))
    plan = AdaptiveICEM(FRAMESKIP, **LOOK).solve(task, generator=seeded())
    assert (counts, plan.stopped_by) == ([2 + 8], "enough")
    assert float(plan.energy) <= 1.0


def test_where_a_look_is_not_enough_a_search_begins_at_the_best_that_was_seen() -> None:
    seen: list[Tensor] = []
    known = torch.full((1, 1, 5, 10), 0.19)
    task = dataclasses.replace(
        quadratic(), enough=0.0, rollout=lambda actions: seen.append(actions) or rollout_actions(actions)
    )
    AdaptiveICEM(FRAMESKIP, init_std=0.05, **LOOK).solve(task, elites=known, generator=seeded())
    assert [actions.shape[1] for actions in seen[:2]] == [2 + 1 + 8, 3 + 1 + 40]  # kept elites, the mean, the samples
    torch.testing.assert_close(seen[1][0, 3], known[0, 0])  # the mean
    spread = seen[1][0, 4:] - known[0]
    assert 0.03 < float(spread.std()) < 0.07  # as at first, not that of so few elites


def test_enough_for_one_problem_changes_nothing_for_another() -> None:
    """The first one's optimum is among what is known, the second one's is not."""
    goals = torch.tensor([0.2, -0.4])[:, None]

    def bowl(rows: Tensor) -> Term:
        return Term(lambda t: (t.actions - goals[rows][..., None, None]).square().mean((-2, -1)))

    solver, known = AdaptiveICEM(FRAMESKIP, **LOOK), torch.full((2, 1, 5, 10), 0.2)
    both = dataclasses.replace(problem(rollout_actions, [bowl(torch.arange(2))], batch=2), enough=1e-3)
    together = solver.solve(both, elites=known, generator=[seeded(1), seeded(2)])
    for row in range(2):
        task = dataclasses.replace(problem(rollout_actions, [bowl(torch.tensor([row]))]), enough=1e-3)
        alone = solver.solve(task, elites=known[:1], generator=seeded(row + 1))
        assert alone.iterations == (1, 4)[row]
        torch.testing.assert_close(together.actions[row], alone.actions[0], atol=1e-6, rtol=0)


def test_a_look_of_nothing_finite_leaves_the_search_where_it_was() -> None:
    """Only what comes after the look has an energy. The guess is the middle of the bounds, staying is elsewhere."""
    seen: list[Tensor] = []

    def energy(t: Trajectory) -> Tensor:
        seen.append(t.actions)
        return (
            torch.full(t.actions.shape[:2], torch.nan) if len(seen) == 1 else (t.actions - 2.0).square().mean((-2, -1))
        )

    task = problem(rollout_actions, [Term(energy)])
    task = dataclasses.replace(task, low=torch.full((10,), -1.0), high=torch.full((10,), 3.0), enough=0.0)
    AdaptiveICEM(FRAMESKIP, **LOOK).solve(task, generator=seeded())
    mean = seen[1][0, 3]  # behind the kept elites
    torch.testing.assert_close(mean, torch.ones(5, 10))


def test_where_nothing_is_known_to_be_enough_the_population_grows_from_the_looks() -> None:
    task, counts = counted(quadratic())
    AdaptiveICEM(FRAMESKIP, **(LOOK | {"elites": 4})).solve(task, generator=seeded())
    assert counts == [2 + 8, 1 + 1 + 8, 1 + 1 + 8, 1 + 1 + 8]  # a kept elite, the mean; elites of a bowl agree


@pytest.mark.parametrize("look", [0, 41])
def test_a_look_is_at_least_one_and_at_most_the_population(look: int) -> None:
    with pytest.raises(BadInputError, match=f"planner setting 'look' must be .*, came {look}"):
        AdaptiveICEM(FRAMESKIP, **(LOOK | {"look": look}))


def test_without_a_look_nothing_is_enough() -> None:
    task, counts = counted(dataclasses.replace(quadratic(), enough=1.0))
    AdaptiveICEM(FRAMESKIP, **(LOOK | {"look": None})).solve(task, generator=seeded())
    assert len(counts) == 4
