from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import HORIZON, A, Allowed, Term, problem, rollout_actions, seeded
from wm.errors import BadInputError
from wm.planners import Problem
from wm.planners.candidates import Best, Scored, score
from wm.types import Trajectory

INF, NAN = float("inf"), float("nan")


def scored(energy: list[float], violation: list[float]) -> Scored:
    count = len(energy)
    actions = torch.arange(count, dtype=torch.float32).view(1, count, 1, 1)
    return Scored(
        actions=actions,
        tokens=actions[:, :, :, None],
        energy=torch.tensor([energy]),
        terms={"term": torch.tensor([energy])},
        margins={"rule": -torch.tensor([violation])[:, :, None]},
        violation=torch.tensor([violation]),
    )


def test_order_is_feasible_first_then_violation_then_energy_then_place() -> None:
    candidates = scored([0.0, 5.0, 1.0, 3.0, 3.0, INF, -9.0], [2.0, 0.0, 2.0, 0.0, 0.0, 0.0, INF])
    assert candidates.order().tolist() == [[3, 4, 1, 5, 0, 2, 6]]


def test_best_is_replaced_only_by_what_is_strictly_better() -> None:
    candidates = scored([3.0, 3.0, 2.0, 1.0, INF], [0.0, 0.0, 0.0, 1.0, 0.0])
    best = [Best.of(candidates, torch.tensor([k])) for k in range(5)]
    assert not best[0].beaten_by(best[1]).any()
    assert best[0].beaten_by(best[2]).all()
    assert not best[0].beaten_by(best[3]).any()
    assert best[3].beaten_by(best[4]).all()  # feasible with an unknown energy beats infeasible
    assert best[2].feasible.all() and not best[3].feasible.any()


def test_replacing_takes_every_field_of_the_chosen_rows() -> None:
    candidates = scored([1.0, 2.0], [0.0, 1.0])
    two = Scored(
        *(torch.cat([x, x + 10]) for x in (candidates.actions, candidates.tokens, candidates.energy)),
        {"term": candidates.terms["term"].repeat(2, 1)},
        {"rule": candidates.margins["rule"].repeat(2, 1, 1)},
        candidates.violation.repeat(2, 1),
    )
    first, second = Best.of(two, torch.tensor([0, 0])), Best.of(two, torch.tensor([1, 1]))
    mixed = first.replaced(second, torch.tensor([False, True]))
    assert mixed.energy.tolist() == [1.0, 12.0]
    assert mixed.actions.flatten().tolist() == [0.0, 11.0]
    assert mixed.tokens.flatten().tolist() == [0.0, 11.0]
    assert mixed.margins["rule"].flatten().tolist() == [0.0, -1.0]
    assert mixed.terms["term"].tolist() == [1.0, 2.0]
    assert mixed.feasible.tolist() == [True, False]


def differentiable(actions: Tensor) -> Trajectory:
    return Trajectory(actions, actions.sin()[:, :, :, None])


def energy(t: Trajectory) -> Tensor:
    return (t.tokens.square().sum((-3, -2, -1)) + t.actions.prod(-1).sum(-1)).exp()


def some_actions() -> Tensor:
    return torch.rand(2, 3, HORIZON, A, generator=seeded(), dtype=torch.float64) - 0.5


def sloped(rollout: Any = differentiable, function: Any = energy, rules: Any = ()) -> Problem:
    task = problem(rollout, [Term(function)], rules, batch=2)
    return dataclasses.replace(task, low=task.low.double(), high=task.high.double())


def test_gradient_is_that_of_energy_plus_penalty_by_finite_differences() -> None:
    task, actions = sloped(lambda a: differentiable(a), lambda t: energy(t) * 1e-3, [Allowed(0.0, 0.3)]), some_actions()

    def merit(a: Tensor) -> Tensor:
        found = score(task, a)
        return found.energy + 2.0 * found.violation

    assert (score(task, actions).violation > 0).all()
    gradient, step = score(task, actions, penalty=2.0).gradient, 1e-6
    assert gradient is not None
    for h, a in [(0, 0), (2, 7), (4, 9), *((h, int(actions[0, 0, h].abs().argmax())) for h in range(HORIZON))]:
        nudge = torch.zeros_like(actions)
        nudge[:, :, h, a] = step
        slope = (merit(actions + nudge) - merit(actions - nudge)) / (2 * step)
        torch.testing.assert_close(gradient[:, :, h, a], slope, rtol=1e-5, atol=1e-7)


def test_gradients_come_from_the_one_rollout_and_leave_no_graph() -> None:
    calls: list[Tensor] = []

    def rollout(actions: Tensor) -> Trajectory:
        calls.append(actions)
        return differentiable(actions)

    task, actions = sloped(rollout, rules=[Allowed(0.0, 0.3)]), some_actions()
    plain, found = score(task, actions), score(task, actions, penalty=1.0)
    assert len(calls) == 2 and plain.gradient is None
    for one, other in zip(plain_tensors(plain), plain_tensors(found), strict=True):
        assert torch.equal(one, other) and not other.requires_grad and other.grad_fn is None
    assert found.gradient is not None and not found.gradient.requires_grad


def plain_tensors(found: Scored) -> list[Tensor]:
    parts = [found.actions, found.tokens, found.energy, found.violation]
    return [*parts, *found.terms.values(), *found.margins.values()]


def test_a_gradient_that_is_not_finite_is_zero_for_that_candidate_and_part_alone() -> None:
    class Root(Allowed):
        """The slope is infinite at 0, where the rule is kept; -1 where it is broken."""

        def __call__(self, trajectory: Trajectory) -> Tensor:
            first = trajectory.actions[..., 0]
            return torch.where(first > 0.25, 0.25 - first, first.abs().sqrt() + 1)

    def function(t: Trajectory) -> Tensor:
        first = t.actions[:, :, 0, 0]
        return t.actions.sum((-2, -1)) + 0.0 * (first - 0.5).square().sqrt()

    actions = torch.zeros(1, 3, HORIZON, A)
    actions[0, 1] = 0.5  # energy's slope 0 / 0, rule broken; candidate 0: infinite slope of a rule that is kept
    actions[0, 2] = 0.375  # both finite
    task = problem(rollout_actions, [Term(function)], [Root(0.0, 0.0)])
    gradient = score(task, actions, penalty=4.0).gradient
    rule = torch.zeros(HORIZON, A).index_fill_(1, torch.tensor([0]), 4.0)
    assert gradient is not None
    assert torch.equal(gradient[0], torch.stack([torch.ones(HORIZON, A), rule, 1 + rule]))


def test_what_does_not_depend_on_the_actions_has_no_gradient() -> None:
    task = problem(rollout_actions, [Term(lambda t: torch.ones(t.actions.shape[:2]))])
    gradient = score(task, torch.zeros(1, 2, HORIZON, A), penalty=1.0).gradient
    assert gradient is not None and torch.equal(gradient, torch.zeros(1, 2, HORIZON, A))


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_a_rollout_that_passes_no_gradients_on_is_refused(guard: Any) -> None:
    task, actions = sloped(guard()(differentiable)), some_actions()
    with pytest.raises(BadInputError, match="this solver needs gradients, but the rollout passes none on"):
        score(task, actions, penalty=1.0)


def test_gradients_are_found_inside_inference_mode_too() -> None:
    wanted = score(sloped(), some_actions(), penalty=1.0).gradient
    with torch.inference_mode():
        found = score(sloped(), some_actions(), penalty=1.0).gradient
    assert wanted is not None and found is not None and torch.equal(wanted, found)
