"""The one anytime loop that every solver runs in; a solver is only what differs."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.candidates import Best, Scored, score
from wm.planners.noise import Noise
from wm.planners.pieces import score_in_time
from wm.planners.problem import Problem
from wm.planners.stopping import Clock, Progress
from wm.types import Plan

__all__ = ["Problem", "Solver"]

StateT = TypeVar("StateT")


class Solver(ABC, Generic[StateT]):
    """Anytime search over action sequences: propose, clip, roll out, rank feasible first, update, keep the best.

    * Feasible first: a candidate that keeps every guardrail beats any that does not; among infeasible ones the lesser
      total violation wins, then the lesser energy. NaN and infinite energies count as +inf, the worst of their kind.
    * The first iteration also tries the warm start (or the initial guess) and staying, before all others, so that a
      plan is feasible where either is, and something safe is returned even if no energy is finite (``Plan.energy`` is
      then inf).
    * An iteration is begun where one like the last is expected to end before the deadline; the first one always is. One
      is cut short where not all of its candidates fit: of it only its best candidate counts. The search returns its
      best candidate.
    * Candidates are clipped to the bounds in raw units before anything sees them.
    * A problem's answer is the same alone or in a batch: see `Noise` for the noise; a converged problem is frozen while
      others go on. (A deadline depends on the machine's speed, and so does what it cuts off.)
    * Bit-identical under the same generator state, deadline aside.

    A subclass's state is a dataclass. Tensors in it have B first, so that they are held where a problem has converged;
    other dataclasses in it likewise. Anything else is taken as it is.

    Args:
        iterations: Largest number of iterations, >= 1.
        rtol: Relative fall of the energy that counts as progress, >= 0.
        patience: Iterations without progress after which a problem has converged, >= 1.

    Raises:
        BadInputError: a number is out of its range.
    """

    def __init__(self, iterations: int, rtol: float | int, patience: int) -> None:
        at_least("iterations", iterations, 1)
        at_least("rtol", rtol, 0)
        at_least("patience", patience, 1)
        self.iterations, self.rtol, self.patience = iterations, rtol, patience

    @abstractmethod
    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> StateT:
        """State before the first iteration; ``guess`` is the warm start, or the middle of the bounds."""

    @abstractmethod
    def propose(
        self, problem: Problem, state: StateT, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """Candidates, not yet clipped. ``last``: no other iteration is expected to follow."""

    @abstractmethod
    def update(self, problem: Problem, state: StateT, scored: Scored, order: Int[Tensor, "B S"]) -> StateT:
        """Next state from the scored candidates; ``order`` lists them best first."""

    def penalty_at(self, iteration: int) -> float | int | None:
        """Energy per unit of violation in `Scored.gradient`; None: this iteration's candidates need no gradient."""
        return None

    def enough(self, problem: Problem) -> float:
        """Energy at or below which a feasible plan ends the search; -inf: none does."""
        return -math.inf

    def answer(self, state: StateT) -> Float[Tensor, "B H A"] | None:
        """A sequence to return instead of the best candidate unless it is infeasible where that one is feasible."""
        return None

    def elites(self, state: StateT) -> Float[Tensor, "B K H A"] | None:
        """Sequences worth keeping for the next, shifted search; None: its best plan is enough, which is kept anyway."""
        return None

    def solve(
        self,
        problem: Problem,
        *,
        warm_start: Float[Tensor, "B H A"] | None = None,
        elites: Float[Tensor, "B K H A"] | None = None,
        generator: torch.Generator | Sequence[torch.Generator],
        deadline_ms: float | int | None = None,
    ) -> Plan:
        """Best plan found.

        Args:
            problem: What to solve.
            warm_start: First guess, raw units.
            elites: More candidates for the first iteration, raw units.
            generator: Source of all randomness: one for all problems, or one per problem (see `Noise`).
            deadline_ms: Milliseconds from the call; see the class.

        Raises:
            BadInputError: warm start or elites are misshapen or not finite, or the deadline is negative.
        """
        return self.search(problem, warm_start=warm_start, elites=elites, generator=generator, deadline_ms=deadline_ms)[
            0
        ]

    @torch.no_grad()
    def search(
        self,
        problem: Problem,
        *,
        warm_start: Float[Tensor, "B H A"] | None = None,
        elites: Float[Tensor, "B K H A"] | None = None,
        generator: torch.Generator | Sequence[torch.Generator],
        deadline_ms: float | int | None = None,
    ) -> tuple[Plan, Float[Tensor, "B E H A"] | None]:
        """As `solve`; also returns the elites to keep, for the next search of a receding horizon."""
        clock = Clock(deadline_ms)
        known = self._known(problem, warm_start, elites)
        noise = Noise(generator, problem.batch, problem.low)
        state = self.start(problem, _guess(problem) if warm_start is None else problem.clip(warm_start.to(problem.low)))
        best: Best | None = None
        progress: Progress | None = None
        trace: list[Tensor] = []
        stopped_by, drawn, whole = "iterations", 0, True
        for iteration in range(self.iterations):
            last = iteration == self.iterations - 1 or not clock.fits(2 * drawn)
            candidates = self.propose(problem, state, noise, iteration, last)
            drawn = candidates.shape[1]
            if iteration == 0:
                candidates = torch.cat([known, candidates], dim=1)
            scored = score_in_time(problem, problem.clip(candidates), self.penalty_at(iteration), clock)
            whole = scored.energy.shape[1] == candidates.shape[1]
            order = scored.order()
            leader = Best.of(scored, order[:, 0])
            updated = self.update(problem, state, scored, order) if whole else state
            if best is None or progress is None:
                best, state = leader, updated
                progress = Progress(best, self.rtol, self.patience, self.enough(problem))
            else:
                best = best.replaced(leader, best.beaten_by(leader) & progress.active)
                state = updated if progress.all_active else _hold(state, updated, progress.active)
                progress.update(best)
            trace.append(best.energy)
            if whole and not progress.any_active:
                stopped_by = "enough" if progress.all_enough else "converged"
                break
            if not whole or (iteration < self.iterations - 1 and not clock.fits(drawn)):
                stopped_by = "deadline"
                break
        assert best is not None
        if whole and clock.fits(1):
            best = self._concluded(problem, best, state)
        return _plan(best, trace, clock.milliseconds(), stopped_by), self.elites(state)

    def _known(self, problem: Problem, warm_start: Tensor | None, elites: Tensor | None) -> Tensor:
        """Candidates known before the search, safest first: warm start, staying, guess, elites. ``(B, S, H, A)``."""
        shape = (problem.horizon, problem.width)
        known = [problem.staying()[:, None]]
        if warm_start is None:
            known.append(_guess(problem)[:, None])
        else:
            problem.check("warm start", warm_start, (problem.batch, *shape))
            known.insert(0, warm_start[:, None].to(problem.low))
        if elites is not None:
            problem.check("elites", elites, (problem.batch, -1, *shape))
            known.append(elites.to(problem.low))
        return torch.cat(known, dim=1)

    def _concluded(self, problem: Problem, best: Best, state: StateT) -> Best:
        """The solver's own answer where it has a finite one that is no less safe, the best candidate elsewhere."""
        answer = self.answer(state)
        if answer is None:
            return best
        scored = score(problem, problem.clip(answer)[:, None])
        other = Best.of(scored, scored.order()[:, 0])
        return best.replaced(other, (other.violation <= best.violation) & torch.isfinite(other.energy))


def at_least(name: str, value: float | int, least: float | int) -> None:
    """Refuse a setting of a solver.

    Raises:
        BadInputError: NaN, infinite or below ``least``.
    """
    if not (math.isfinite(value) and value >= least):
        raise BadInputError(f"planner setting '{name}' must be >= {least}, came {value}.")


def above_zero(name: str, value: float | int) -> None:
    """Refuse a setting of a solver.

    Raises:
        BadInputError: NaN, infinite, zero or below.
    """
    if not (math.isfinite(value) and value > 0):
        raise BadInputError(f"planner setting '{name}' must be > 0, came {value}.")


def _guess(problem: Problem) -> Float[Tensor, "B H A"]:
    return ((problem.low + problem.high) / 2).expand(problem.batch, problem.horizon, -1)


def _hold(old: Any, new: Any, active: Tensor) -> Any:
    """``new`` state for the active problems, ``old`` for those that have converged."""

    def pick(name: str) -> Any:
        before, after = getattr(old, name), getattr(new, name)
        if dataclasses.is_dataclass(before) and dataclasses.is_dataclass(after):
            return _hold(before, after, active)
        if not (isinstance(before, Tensor) and isinstance(after, Tensor)):
            return after
        return torch.where(active.view(-1, *[1] * (after.ndim - 1)), after, before)

    return dataclasses.replace(new, **{field.name: pick(field.name) for field in dataclasses.fields(new)})


def _plan(best: Best, trace: list[Tensor], milliseconds: float, stopped_by: str) -> Plan:
    return Plan(
        actions=best.actions,
        tokens=best.tokens,
        energy=best.energy,
        energy_terms=best.terms,
        margins=best.margins,
        feasible=best.feasible,
        trace=trace,
        iterations=len(trace),
        milliseconds=milliseconds,
        stopped_by=stopped_by,
    )
