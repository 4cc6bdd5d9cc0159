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
    problem,
    rollout_actions,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import LBFGS, Gradient
from wm.types import Trajectory

SLOW: dict[str, Any] = {"rtol": 0.0, "patience": 999}
W = HORIZON * A


class TestLBFGS(PlannerContract):
    def make(self, **settings: Any) -> LBFGS:
        return LBFGS(FRAMESKIP, **settings)


def valley(condition: float, target: float = 0.3) -> Any:
    """A quadratic whose axes are not those of the actions, its curvatures spread over ``condition``."""
    axes = torch.linalg.qr(torch.randn(W, W, generator=seeded(1)))[0]
    curvature = torch.logspace(0, -torch.tensor(condition).log10().item(), W)
    return lambda t: (((t.actions - target).flatten(-2) @ axes).square() * curvature).sum(-1)


def test_solves_an_ill_conditioned_quadratic_in_far_fewer_iterations_than_gradient() -> None:
    task = problem(rollout_actions, [Term(valley(100.0))])
    quasi = LBFGS(FRAMESKIP, iterations=40, **SLOW).solve(task, generator=seeded())
    assert quasi.energy < 1e-6 * quasi.trace[0]
    for rate in (0.01, 0.02, 0.05):
        adam = Gradient(FRAMESKIP, iterations=120, rate=rate, **SLOW).solve(task, generator=seeded())
        assert torch.equal(adam.trace[0], quasi.trace[0])  # from the very same starts
        assert adam.energy > 1e-6 * adam.trace[0]


def test_the_directions_are_those_of_the_inverse_hessian() -> None:
    """With as many pairs as numbers, the recursion of a quadratic gives the secant equation: H y = s for the newest."""
    solver = LBFGS(FRAMESKIP, memory=6)
    moves = torch.randn(2, 3, 6, W, generator=seeded())
    hessian = torch.diag(torch.linspace(0.5, 4.0, W))
    bends = moves @ hessian
    inside = torch.zeros(2, 3, W)
    newest, wanted = bends[:, :, -1], -moves[:, :, -1]
    direction, step = solver._searches(inside, newest, moves, bends)
    torch.testing.assert_close(direction, wanted, atol=1e-4, rtol=1e-3)
    assert (step <= 1).all() and ((step * direction.abs().amax(-1)) <= 1 + 1e-5).all()


def test_a_direction_is_that_of_the_textbook_in_dense_matrices() -> None:
    """Nocedal & Wright 2006, eq. 7.16-7.20: BFGS updates of gamma I as matrices."""
    solver, generator = LBFGS(FRAMESKIP, memory=4), seeded(5)
    moves = torch.randn(1, 1, 4, W, generator=generator, dtype=torch.float64)
    root = torch.randn(W, W, generator=generator, dtype=torch.float64) / W**0.5
    bends = moves @ (root @ root.T + torch.eye(W, dtype=torch.float64))
    slope = torch.randn(1, 1, W, generator=generator, dtype=torch.float64)
    s, y = moves[0, 0], bends[0, 0]
    inverse = (s[-1] @ y[-1]) / (y[-1] @ y[-1]) * torch.eye(W, dtype=torch.float64)
    for k in range(4):
        rho = 1 / (s[k] @ y[k])
        left = torch.eye(W, dtype=torch.float64) - rho * torch.outer(s[k], y[k])
        inverse = left @ inverse @ left.T + rho * torch.outer(s[k], s[k])
    direction, _ = solver._searches(torch.zeros_like(slope), slope, moves, bends)
    torch.testing.assert_close(direction[0, 0], -inverse @ slope[0, 0])


def test_numbers_on_a_bound_that_holds_them_back_do_not_bend_the_others() -> None:
    target = torch.where(torch.arange(A) % 2 == 0, 1.6, -0.25)
    weights = torch.logspace(0, -2, A)
    term = Term(lambda t: ((t.actions - target).square() * weights).sum((-2, -1)))
    plan = LBFGS(FRAMESKIP, iterations=60, **SLOW).solve(problem(rollout_actions, [term]), generator=seeded())
    assert torch.equal(plan.actions[..., ::2], torch.ones(1, HORIZON, A // 2))
    # As near as float32 can tell: the energy of what lies beyond the bounds is about 3, the least curvature 0.01.
    torch.testing.assert_close(plan.actions[..., 1::2], torch.full((1, HORIZON, A // 2), -0.25), atol=5e-3, rtol=0)


def test_every_descent_only_ever_goes_down() -> None:
    """Armijo's rule, where the raw quasi-Newton step would overshoot: Rosenbrock's curved valley."""

    def energy(t: Trajectory) -> Tensor:
        x, y = t.actions[..., ::2], t.actions[..., 1::2]
        return ((1 - x).square() + 100 * (y - x.square()).square()).mean((-2, -1))

    solver, merits = LBFGS(FRAMESKIP, starts=6, iterations=60, **SLOW), []
    original = solver._stepped

    def watched(*args: Any) -> Any:
        found = original(*args)
        merits.append(found.merit)
        return found

    solver._stepped = watched  # type: ignore[method-assign]
    plan = solver.solve(problem(rollout_actions, [Term(energy)]), generator=seeded())
    assert (torch.stack(merits).diff(dim=0) <= 0).all()
    assert plan.energy.item() < 0.05  # 1 at rest


def test_a_start_does_not_depend_on_the_others() -> None:
    """Torch's own L-BFGS would share one memory and one step between all of them."""
    seen: list[Tensor] = []

    def rollout(actions: Tensor) -> Trajectory:
        seen.append(actions.detach())
        return rollout_actions(actions)

    task = problem(rollout, [Term(valley(100.0))])
    start = torch.full((1, HORIZON, A), -0.4)
    solver = LBFGS(FRAMESKIP, starts=1, std=1e-6, iterations=10, **SLOW)
    solver.solve(task, warm_start=start, generator=seeded())
    alone, seen[:] = list(seen), []
    elites = torch.stack([torch.full((1, HORIZON, A), value) for value in (0.9, -0.9)], 1)
    both = LBFGS(FRAMESKIP, starts=5, std=1e-6, iterations=10, **SLOW)
    both.solve(task, warm_start=start, elites=elites, generator=seeded())
    first = valley(100.0)(rollout_actions(seen[0]))[0].argsort(stable=True)
    energies = valley(100.0)(rollout_actions(alone[0]))[0]
    place = int((seen[0][0, first] - alone[0][0, energies.argmin()]).abs().amax((-2, -1)).argmin())
    assert place < 5
    for one, other in zip(alone[1:], seen[1:], strict=True):
        torch.testing.assert_close(one[0, 0], other[0, place], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frameskip": 0}, "planner setting 'frameskip' must be >= 1, came 0"),
        ({"starts": 0}, "planner setting 'starts' must be >= 1, came 0"),
        ({"memory": 0}, "planner setting 'memory' must be >= 1, came 0"),
        ({"first_step": 0.0}, "planner setting 'first_step' must be > 0, came 0.0"),
        ({"std": 0.0}, "planner setting 'std' must be > 0, came 0.0"),
        ({"beta": -1.0}, "planner setting 'beta' must be >= 0, came -1.0"),
        ({"penalty": -1.0}, "planner setting 'penalty' must be >= 0, came -1.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        LBFGS(**{"frameskip": FRAMESKIP, **settings})
