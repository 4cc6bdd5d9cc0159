"""Predictive sampling (Howell et al. 2022, "Predictive Sampling: Real-time Behaviour Synthesis with MuJoCo", MJPC)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wm.planners.base import Problem, Solver, above_zero, at_least
from wm.planners.candidates import Scored
from wm.planners.noise import Noise


@dataclass(frozen=True)
class Incumbent:
    """State of a predictive sampling search.

    Attributes:
        actions: ``(B, H, A)`` best so far, raw units.
    """

    actions: Float[Tensor, "B H A"]


class PredictiveSampling(Solver[Incumbent]):
    """Add Gaussian noise to the best so far, keep the best (algorithm 1 of arXiv 2212.00541): the simple baseline.

    The best so far is a candidate again, as in the paper. Noise that is coloured along the control steps stands in for
    the paper's splines.

    Args:
        frameskip: Control steps per latent step, >= 1; divides A.
        population: Candidates per iteration besides the best so far, >= 1.
        iterations: Largest number of iterations.
        std: Standard deviation of the noise, as a share of half the bounds' range, > 0.
        beta: Exponent of the noise's power law along the control steps, >= 0: 0 white, 2 red (smooth).
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged.

    Raises:
        BadInputError: a number is out of its range; at a search, ``frameskip`` does not divide A.
    """

    def __init__(
        self,
        frameskip: int,
        population: int = 128,
        iterations: int = 10,
        std: float | int = 0.15,
        beta: float | int = 2.0,
        rtol: float | int = 1e-3,
        patience: int = 5,
    ) -> None:
        super().__init__(iterations, rtol, patience)
        at_least("frameskip", frameskip, 1)
        at_least("population", population, 1)
        above_zero("std", std)
        at_least("beta", beta, 0)
        self.frameskip, self.population, self.std, self.beta = frameskip, population, std, beta

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Incumbent:
        """The guess."""
        return Incumbent(guess)

    def propose(
        self, problem: Problem, state: Incumbent, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """The best so far, then noisy copies of it."""
        drawn = noise.controls(self.population, problem.horizon, problem.width, self.frameskip, self.beta)
        best = state.actions[:, None]
        return torch.cat([best, best + self.std * problem.half_range * drawn], dim=1)

    def update(self, problem: Problem, state: Incumbent, scored: Scored, order: Int[Tensor, "B S"]) -> Incumbent:
        """The best candidate; of equals the first, which is the best so far."""
        return Incumbent(scored.actions[torch.arange(len(order), device=order.device), order[:, 0]])
