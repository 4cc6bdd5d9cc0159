"""Projected limited-memory quasi-Newton descent through the rollout, from many starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wm.planners.base import Problem, Solver, above_zero, at_least
from wm.planners.candidates import Scored
from wm.planners.noise import Noise

_ARMIJO = 1e-4
"""Share of the decrease foreseen by the gradient that a step has to give (Nocedal & Wright 2006, eq. 3.4)."""
_CURVATURE = 1e-6
"""Least cosine between a move and the change of the gradient along it for the pair to tell of curvature."""
_SMALLEST = 1e-5
"""A line search that has come down to this, as a share of half the bounds' range, begins again without memory."""


@dataclass(frozen=True)
class Valleys:
    """K descents; W = H * A numbers z, the actions in units of half the bounds' range about their middle.

    Attributes:
        z: ``(B, K, W)`` where each descent stands, -1 … 1.
        merit: ``(B, K)`` energy + penalty * violation there.
        slope: ``(B, K, W)`` its gradient.
        direction: ``(B, K, W)`` of the line search; zero where a bound is in the way.
        step: ``(B, K)`` next length to be tried along it, > 0.
        moves: ``(B, K, M, W)`` changes of z, newest last.
        bends: ``(B, K, M, W)`` changes of the slope along them; both zero where nothing is remembered.
    """

    z: Float[Tensor, "B K W"]
    merit: Float[Tensor, "B K"]
    slope: Float[Tensor, "B K W"]
    direction: Float[Tensor, "B K W"]
    step: Float[Tensor, "B K"]
    moves: Float[Tensor, "B K M W"]
    bends: Float[Tensor, "B K M W"]


@dataclass(frozen=True)
class Descents:
    """State of an L-BFGS search.

    Attributes:
        guess: ``(B, H, A)`` what random starts are spread around, raw units.
        valleys: The descents; None before the first iteration.
    """

    guess: Float[Tensor, "B H A"]
    valleys: Valleys | None = None


class LBFGS(Solver[Descents]):
    """L-BFGS (Nocedal & Wright 2006, algorithm 7.4), projected to the bounds (Bertsekas 1982, SIAM J. Control 20).

    Every problem and every start has a memory and a line search of its own, computed for all at once, so none depends
    on another. One iteration is one rollout: it tries one step of every descent. A step that keeps Armijo's rule along
    the projected path is taken, and the next direction is the quasi-Newton one among the numbers that no bound holds
    back; one that does not is shortened (by interpolation, to 0.1 … 0.5 of it) and tried again in the next iteration.

    The first iteration tries random sequences around the guess beside all that is known (warm start, staying, elites)
    and goes on from the best of them. A broken guardrail counts as ``penalty * violation``; the ranking stays feasible
    first.

    Args:
        frameskip: Control steps per latent step, >= 1; divides A.
        starts: Sequences that descend, K >= 1; as many random ones are tried first.
        iterations: Largest number of iterations.
        memory: Pairs of changes that are remembered, M >= 1.
        first_step: Largest move of a number in a step without memory, as a share of half the bounds' range, > 0.
        std: Standard deviation of the random starts, as a share of half the bounds' range, > 0.
        beta: Exponent of their noise's power law along the control steps, >= 0: 0 white, 2 red (smooth).
        penalty: Energy per unit of violation, >= 0.
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
        iterations: int = 20,
        memory: int = 8,
        first_step: float | int = 0.2,
        std: float | int = 0.5,
        beta: float | int = 2.0,
        penalty: float | int = 1.0,
        rtol: float | int = 1e-3,
        patience: int = 6,
    ) -> None:
        super().__init__(iterations, rtol, patience)
        at_least("frameskip", frameskip, 1)
        at_least("starts", starts, 1)
        at_least("memory", memory, 1)
        above_zero("first_step", first_step)
        above_zero("std", std)
        at_least("beta", beta, 0)
        at_least("penalty", penalty, 0)
        self.frameskip, self.starts, self.memory, self.first_step = frameskip, starts, memory, first_step
        self.std, self.beta, self.penalty = std, beta, penalty

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Descents:
        """Nothing but the guess."""
        return Descents(guess)

    def penalty_at(self, iteration: int) -> float | int | None:
        """Gradients are needed of every candidate."""
        return self.penalty

    def propose(
        self, problem: Problem, state: Descents, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """Random starts; later one step of each line search."""
        if state.valleys is None:
            drawn = noise.controls(self.starts, problem.horizon, problem.width, self.frameskip, self.beta)
            return state.guess[:, None] + self.std * problem.half_range * drawn
        tried = state.valleys.z + state.valleys.step[..., None] * state.valleys.direction
        return problem.low + problem.half_range * (1 + tried.unflatten(-1, (problem.horizon, problem.width)))

    def update(self, problem: Problem, state: Descents, scored: Scored, order: Int[Tensor, "B S"]) -> Descents:
        """Take the steps that keep Armijo's rule, shorten the others; the first descents begin at the best."""
        assert scored.gradient is not None
        half = torch.where(problem.half_range > 0, problem.half_range, 1.0)
        z = ((scored.actions - problem.low) / half - 1).flatten(-2)
        merit = scored.energy + self.penalty * scored.violation
        slope = (scored.gradient * problem.half_range).flatten(-2)
        if state.valleys is not None:
            return replace(state, valleys=self._stepped(state.valleys, z, merit, slope))
        chosen = order[:, : self.starts]
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        z, merit, slope = z[rows, chosen], merit[rows, chosen], slope[rows, chosen]
        none = z.new_zeros(*z.shape[:2], self.memory, z.shape[2])
        direction, step = self._searches(z, slope, none, none)
        return replace(state, valleys=Valleys(z, merit, slope, direction, step, none, none))

    def elites(self, state: Descents) -> Float[Tensor, "B K H A"] | None:
        """None: the best is in the plan, which is the next search's warm start."""
        return None

    def _stepped(
        self, old: Valleys, z: Float[Tensor, "B K W"], merit: Float[Tensor, "B K"], slope: Float[Tensor, "B K W"]
    ) -> Valleys:
        """The descents after a step to ``z`` was tried, where merit and slope are these."""
        move, bend = z - old.z, slope - old.slope
        foreseen = (old.slope * move).sum(-1)  # <= 0
        taken = torch.isfinite(merit) & (merit <= old.merit + _ARMIJO * foreseen)
        learnt = taken & (_curvature(move, bend) > 0)
        moves, bends = (
            torch.where(learnt[..., None, None], torch.cat([kept[:, :, 1:], new[:, :, None]], dim=2), kept)
            for kept, new in ((old.moves, move), (old.bends, bend))
        )
        # Minimum of the parabola through the old merit, its slope along the move, and the merit that was too high.
        lesser = torch.nan_to_num(-foreseen / (2 * (merit - old.merit - foreseen)), nan=0.0)
        step = old.step * lesser.clamp(0.1, 0.5)
        stuck = ~taken & (step * old.direction.abs().amax(-1) < _SMALLEST)
        moves, bends = (torch.where(stuck[..., None, None], 0.0, kept) for kept in (moves, bends))
        z, slope = (torch.where(taken[..., None], new, kept) for new, kept in ((z, old.z), (slope, old.slope)))
        direction, first = self._searches(z, slope, moves, bends)
        again = taken | stuck
        return Valleys(
            z,
            torch.where(taken, merit, old.merit),
            slope,
            torch.where(again[..., None], direction, old.direction),
            torch.where(again, first, step),
            moves,
            bends,
        )

    def _searches(
        self,
        z: Float[Tensor, "B K W"],
        slope: Float[Tensor, "B K W"],
        moves: Float[Tensor, "B K M W"],
        bends: Float[Tensor, "B K M W"],
    ) -> tuple[Float[Tensor, "B K W"], Float[Tensor, "B K"]]:
        """Direction and first step of new line searches: the two-loop recursion among the free numbers."""
        free = ~(((z <= -1) & (slope > 0)) | ((z >= 1) & (slope < 0)))
        slope = slope * free
        moves, bends = moves * free[:, :, None], bends * free[:, :, None]
        curvature = _curvature(moves, bends)  # (B, K, M)
        known = curvature > 0
        inverse = torch.where(known, 1 / curvature.clamp(min=torch.finfo(z.dtype).tiny), 0.0)
        scale = torch.zeros_like(slope[..., 0])  # of the newest pair
        for i in range(self.memory):
            scale = torch.where(known[..., i], curvature[..., i] / bends[:, :, i].square().sum(-1), scale)
        quasi, shares = slope, [torch.zeros_like(scale)] * self.memory
        for i in reversed(range(self.memory)):
            shares[i] = inverse[..., i] * (moves[:, :, i] * quasi).sum(-1)
            quasi = quasi - shares[i][..., None] * bends[:, :, i]
        quasi = scale[..., None] * quasi
        for i in range(self.memory):
            back = inverse[..., i] * (bends[:, :, i] * quasi).sum(-1)
            quasi = quasi + (shares[i] - back)[..., None] * moves[:, :, i]
        quasi = quasi * free
        downhill = torch.isfinite(quasi).all(-1) & ((quasi * slope).sum(-1) > 0)
        direction = -torch.where(downhill[..., None], quasi, slope)
        longest = torch.where(downhill, 1.0, self.first_step)
        largest = direction.abs().amax(-1).clamp(min=torch.finfo(z.dtype).tiny)
        return direction, torch.where(downhill, (longest / largest).clamp(max=1.0), longest / largest)


def _curvature(move: Float[Tensor, "*n W"], bend: Float[Tensor, "*n W"]) -> Float[Tensor, "*n"]:
    """``move . bend`` where it tells of upward curvature, 0 elsewhere."""
    product = (move * bend).sum(-1)
    return torch.where(product > _CURVATURE * move.norm(dim=-1) * bend.norm(dim=-1), product, 0.0)
