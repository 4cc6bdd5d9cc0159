"""Model predictive path integral control (Williams et al. 2017, ICRA; 2018, T-RO, arXiv 1707.02342)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, Solver, above_zero, at_least
from wm.planners.candidates import Scored
from wm.planners.noise import Noise


@dataclass(frozen=True)
class Nominal:
    """State of a path integral search.

    Attributes:
        mean: ``(B, H, A)`` the sequence that noise is added to, raw units.
    """

    mean: Float[Tensor, "B H A"]


class MPPI(Solver[Nominal]):
    """Move the mean to the softmax-weighted mean of noisy candidates (algorithm 2 of the T-RO paper).

    Differences from the paper: the control cost of its eq. 27 is left to the problem's energies, so that a candidate's
    cost is its energy; the temperature is relative (see `weights`); several iterations may share one observation, with
    noise that shrinks by ``decay`` each time (as in Xue et al. 2024, DIAL-MPC, arXiv 2409.15610).

    With ``log_noise`` the noise is the product of a normal and a log-normal number (log-MPPI: Mohamed et al. 2022,
    RA-L, arXiv 2203.16599): more small steps and more far ones at the same standard deviation.

    Args:
        frameskip: Control steps per latent step, >= 1; divides A.
        population: Candidates per iteration, >= 1; in the last one, the mean is one more.
        iterations: Largest number of iterations.
        temperature: Of the softmax, >= 0, as a share of what the median candidate's cost is above the best one's.
        std: Standard deviation of the first iteration's noise, as a share of half the bounds' range, > 0.
        decay: Factor by which it shrinks from one iteration to the next, 0 (exclusive) … 1; 1 is the paper.
        beta: Exponent of the noise's power law along the control steps, >= 0: 0 white (the paper), 2 red (smooth).
        log_noise: Standard deviation of the logarithm of the log-normal factor, >= 0; 0 is plain MPPI.
        returns: ``"best"`` candidate, or the final ``"mean"`` (the paper; one more rollout of one sequence) unless the
            mean is less safe than the best candidate.
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged.

    Raises:
        BadInputError: a number is out of its range; at a search, ``frameskip`` does not divide A.
    """

    def __init__(
        self,
        frameskip: int,
        population: int = 300,
        iterations: int = 10,
        temperature: float | int = 0.1,
        std: float | int = 0.5,
        decay: float | int = 0.85,
        beta: float | int = 0.0,
        log_noise: float | int = 0.0,
        returns: Literal["best", "mean"] = "best",
        rtol: float | int = 1e-3,
        patience: int = 3,
    ) -> None:
        super().__init__(iterations, rtol, patience)
        at_least("frameskip", frameskip, 1)
        at_least("population", population, 1)
        at_least("temperature", temperature, 0)
        above_zero("std", std)
        at_least("beta", beta, 0)
        at_least("log_noise", log_noise, 0)
        if not 0 < decay <= 1:
            raise BadInputError(f"planner setting 'decay' must be in (0, 1], came {decay}.")
        if returns not in ("best", "mean"):
            raise BadInputError(f"planner setting 'returns' must be 'best' or 'mean', came '{returns}'.")
        self.frameskip, self.population, self.temperature = frameskip, population, temperature
        self.std, self.decay, self.beta, self.log_noise, self.returns = std, decay, beta, log_noise, returns

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Nominal:
        """Around the guess."""
        return Nominal(guess)

    def propose(
        self, problem: Problem, state: Nominal, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """Noisy copies of the mean and, in the last iteration, the mean itself."""
        drawn = noise.controls(self.population, problem.horizon, problem.width, self.frameskip, self.beta)
        if self.log_noise > 0:
            # exp(s n - s^2) has a mean square of 1, so the product keeps the standard deviation.
            drawn = drawn * torch.exp(self.log_noise * noise.normal(*drawn.shape[1:]) - self.log_noise**2)
        mean = state.mean[:, None]
        noisy = mean + self.std * self.decay**iteration * problem.half_range * drawn
        return torch.cat([mean, noisy], dim=1) if last else noisy

    def update(self, problem: Problem, state: Nominal, scored: Scored, order: Int[Tensor, "B S"]) -> Nominal:
        """The weighted mean; a problem whose candidates all have weight 0 keeps its own."""
        share = weights(scored, self.temperature)
        mean = torch.einsum("bs,bsha->bha", share, scored.actions)
        return Nominal(torch.where(share.any(1)[:, None, None], mean, state.mean))

    def answer(self, state: Nominal) -> Float[Tensor, "B H A"] | None:
        """The mean, where it was asked for."""
        return state.mean if self.returns == "mean" else None


def weights(scored: Scored, temperature: float | int) -> Float[Tensor, "B S"]:
    """``w_s ~ exp(-(c_s - min c) / (temperature * (median c - min c)))``; they sum to 1 in every problem.

    Where a candidate of a problem is feasible, c is the energy of the feasible ones, and the others weigh nothing;
    where none is, c is the violation. What is not finite weighs nothing: if nothing is finite, all weights are 0. Being
    relative, weights do not depend on the energy's unit. Temperature 0 shares all the weight among the best.
    """
    feasible = scored.violation == 0
    energy = torch.where(feasible, scored.energy, torch.inf)
    cost = torch.where(feasible.any(1, keepdim=True), energy, scored.violation)
    counted = torch.isfinite(cost)
    above = cost - cost.amin(1, keepdim=True)
    median = torch.where(counted, above, torch.nan).nanmedian(1, keepdim=True).values
    scale = (temperature * median).clamp(min=torch.finfo(cost.dtype).tiny)
    logits = torch.where(counted, -above / scale, -torch.inf)
    return torch.where(counted.any(1, keepdim=True), logits.softmax(1), 0.0)
