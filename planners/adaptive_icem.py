"""iCEM that thinks as long as it pays: a look at first, more where the goal stays far or its elites disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, at_least
from wm.planners.candidates import Scored
from wm.planners.gaussian import Gaussian, elites_of
from wm.planners.icem import ICEM
from wm.planners.noise import Noise


@dataclass(frozen=True, kw_only=True)
class Effort(Gaussian):
    """State of an adaptive search: the Gaussian, what made it, and what the next iteration may spend.

    Attributes:
        count: ``(B,)`` samples to draw.
        violation: ``(B,)`` of the worst elite; None before the first iteration.
        energy: ``(B,)`` of the worst elite; None before the first iteration.
    """

    count: Int[Tensor, " B"]
    violation: Float[Tensor, " B"] | None = None
    energy: Float[Tensor, " B"] | None = None


class AdaptiveICEM(ICEM):
    """iCEM that looks first, whose population follows its elites' disagreement, and that ends when nothing is gained.

    The first iteration is a look: beside all that is known (warm start, kept elites, a model's proposals) it tries few
    samples. Where that is good enough (`Problem.enough`), it is all. Elsewhere a search begins at the best that was
    seen, with samples as wide as at first and ``population`` of them. Where nothing is known to be enough, the
    population grows from the look's.

    Elites agree where their mean is as good a plan as they are: in a convex valley it is better (Jensen's inequality).
    They disagree where it is worse than all of them: two ways round an obstacle are good and their mean is not. This
    has no unit and no threshold. The mean is one of the next iteration's candidates; where it turns out worse than the
    worst elite (feasible first), the next population is ``growth`` times the last one, up to ``most``; elsewhere it
    shrinks by ``gamma``, down to ``2 * elites``.

    Ending is the shared loop's: a problem is done where its energy is enough, or after ``patience`` iterations in which
    it did not fall by ``rtol``. All of it is decided for every problem by itself. In a batch, a problem of fewer
    samples than another has its surplus filled with copies of its first one, which never become elites.

    Args:
        frameskip: Control steps per latent step, >= 1; divides A.
        population: Samples of the first iteration, or of the first after the look.
        most: Largest population, >= ``population``.
        growth: Factor by which the population grows, >= 1.
        gamma: Factor by which it shrinks, >= 1.
        elites: Best candidates that the Gaussian is refitted to.
        iterations: Largest number of iterations.
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged.
        look: Samples of the first iteration, 1 … ``population``; None: no look, a search that only its elites'
            disagreement and its progress guide.
        settings: Others of `ICEM`.

    Raises:
        BadInputError: a number is out of its range; at a search, ``frameskip`` does not divide A.
    """

    def __init__(
        self,
        frameskip: int,
        population: int = 200,
        most: int = 800,
        growth: float | int = 2.0,
        gamma: float | int = 1.1,
        elites: int = 20,
        iterations: int = 10,
        rtol: float | int = 0.02,
        patience: int = 2,
        look: int | None = None,
        **settings: Any,
    ) -> None:
        settings |= {"gamma": gamma, "rtol": rtol, "patience": patience}
        super().__init__(frameskip, population, elites, iterations, **settings)
        if most < population:
            raise BadInputError(f"planner setting 'most' must be >= population = {population}, came {most}.")
        at_least("growth", growth, 1)
        at_least("look", 1 if look is None else look, 1)
        if look is not None and look > population:
            raise BadInputError(f"planner setting 'look' must be <= population = {population}, came {look}.")
        self.look, self.most, self.growth = look, most, growth

    def enough(self, problem: Problem) -> float:
        """What the problem says, to a search that begins with a look."""
        return super().enough(problem) if self.look is None else problem.enough

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Effort:
        """As iCEM, with the samples of the look."""
        first = super().start(problem, guess)
        count = torch.full((problem.batch,), self.look or self.population, device=guess.device)
        return Effort(first.mean, first.std, count=count)

    def propose(
        self, problem: Problem, state: Gaussian, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """The kept elites, their mean, and every problem's samples, the surplus at the end."""
        assert isinstance(state, Effort)
        # The largest number is always drawn, so that noise depends on no other problem's population.
        drawn = noise.controls(self.most, problem.horizon, problem.width, self.frameskip, self.beta)
        drawn = drawn[:, : int(state.count.max())]
        samples = state.mean[:, None] + state.std[:, None] * drawn
        own = torch.arange(samples.shape[1], device=samples.device) < state.count[:, None]
        samples = torch.where(own[..., None, None], samples, samples[:, :1])
        if state.elites is None:  # the guess, which is known
            return samples
        return torch.cat([state.elites[:, : self.n_kept], state.mean[:, None], samples], dim=1)

    def update(self, problem: Problem, state: Gaussian, scored: Scored, order: Int[Tensor, "B S"]) -> Effort:
        """Refit, and say how much the next iteration may spend."""
        assert isinstance(state, Effort)
        own = _without_surplus(order, state.count)
        fitted = super().update(problem, state, scored, own)
        worst = own[:, min(self.n_elites, own.shape[1]) - 1, None]
        fewer = (state.count / self.gamma).long().clamp(min=min(2 * self.n_elites, self.population))
        more = (state.count * self.growth).long().clamp(max=self.most)
        looked = self.enough(problem) > -math.inf and state.elites is None
        count = (
            torch.full_like(fewer, self.population) if looked else torch.where(_disagreed(state, scored), more, fewer)
        )
        return Effort(
            _best_of(state, scored, own) if looked else fitted.mean,
            state.std if looked else fitted.std,
            fitted.elites,
            count=count,
            violation=scored.violation.gather(1, worst)[:, 0],
            energy=scored.energy.gather(1, worst)[:, 0],
        )


def _best_of(state: Effort, scored: Scored, order: Int[Tensor, "B S"]) -> Float[Tensor, "B H A"]:
    """The best candidate; the mean that there is where nothing is finite."""
    best, finite = elites_of(scored, order, 1)
    return torch.where(finite[..., None], best[:, 0], state.mean)


def _without_surplus(order: Int[Tensor, "B S"], count: Int[Tensor, " B"]) -> Int[Tensor, "B S"]:
    """The same order with the copies that fill up a problem's samples, which are its last candidates, at its end."""
    surplus = order >= order.shape[1] - (count.max() - count)[:, None]
    return order.gather(1, surplus.long().argsort(dim=1, stable=True))


def _disagreed(state: Effort, scored: Scored) -> Bool[Tensor, " B"]:
    """The mean of the elites, the candidate before the samples, is worse than the worst of them."""
    if state.violation is None or state.energy is None:
        return torch.zeros_like(state.count, dtype=torch.bool)
    at = -int(state.count.max()) - 1
    violation, energy = scored.violation[:, at], scored.energy[:, at]
    return (violation > state.violation) | ((violation == state.violation) & (energy > state.energy))
