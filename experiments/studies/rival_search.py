"""A search that two arms run: its size, its problems, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from wm.errors import BadInputError
from wm.experiments.studies.race import alternate, summary
from wm.experiments.studies.rival_weights import Sizes

TOLERANCE = 1e-5
"""Largest relative difference of costs that counts as rounding."""


@dataclass(frozen=True)
class Search:
    """Size of a CEM search; the defaults are the rivals' for push-T, but for the iterations (30).

    Attributes:
        samples: Candidates of a problem and iteration.
        iterations: Iterations.
        topk: Candidates that the Gaussian is refitted to.
        horizon: Latent steps.
        problems: Problems planned at a time.
        seed: Of weights, problems and noise.
    """

    samples: int = 300
    iterations: int = 1
    topk: int = 30
    horizon: int = 5
    problems: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.topk <= self.samples:
            raise BadInputError(f"--topk: expected 2 to {self.samples} (--samples), came {self.topk}.")


@dataclass(frozen=True)
class Scene:
    """B problems: a picture and proprioception now, and those of the goal.

    Attributes:
        picture: ``(B, 1, 3, H, W)``.
        proprio: ``(B, 1, P)`` normalised; P may be 0.
        goal_picture: ``(B, 1, 3, H, W)``.
        goal_proprio: ``(B, 1, P)`` normalised.
    """

    picture: Tensor
    proprio: Tensor
    goal_picture: Tensor
    goal_proprio: Tensor

    @classmethod
    def random(cls, sizes: Sizes, search: Search) -> Scene:
        """Noise for pictures: what is in them does not change the time."""
        generator = torch.Generator().manual_seed(search.seed)
        picture, goal = torch.rand(2, search.problems, 1, 3, sizes.image, sizes.image, generator=generator)
        proprio, wanted = torch.randn(2, search.problems, 1, sizes.proprio_width, generator=generator)
        return cls(picture, proprio, goal, wanted)


@dataclass(frozen=True)
class Scored:
    """What a search did.

    Attributes:
        candidates: ``(I, B, S, H, A)`` of each iteration.
        costs: ``(I, B, S)``.
        plan: ``(B, H, A)`` mean of the last elites.
    """

    candidates: Tensor
    costs: Tensor
    plan: Tensor


def elite_mean(actions: Tensor, cost: Tensor, topk: int) -> Tensor:
    """``(B, H, A)`` mean of the `topk` cheapest of ``(B, S, H, A)`` candidates."""
    best = cost.topk(topk, dim=1, largest=False).indices
    return actions.gather(1, best[..., None, None].expand(-1, -1, *actions.shape[2:])).mean(1)


def race(
    theirs: Callable[[], Scored],
    ours: Callable[[Tensor], Scored],
    runs: int,
    gigaflop: dict[str, float],
) -> dict[str, Any]:
    """Both arms on the candidates that the rival draws: how far their costs are apart, and how long they take.

    Args:
        theirs: A search by the rival.
        ours: A search by us, over given candidates.
        runs: Timed runs of each, in turn; one of each before them is not counted.
        gigaflop: What each has to compute.

    Raises:
        BadInputError: the costs do not agree.
    """
    first = theirs()
    answer = ours(first.candidates)
    difference = float(((answer.costs - first.costs).abs() / first.costs.abs()).max())
    if not difference <= TOLERANCE:
        raise BadInputError(f"costs: expected a relative difference of at most {TOLERANCE}, came {difference:.2g}.")
    seconds = alternate({"theirs": theirs, "ours": lambda: ours(first.candidates)}, runs)
    return {
        "runs": runs,
        "statistic": "median",
        "largest_relative_cost_difference": difference,
        "largest_plan_difference": float((first.plan - answer.plan).abs().max()),
    } | summary(seconds, gigaflop)


def settings(study: str, rival: str, about: dict[str, Any], sizes: Sizes, search: Search, chunk: int) -> dict[str, Any]:
    """What a result was measured with."""
    return {
        "study": study,
        "rival": rival,
        "machine": about,
        "sizes": asdict(sizes),
        "search": asdict(search),
        "chunk": chunk,
    }
