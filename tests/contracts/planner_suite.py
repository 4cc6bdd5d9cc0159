"""What every solver promises. A test class per solver derives from `PlannerContract` and says how to build it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners import Problem, Solver
from wm.planners.energies import Effort, Energy, GoalDistance
from wm.planners.guardrails import Guardrail, KeepOutDiscs, WorkspaceBox
from wm.types import Plan, Trajectory

HORIZON, FRAMESKIP, WIDTH = 5, 5, 2
A = FRAMESKIP * WIDTH
ROBOT = PointKinematics(kp=100.0, kv=20.0, dt=0.01, substeps=10, scale=100.0, relative=True)


class Term:
    """An energy that is a plain function of the trajectory."""

    def __init__(self, function: Callable[[Trajectory], Tensor], name: str = "term") -> None:
        self.name, self.function = name, function

    def __call__(self, trajectory: Trajectory) -> Tensor:
        return self.function(trajectory)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rollout_actions(actions: Tensor) -> Trajectory:
    """The latent is the latent step's action itself."""
    return Trajectory(actions, actions[:, :, :, None])


def double_integrator(actions: Tensor) -> Trajectory:
    """A unit mass in the plane, pushed by the mean action of each latent step for 0.5 s, from rest at 0."""
    b, s, h, _ = actions.shape
    force = actions.reshape(b, s, h, FRAMESKIP, WIDTH).mean(3)
    velocity = torch.cumsum(force * 0.5, 2)
    position = torch.cumsum(velocity * 0.5, 2)
    return Trajectory(actions, torch.cat([position, velocity], -1)[:, :, :, None])


def point_robot(start: Tensor) -> Callable[[Tensor], Trajectory]:
    """A PD-controlled point; the latent is its position in units of 100 px."""

    def rollout(actions: Tensor) -> Trajectory:
        path = ROBOT.path(start, actions, FRAMESKIP)
        return Trajectory(actions, path[:, :, :, -1:, :2] / 100.0, path=path)

    return rollout


def problem(
    rollout: Callable[[Tensor], Trajectory],
    energies: Sequence[Energy],
    guardrails: Sequence[Guardrail] = (),
    batch: int = 1,
    low: float = -1.0,
    high: float = 1.0,
) -> Problem:
    return Problem(rollout, energies, guardrails, torch.full((A,), low), torch.full((A,), high), HORIZON, batch)


def quadratic(batch: int = 1) -> Problem:
    """Reach a constant action, another one in every problem of the batch."""
    target = torch.linspace(0.2, 0.8, batch)[:, None, None, None]
    return problem(rollout_actions, [Term(lambda t: (t.actions - target).square().mean((-2, -1)))], batch=batch)


def around_disc(starts: Sequence[tuple[float, float]] = ((100.0, 250.0),)) -> Problem:
    """From the left of a forbidden disc to its right: 300 px away, and the straight line goes through the disc."""
    start = torch.tensor([[x, y, 0.0, 0.0] for x, y in starts])
    goal = torch.tensor([[[4.0, 2.5]]]).expand(len(starts), -1, -1)
    rails = [KeepOutDiscs([[250.0, 245.0]], [45.0]), WorkspaceBox((15.0, 15.0), (497.0, 497.0))]
    return problem(point_robot(start), [GoalDistance(goal), Effort(1e-3)], rails, batch=len(starts))


def same(one: Plan, other: Plan) -> bool:
    return bool((one.actions == other.actions).all() and (one.energy == other.energy).all())


class PlannerContract:
    """Derive, and build the solver in `make`."""

    def make(self, **settings: Any) -> Solver:
        """A solver for `FRAMESKIP`; must take ``iterations``, ``rtol`` and ``patience``."""
        raise AssertionError("a contract class builds its solver in `make`")

    def thorough(self) -> Solver:
        return self.make(iterations=40, rtol=0.0, patience=40)

    def test_solves_a_quadratic(self) -> None:
        plan = self.thorough().solve(quadratic(), generator=seeded())
        assert plan.energy.item() < 0.02 * 0.2**2  # of what staying costs
        assert torch.equal(plan.tokens, plan.actions[:, :, None])

    def test_solves_a_double_integrator(self) -> None:
        goal = torch.tensor([[[1.0, -0.5, 0.0, 0.0]]])  # at rest
        energy = GoalDistance(goal, earlier_weight=0.0)
        plan = self.thorough().solve(problem(double_integrator, [energy]), generator=seeded())
        assert plan.energy.item() < 1e-3 * 0.25 * (1.0 + 0.25)
        assert (plan.tokens[0, -1] - goal[0]).abs().max() < 0.05

    def test_goes_around_an_obstacle(self) -> None:
        task = around_disc()
        straight = torch.zeros(1, 1, HORIZON, A).index_fill_(-1, torch.arange(0, A, 2), 0.12)
        assert task.guardrails[0](task.rollout(straight)).min() < 0
        plan = self.thorough().solve(task, generator=seeded())
        assert plan.feasible.all()
        path = ROBOT.path(torch.tensor([[100.0, 250.0, 0.0, 0.0]]), plan.actions[:, None], FRAMESKIP)
        for rail in task.guardrails:
            assert rail.margin_of(path).min() >= -1e-3
            assert plan.margins[rail.name].min() >= 0
        assert (path[0, 0, -1, -1, :2] - torch.tensor([400.0, 250.0])).norm() < 15.0

    def test_starts_from_a_warm_start(self) -> None:
        task = quadratic()
        plan = self.make(iterations=1).solve(task, warm_start=torch.full((1, HORIZON, A), 0.2), generator=seeded())
        assert plan.energy.item() <= 1e-12

    def test_tries_given_elites(self) -> None:
        elites = torch.stack([torch.full((1, HORIZON, A), value) for value in (0.9, 0.2)], 1)
        plan = self.make(iterations=1).solve(quadratic(), elites=elites, generator=seeded())
        assert plan.energy.item() <= 1e-12

    @pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.3, 0.4), (-7.0, -2.0), (0.5, 0.5)])
    def test_never_leaves_the_bounds(self, low: float, high: float) -> None:
        seen = []

        def rollout(actions: Tensor) -> Trajectory:
            seen.append((actions.detach().min(), actions.detach().max()))
            return rollout_actions(actions)

        task = problem(rollout, [Term(lambda t: -t.actions.mean((-2, -1)))], low=low, high=high)
        warm = torch.full((1, HORIZON, A), 35.0)
        plan = self.make().solve(task, warm_start=warm, elites=-warm[:, None], generator=seeded())
        least, most = torch.tensor(seen).unbind(1)
        assert least.min() >= torch.tensor(low) and most.max() <= torch.tensor(high)
        assert plan.actions.min() >= torch.tensor(low) and plan.actions.max() <= torch.tensor(high)

    def test_is_deterministic(self) -> None:
        one, two = (self.make().solve(around_disc(), generator=seeded(3)) for _ in range(2))
        assert same(one, two) and one.iterations == two.iterations
        assert not same(one, self.make().solve(around_disc(), generator=seeded(4)))

    def test_draws_one_number_from_the_callers_generator(self) -> None:
        """So that an early stop or a deadline does not change what the next search draws."""
        short, long = seeded(), seeded()
        self.make(iterations=1).solve(quadratic(), generator=short)
        self.make(iterations=5).solve(quadratic(), generator=long)
        assert torch.equal(short.get_state(), long.get_state())

    @pytest.mark.real_time
    def test_obeys_its_deadline(self) -> None:
        def slow(actions: Tensor) -> Trajectory:
            time.sleep(0.02)
            return rollout_actions(actions)

        task = problem(slow, [Term(lambda t: (t.actions - 0.5).square().mean((-2, -1)))])
        plan = self.make(iterations=1000, rtol=0.0, patience=1000).solve(task, generator=seeded(), deadline_ms=150.0)
        assert plan.stopped_by == "deadline"
        assert 2 <= plan.iterations <= 7
        assert plan.milliseconds < 150.0 + 40.0  # on a busy machine; an idle one keeps it

    def test_runs_once_without_time(self) -> None:
        plan = self.make().solve(around_disc(), generator=seeded(), deadline_ms=0.0)
        assert (plan.iterations, plan.stopped_by) == (1, "deadline")
        assert plan.feasible.all()

    def test_stays_where_only_staying_is_feasible(self) -> None:
        """A robot in a 1 px gap: any motion breaks a rule."""
        start = torch.tensor([[250.0, 250.0, 0.0, 0.0]])
        box = WorkspaceBox((249.9, 249.9), (250.1, 250.1))
        task = problem(point_robot(start), [GoalDistance(torch.tensor([[[4.0, 2.5]]]))], [box])
        plan = self.make().solve(task, generator=seeded())
        assert plan.feasible.all()
        assert plan.margins["workspace"].min() >= 0

    def test_finds_its_way_back_into_the_feasible(self) -> None:
        """Neither staying nor the guess is feasible: the search has to reduce the violation."""
        target = 0.4
        allowed = Allowed(target, 0.1)
        task = problem(rollout_actions, [Term(lambda t: t.actions.square().mean((-2, -1)))], [allowed])
        plan = self.thorough().solve(task, generator=seeded())
        assert plan.feasible.all()
        assert plan.energy.item() < target**2  # at the near edge of what is allowed
        assert plan.margins["allowed"].shape == (1, HORIZON)

    def test_reports_what_is_infeasible(self) -> None:
        start = torch.tensor([[250.0, 250.0, 0.0, 0.0]])
        task = problem(
            point_robot(start), [GoalDistance(torch.tensor([[[4.0, 2.5]]]))], [KeepOutDiscs([[250.0, 250.0]], [400.0])]
        )
        plan = self.make().solve(task, generator=seeded())
        assert not plan.feasible.any()
        assert plan.margins["keep_out"].min() < 0

    def test_survives_nan_energies(self) -> None:
        def energy(t: Trajectory) -> Tensor:
            value = (t.actions - 0.5).square().mean((-2, -1))
            odd = t.actions[:, :, 0, 0]
            value = torch.where(odd < -0.2, torch.nan, value)
            return torch.where(odd > 0.9, -torch.inf, value)

        plan = self.thorough().solve(problem(rollout_actions, [Term(energy)]), generator=seeded())
        assert torch.isfinite(plan.energy).all() and torch.isfinite(plan.actions).all()
        assert plan.energy.item() < 0.01

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_falls_back_to_what_is_known_when_no_energy_is_finite(self, value: float) -> None:
        broken = [Term(lambda t: torch.full(t.actions.shape[:2], value))]
        task = problem(rollout_actions, broken)
        plan = self.make().solve(task, generator=seeded())
        assert torch.equal(plan.actions, torch.zeros(1, HORIZON, A))
        assert torch.isposinf(plan.energy).all()
        warm = torch.full((1, HORIZON, A), 0.25)
        assert torch.equal(self.make().solve(task, warm_start=warm, generator=seeded()).actions, warm)

    def test_counts_a_nan_margin_as_unsafe(self) -> None:
        task = problem(
            rollout_actions,
            [Term(lambda t: -t.actions.mean((-2, -1)))],
            [Allowed(0.0, 0.3, nan_above=0.05)],
        )
        plan = self.make().solve(task, generator=seeded())
        assert plan.feasible.all() and plan.actions.max() <= 0.05

    def test_answers_alike_alone_and_in_a_batch(self) -> None:
        starts = [(100.0, 250.0), (60.0, 100.0), (120.0, 400.0)]
        together = self.make().solve(around_disc(starts), generator=seeded())
        for row, start in enumerate(starts):
            alone = self.make().solve(around_disc([start]), generator=seeded())
            torch.testing.assert_close(together.actions[row], alone.actions[0], atol=1e-4, rtol=0)
            torch.testing.assert_close(together.energy[row], alone.energy[0], atol=1e-4, rtol=1e-4)

    def test_answers_alike_with_a_generator_per_problem(self) -> None:
        together = self.make().solve(quadratic(3), generator=[seeded(s) for s in (5, 6, 7)])
        target = torch.linspace(0.2, 0.8, 3)
        for row, seed in enumerate((5, 6, 7)):
            term = Term(lambda t, row=row: (t.actions - target[row]).square().mean((-2, -1)))
            alone = self.make().solve(problem(rollout_actions, [term]), generator=seeded(seed))
            torch.testing.assert_close(together.actions[row], alone.actions[0], atol=1e-6, rtol=0)

    def test_a_converged_problem_is_not_changed_by_one_that_goes_on(self) -> None:
        """Problem 0 is flat and converges at once; problem 1 keeps falling."""
        flat = torch.tensor([0.0, 1.0])[:, None]
        term = Term(lambda t: flat * (t.actions - 0.5).square().mean((-2, -1)) + 1.0)
        solver = self.make(iterations=12, rtol=0.0, patience=2)
        together, elites = solver.search(problem(rollout_actions, [term], batch=2), generator=seeded())
        constant = problem(rollout_actions, [Term(lambda t: torch.ones(t.actions.shape[:2]))])
        alone, own = solver.search(constant, generator=seeded())
        assert alone.stopped_by == "converged" and alone.iterations < together.iterations
        torch.testing.assert_close(together.actions[0], alone.actions[0])
        assert (elites is None) == (own is None)
        if elites is not None and own is not None:
            torch.testing.assert_close(elites[0], own[0])

    def test_stops_early_when_converged(self) -> None:
        plan = self.make(iterations=500, rtol=1e-2, patience=3).solve(quadratic(), generator=seeded())
        assert plan.stopped_by == "converged"
        assert plan.iterations < 500

    def test_trace_never_rises_while_feasible(self) -> None:
        plan = self.make().solve(quadratic(2), generator=seeded())
        trace = torch.stack(plan.trace)
        assert trace.shape == (plan.iterations, 2)
        assert (trace.diff(dim=0) <= 0).all()
        torch.testing.assert_close(trace[-1], plan.energy)

    def test_reports_terms_that_sum_to_the_energy(self) -> None:
        plan = self.make().solve(around_disc(), generator=seeded())
        assert set(plan.energy_terms) == {"goal", "effort"}
        torch.testing.assert_close(sum(plan.energy_terms.values()), plan.energy)

    def test_refuses_a_broken_warm_start(self) -> None:
        with pytest.raises(BadInputError, match=r"warm start: expected the shape \(1, 5, 10\), came \(1, 4, 10\)"):
            self.make().solve(quadratic(), warm_start=torch.zeros(1, 4, A), generator=seeded())
        with pytest.raises(BadInputError, match="warm start must be finite, came NaN or infinity"):
            self.make().solve(quadratic(), warm_start=torch.full((1, HORIZON, A), torch.nan), generator=seeded())

    def test_refuses_a_negative_deadline(self) -> None:
        with pytest.raises(BadInputError, match="deadline_ms must be >= 0, came -1"):
            self.make().solve(quadratic(), generator=seeded(), deadline_ms=-1.0)


class Allowed(Guardrail):
    """``margin_h = half_width - max_a |a_h - centre| >= 0``, and NaN where an action exceeds ``nan_above``."""

    name, unit = "allowed", "action"

    def __init__(self, centre: float, half_width: float, nan_above: float = 10.0) -> None:
        self.centre, self.half_width, self.nan_above = centre, half_width, nan_above

    def __call__(self, trajectory: Trajectory) -> Tensor:
        margin = self.half_width - (trajectory.actions - self.centre).abs().amax(-1)
        return torch.where(trajectory.actions.amax(-1) > self.nan_above, torch.nan, margin)
