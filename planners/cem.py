"""The cross-entropy method (de Boer et al. 2005, "A Tutorial on the Cross-Entropy Method")."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, Solver, above_zero, at_least
from wm.planners.candidates import Scored
from wm.planners.gaussian import Gaussian, elites_of, refit
from wm.planners.noise import Noise


class CEM(Solver[Gaussian]):
    """Sample a diagonal Gaussian, refit it to the elites (de Boer et al. 2005, algorithm 3.3, smoothed as in eq. 18).

    Args:
        population: Candidates per iteration (the first also tries the warm start, staying and given elites).
        elites: Best candidates that the Gaussian is refitted to, 1 … population.
        iterations: Largest number of iterations.
        momentum: Share of the old mean and std that is kept, 0 … 1 (exclusive).
        init_std: Initial standard deviation, as a share of half the bounds' range, > 0.
        min_std: Smallest standard deviation, as a share of half the bounds' range, >= 0.
        returns: ``"best"`` candidate, or the final ``"mean"`` (one more rollout of one sequence) unless the mean is
            less safe than the best candidate.
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged.

    Raises:
        BadInputError: a number is out of its range.
    """

    def __init__(
        self,
        population: int = 300,
        elites: int = 30,
        iterations: int = 10,
        momentum: float | int = 0.1,
        init_std: float | int = 0.5,
        min_std: float | int = 0.02,
        returns: Literal["best", "mean"] = "best",
        rtol: float | int = 1e-3,
        patience: int = 3,
    ) -> None:
        super().__init__(iterations, rtol, patience)
        at_least("elites", elites, 1)
        at_least("population", population, elites)
        at_least("min_std", min_std, 0)
        above_zero("init_std", init_std)
        if not 0 <= momentum < 1:
            raise BadInputError(f"planner setting 'momentum' must be in [0, 1), came {momentum}.")
        if returns not in ("best", "mean"):
            raise BadInputError(f"planner setting 'returns' must be 'best' or 'mean', came '{returns}'.")
        self.population, self.n_elites, self.momentum = population, elites, momentum
        self.init_std, self.min_std, self.returns = init_std, min_std, returns

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Gaussian:
        """Around the guess, as wide as ``init_std`` says."""
        return Gaussian(guess, (self.init_std * problem.half_range).expand_as(guess))

    def propose(
        self, problem: Problem, state: Gaussian, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """Independent normal samples."""
        white = noise.normal(self.population, problem.horizon, problem.width)
        return state.mean[:, None] + state.std[:, None] * white

    def update(self, problem: Problem, state: Gaussian, scored: Scored, order: Int[Tensor, "B S"]) -> Gaussian:
        """Refit to the elites."""
        elites, finite = elites_of(scored, order, self.n_elites)
        mean, std = refit(state, elites, finite, self.momentum, self.min_std * problem.half_range)
        return Gaussian(mean, std, elites)

    def answer(self, state: Gaussian) -> Float[Tensor, "B H A"] | None:
        """The mean, where it was asked for."""
        return state.mean if self.returns == "mean" else None
