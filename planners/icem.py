"""iCEM: the sample-efficient cross-entropy method (Pinneri et al. 2020, CoRL, arXiv 2008.06389)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, at_least
from wm.planners.cem import CEM
from wm.planners.gaussian import Gaussian
from wm.planners.noise import Noise


class ICEM(CEM):
    """CEM with all ingredients of algorithm 1 of the paper.

    * Noise is coloured along time (section 3.1), at control-step resolution: a latent step's A numbers are
      ``frameskip`` control steps of A / frameskip numbers each, so noise is drawn over H * frameskip control steps.
    * The population shrinks, ``max(population * gamma^-i, 2 * elites)`` (section 3.3).
    * A fraction of the elites joins the next iteration, and, shifted, the next search (section 3.2; see `MPC`).
    * The mean joins the last iteration (section 3.3), also where a deadline is expected to make it the last.
    * The best candidate is returned rather than the mean (section 3.3).

    Args:
        frameskip: Control steps per latent step, >= 1; divides A.
        population: Candidates of the first iteration.
        elites: Best candidates that the Gaussian is refitted to.
        iterations: Largest number of iterations.
        beta: Exponent of the noise's power law, >= 0: 0 white, 2 red (smooth).
        gamma: Factor by which the population shrinks, >= 1.
        keep: Fraction of the elites that is kept, 0 … 1.
        momentum: The paper's alpha: share of the old mean and std that is kept, 0 … 1 (exclusive).
        init_std: Initial standard deviation, as a share of half the bounds' range, > 0.
        min_std: Smallest standard deviation, as a share of half the bounds' range, >= 0.
        returns: ``"best"`` candidate (the paper), or the final ``"mean"`` unless it is less safe.
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged.

    Raises:
        BadInputError: a number is out of its range; at a search, ``frameskip`` does not divide A.
    """

    def __init__(
        self,
        frameskip: int,
        population: int = 200,
        elites: int = 20,
        iterations: int = 8,
        beta: float | int = 2.0,
        gamma: float | int = 1.25,
        keep: float | int = 0.3,
        momentum: float | int = 0.1,
        init_std: float | int = 0.5,
        min_std: float | int = 0.02,
        returns: Literal["best", "mean"] = "best",
        rtol: float | int = 1e-3,
        patience: int = 3,
    ) -> None:
        super().__init__(population, elites, iterations, momentum, init_std, min_std, returns, rtol, patience)
        at_least("frameskip", frameskip, 1)
        at_least("beta", beta, 0)
        at_least("gamma", gamma, 1)
        if not 0 <= keep <= 1:
            raise BadInputError(f"planner setting 'keep' must be in [0, 1], came {keep}.")
        self.frameskip, self.beta, self.gamma = frameskip, beta, gamma
        self.n_kept = round(keep * elites)

    def propose(
        self, problem: Problem, state: Gaussian, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """Coloured samples, the kept elites, and in the last iteration the mean."""
        count = self.population_at(iteration)
        drawn = noise.controls(count, problem.horizon, problem.width, self.frameskip, self.beta)
        candidates = [state.mean[:, None] + state.std[:, None] * drawn]
        if state.elites is not None:
            candidates.append(state.elites[:, : self.n_kept])
        if last:
            candidates.append(state.mean[:, None])
        return torch.cat(candidates, dim=1)

    def population_at(self, iteration: int) -> int:
        """Samples drawn in an iteration (0, 1, …)."""
        return min(self.population, max(int(self.population * self.gamma**-iteration), 2 * self.n_elites))

    def elites(self, state: Gaussian) -> Float[Tensor, "B K H A"] | None:
        """The kept fraction of the last iteration's elites."""
        return None if state.elites is None or self.n_kept == 0 else state.elites[:, : self.n_kept]
