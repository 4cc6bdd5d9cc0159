"""Gradient descent through the rollout from many starts: Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, Solver, above_zero, at_least
from wm.planners.candidates import Scored
from wm.planners.noise import Noise


@dataclass(frozen=True)
class Descent:
    """State of a descent from K points; the averages are None before the first step.

    Attributes:
        points: ``(B, K, H, A)`` the next to be tried, raw units, inside the bounds.
        tried: ``(B, K, H, A)`` the last that were tried.
        first: ``(B, K, H, A)`` Adam's running mean of the gradient, for actions in units of half the bounds' range.
        second: ``(B, K, H, A)`` of its square.
        steps: ``(B,)`` steps made.
    """

    points: Float[Tensor, "B K H A"]
    tried: Float[Tensor, "B K H A"]
    first: Float[Tensor, "B K H A"] | None
    second: Float[Tensor, "B K H A"] | None
    steps: Float[Tensor, " B"]


class Gradient(Solver[Descent]):
    """Adam on the actions, projected to the bounds after every step.

    The first iteration tries random sequences around the guess beside all that is known (warm start, staying, elites)
    and goes on from the best of them. Each iteration is one rollout, which gives energies, margins and gradients of the
    same candidates. A broken guardrail enters the gradient as ``penalty * violation``: an exact penalty, whose minimum
    keeps the rule once the penalty exceeds what breaking it gains. The ranking stays feasible first.

    Args:
        frameskip: Control steps per latent step, >= 1; divides A.
        starts: Sequences that descend, K >= 1; as many random ones are tried first.
        iterations: Largest number of iterations.
        rate: Adam's step, as a share of half the bounds' range, > 0.
        betas: Adam's decay rates of the gradient's mean and mean square, each 0 … 1 (exclusive). Shorter than
            usual: a rule that was broken once is not to slow the steps after it for long.
        std: Standard deviation of the random starts, as a share of half the bounds' range, > 0.
        beta: Exponent of their noise's power law along the control steps, >= 0: 0 white, 2 red (smooth).
        noise: Standard deviation of white noise added to the points, as a share of half the bounds' range, >= 0; it
            helps out of shallow valleys. Annealed: it falls linearly to 0 over the first half of the iterations.
        penalty: Energy per unit of violation in the gradient, >= 0.
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged.

    Raises:
        BadInputError: a number is out of its range; at a search, ``frameskip`` does not divide A, or the rollout passes
            no gradients on.
    """

    def __init__(
        self,
        frameskip: int,
        starts: int = 8,
        iterations: int = 30,
        rate: float | int = 0.1,
        betas: tuple[float | int, float | int] = (0.8, 0.9),
        std: float | int = 0.5,
        beta: float | int = 2.0,
        noise: float | int = 0.0,
        penalty: float | int = 1.0,
        rtol: float | int = 1e-3,
        patience: int = 8,
    ) -> None:
        super().__init__(iterations, rtol, patience)
        at_least("frameskip", frameskip, 1)
        at_least("starts", starts, 1)
        above_zero("rate", rate)
        above_zero("std", std)
        at_least("beta", beta, 0)
        at_least("noise", noise, 0)
        at_least("penalty", penalty, 0)
        if not all(0 <= value < 1 for value in betas):
            raise BadInputError(f"planner setting 'betas' must be two numbers in [0, 1), came {betas}.")
        self.frameskip, self.starts, self.rate, self.betas = frameskip, starts, rate, betas
        self.std, self.beta, self.noise, self.penalty = std, beta, noise, penalty

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Descent:
        """All at the guess."""
        return self.start_at(guess[:, None].expand(-1, self.starts, -1, -1))

    def start_at(self, points: Float[Tensor, "B K H A"]) -> Descent:
        """State of a descent from these points, raw units, inside the bounds."""
        return Descent(points, points, None, None, points.new_zeros(len(points)))

    def penalty_at(self, iteration: int) -> float | int | None:
        """Gradients are needed of every candidate."""
        return self.penalty

    def propose(
        self, problem: Problem, state: Descent, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """Random starts; later the points, with annealed noise if there is any."""
        if iteration == 0:
            drawn = noise.controls(self.starts, problem.horizon, problem.width, self.frameskip, self.beta)
            return state.points + self.std * problem.half_range * drawn
        std = self.noise * max(0.0, 1 - 2 * iteration / self.iterations)
        if std == 0 or last:
            return state.points
        return state.points + std * problem.half_range * noise.normal(*state.points.shape[1:])

    def update(self, problem: Problem, state: Descent, scored: Scored, order: Int[Tensor, "B S"]) -> Descent:
        """One step of Adam from the candidates; the first one from the best of them."""
        assert scored.gradient is not None
        points, slope = scored.actions, scored.gradient * problem.half_range
        first, second = state.first, state.second
        if first is None or second is None:
            chosen = order[:, : state.points.shape[1]]
            rows = torch.arange(len(chosen), device=chosen.device)[:, None]
            points, slope = points[rows, chosen], slope[rows, chosen]
            first, second = torch.zeros_like(slope), torch.zeros_like(slope)
        steps = state.steps + 1
        first = torch.lerp(slope, first, self.betas[0])
        second = torch.lerp(slope.square(), second, self.betas[1])
        mean, square = (
            average / (1 - decay**steps)[:, None, None, None]
            for average, decay in zip((first, second), self.betas, strict=True)
        )
        move = self.rate * problem.half_range * mean / (square.sqrt() + 1e-8)
        return Descent(problem.clip(points - move), points, first, second, steps)

    def elites(self, state: Descent) -> Float[Tensor, "B K H A"] | None:
        """The points as they were last tried."""
        return state.tried
