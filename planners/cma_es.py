"""CMA-ES (Hansen & Ostermeier 2001, Evol. Comput. 9; Hansen 2016, arXiv 1604.00772), by the library pycma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from wm.planners.base import Problem, Solver, above_zero, at_least
from wm.planners.candidates import Scored
from wm.planners.noise import Noise


class Evolution:
    """One problem's instance of pycma, over z in -1 … 1: actions in units of half the bounds' range about their middle.

    Args:
        mean: ``(W,)`` first mean, -1 … 1.
        std: First standard deviation.
        population: Candidates per iteration.
        diagonal: Only variances are adapted, no covariances.

    Attributes:
        origin: ``(W,)`` where it began.
    """

    def __init__(self, mean: np.ndarray, std: float | int, population: int, diagonal: bool) -> None:
        self._settings = std, population, diagonal
        self._random = np.random.default_rng()
        self.begin(mean)

    def seed(self, seed: int) -> None:
        """Fix all that it will draw."""
        self._random = np.random.default_rng(seed)

    def begin(self, mean: np.ndarray) -> None:
        """Forget all but the random numbers' state, and start around ``mean``."""
        import cma

        std, population, diagonal = self._settings
        options = {
            "bounds": [-1.0, 1.0],
            "popsize": population,
            "CMA_diagonal": diagonal,
            "randn": lambda *shape: self._random.standard_normal(shape),  # never numpy's global state
            "seed": np.nan,
            "verbose": -9,
            "verb_log": 0,
        }
        self.origin = mean
        self.strategy: Any = cma.CMAEvolutionStrategy(mean, std, options)
        self._asked: list[np.ndarray] = []

    def ask(self) -> np.ndarray:
        """Candidates, ``(population, W)``."""
        self._asked = self.strategy.ask()
        return np.stack(self._asked)

    def tell(self, ranks: np.ndarray) -> None:
        """The asked candidates' ranks, ``(population,)``; less is better."""
        self.strategy.tell(self._asked, ranks.tolist())


@dataclass(frozen=True)
class Evolutions:
    """State of a CMA-ES search.

    Attributes:
        each: One per problem; they change in place.
    """

    each: tuple[Evolution, ...]


class CMAES(Solver[Evolutions]):
    """Adapt mean, step size and covariance of a Gaussian to the ranks of its candidates.

    Every problem has an instance of `cma.CMAEvolutionStrategy` of its own, with random numbers of its own. pycma only
    ever sees ranks, feasible first, so that it needs no finite energies and no penalty. Where the first iteration finds
    a known candidate (staying, elites) better than the guess and all samples around it, the search begins there.

    Args:
        population: Candidates per iteration, >= 4; the paper's default for n numbers is 4 + 3 ln n.
        iterations: Largest number of iterations.
        std: First standard deviation, as a share of half the bounds' range, > 0.
        diagonal: Adapt variances only (sep-CMA-ES: Ros & Hansen 2008): a step costs O(H A) instead of O((H A)^2), and
            few iterations suffice to learn them; for large H * A, or little time.
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged.

    Raises:
        BadInputError: a number is out of its range.
    """

    def __init__(
        self,
        population: int = 64,
        iterations: int = 15,
        std: float | int = 0.3,
        diagonal: bool = False,
        rtol: float | int = 1e-3,
        patience: int = 5,
    ) -> None:
        super().__init__(iterations, rtol, patience)
        at_least("population", population, 4)
        above_zero("std", std)
        self.population, self.std, self.diagonal = population, std, diagonal
        import cma  # noqa: F401  (slow the first time: here, so that no search has to wait for it)

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Evolutions:
        """Around the guess."""
        return Evolutions(
            tuple(Evolution(z, self.std, self.population, self.diagonal) for z in _normalised(problem, guess))
        )

    def propose(
        self, problem: Problem, state: Evolutions, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """What each instance asks for."""
        if iteration == 0:
            for evolution, seed in zip(state.each, noise.seeds(problem.batch), strict=True):
                evolution.seed(seed)
        asked = torch.from_numpy(np.stack([evolution.ask() for evolution in state.each])).to(problem.low)
        return problem.low + problem.half_range * (1 + asked.unflatten(-1, (problem.horizon, problem.width)))

    def update(self, problem: Problem, state: Evolutions, scored: Scored, order: Int[Tensor, "B S"]) -> Evolutions:
        """Tell each instance the ranks of what it asked for."""
        known = order.shape[1] - self.population  # they come first; in the first iteration only
        ranks = order.argsort(1).cpu().numpy()
        leaders = _normalised(problem, scored.actions[torch.arange(len(order), device=order.device), order[:, 0]])
        for evolution, leader, rank in zip(state.each, leaders, ranks, strict=True):
            if rank[:known].min(initial=1) == 0 and not np.array_equal(leader, evolution.origin):
                evolution.begin(leader)
            else:
                evolution.tell(rank[known:])
        return state


def _normalised(problem: Problem, actions: Float[Tensor, "B H A"]) -> np.ndarray:
    """``(B, H * A)`` actions in units of half the bounds' range about their middle, -1 … 1."""
    half = torch.where(problem.half_range > 0, problem.half_range, 1.0)
    z = ((actions - problem.low) / half - 1).clamp(-1, 1) * (problem.half_range > 0)
    return z.flatten(1).double().cpu().numpy()
