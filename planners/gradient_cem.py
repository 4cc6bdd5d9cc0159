"""A population's start and a gradient's finish (after Bharadhwaj, Xie & Shkurti 2020, L4DC, arXiv 2004.08763)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, Solver
from wm.planners.candidates import Scored
from wm.planners.cem import CEM
from wm.planners.gaussian import Gaussian, elites_of
from wm.planners.gradient import Descent, Gradient
from wm.planners.noise import Noise


@dataclass(frozen=True)
class Refined:
    """State of both searches.

    Attributes:
        gaussian: Of the sampler.
        descent: Of the descent; until it begins, from the best candidates of the sampler's last iteration.
    """

    gaussian: Gaussian
    descent: Descent


class GradientCEM(Solver[Refined]):
    """Sample until a good valley is found, then descend in it.

    The cross-entropy search looks far and needs no gradients; its best candidates then descend with Adam, which is what
    samples are bad at. The paper mixes a gradient step into every iteration; here one follows the other, so that only
    the few that descend are rolled out with gradients.

    Args:
        sampler: First search, for all of its iterations.
        descent: Second one, for all of its own; its ``starts`` are the sampler's best candidates, so it has at most as
            many as the sampler has elites.
        rtol: Relative fall of the energy that counts as progress.
        patience: Iterations without progress before a problem counts as converged, over both searches: where it is less
            than the sampler's iterations, a problem may converge before the descent begins.

    Attributes:
        iterations: The sum of both.

    Raises:
        BadInputError: a number is out of its range; at a search, what the two searches raise.
    """

    def __init__(self, sampler: CEM, descent: Gradient, rtol: float | int = 1e-3, patience: int = 8) -> None:
        super().__init__(sampler.iterations + descent.iterations, rtol, patience)
        if descent.starts > sampler.n_elites:
            raise BadInputError(
                f"planner setting 'starts' must be <= the sampler's {sampler.n_elites} elites, came {descent.starts}."
            )
        self.sampler, self.descent = sampler, descent

    def start(self, problem: Problem, guess: Float[Tensor, "B H A"]) -> Refined:
        """As both searches start."""
        return Refined(self.sampler.start(problem, guess), self.descent.start(problem, guess))

    def penalty_at(self, iteration: int) -> float | int | None:
        """Gradients are needed of what descends."""
        begun = iteration - self.sampler.iterations
        return None if begun < 0 else self.descent.penalty_at(begun)

    def propose(
        self, problem: Problem, state: Refined, noise: Noise, iteration: int, last: bool
    ) -> Float[Tensor, "B S H A"]:
        """The sampler's candidates, then the descent's points, which are never random."""
        begun = iteration - self.sampler.iterations
        if begun < 0:
            return self.sampler.propose(problem, state.gaussian, noise, iteration, last or begun == -1)
        return self.descent.propose(problem, state.descent, noise, begun + 1, last or begun == 0)

    def update(self, problem: Problem, state: Refined, scored: Scored, order: Int[Tensor, "B S"]) -> Refined:
        """The search that proposed the candidates learns from them."""
        if scored.gradient is None:
            points, _ = elites_of(scored, order, self.descent.starts)
            gaussian = self.sampler.update(problem, state.gaussian, scored, order)
            return Refined(gaussian, self.descent.start_at(points))
        return replace(state, descent=self.descent.update(problem, state.descent, scored, order))

    def elites(self, state: Refined) -> Float[Tensor, "B K H A"] | None:
        """What descended, as last tried."""
        return self.descent.elites(state.descent)
