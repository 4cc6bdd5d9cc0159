"""Watching features during a run: how many directions they use, how much they vary, what can be read from them.

The features are the kept encoder's tokens of the same frames every time; the embedding is what the loss keeps apart.
Nothing here changes the training: no gradient, no batch statistics, no random number of the run's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.encoders.base import normalise
from wm.losses import effective_rank_of
from wm.objectives.base import Objective, run_fast

LEAST_RANK = 2.0
"""RankMe below which features or embedding count as collapsed: hardly more than one direction is left."""
LEAST_SPREAD = 0.02
"""Standard deviation of the features below which they count as collapsed, their root mean square being 1."""
LEAST_STD = 0.1
"""Standard deviation of the embedding below which it counts as collapsed; 1 is healthy."""
NEIGHBOURS = 10
PENALTY = 1e-2
"""Of the linear probe, relative to the mean square of a picture's features."""
_CHUNK = 64


@dataclass(frozen=True)
class Watched:
    """Frames that are looked at again and again, and what is true of them.

    Attributes:
        held_out: ``(M, H, W, 3)`` uint8, frames that are not trained on.
        fitted: ``(K, H, W, 3)`` uint8, others that probes are fitted to; none where there is no truth.
        held_out_truth: ``(M, S)``, or None.
        fitted_truth: ``(K, S)``, or None.
    """

    held_out: Tensor
    fitted: Tensor | None = None
    held_out_truth: Tensor | None = None
    fitted_truth: Tensor | None = None


@torch.no_grad()
def measure(objective: Objective, watched: Watched, probe: bool, source: int = 0) -> dict[str, float]:
    """The figures of this moment.

    Args:
        objective: Under training; it is left as it was.
        watched: What to look at.
        probe: Whether the true state is read from the features too, where there is one.
        source: Of a mixture's sources, the one that is looked at.

    Returns:
        ``feature_rank`` (RankMe) and ``feature_std`` (mean over numbers) of the features, ``spread`` (the latter over
        their root mean square), ``embedding_rank``, ``embedding_std``; with the probe ``probe_r2`` and ``knn_r2``,
        means over the state's numbers of R², none counted below 0.
    """
    with evaluating(objective):
        tokens = _tokens(objective, watched.held_out)
        features, embedding = tokens.flatten(1), objective.embed(tokens, source)
        std, size = float(features.std(0).mean()), float(features.square().mean().sqrt())
        figures = {"feature_rank": rank_of(features), "feature_std": std, "spread": std / max(1e-12, size)}
        figures |= {"embedding_rank": rank_of(embedding), "embedding_std": float(embedding.std(0).mean())}
        if probe and watched.fitted is not None and watched.fitted_truth is not None:
            assert watched.held_out_truth is not None
            fitted = _tokens(objective, watched.fitted).flatten(1)
            figures |= probe_scores(fitted, watched.fitted_truth, features, watched.held_out_truth)
    return figures


def least_of(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each figure the least of several sources (NaN before any number): what has collapsed of one is seen."""
    names = dict.fromkeys(name for each in figures for name in each)
    return {name: float(np.min([each[name] for each in figures if name in each])) for name in names}


def collapse(figures: dict[str, float]) -> list[str]:
    """What says that the features have collapsed; empty where nothing does."""
    limits = [
        ("feature_rank", "rank of the features", LEAST_RANK),
        ("embedding_rank", "rank of the embedding", LEAST_RANK),
        ("spread", "spread of the features", LEAST_SPREAD),
        ("embedding_std", "std of the embedding", LEAST_STD),
    ]
    return [
        f"{said} {figures[name]:.3g} < {least:g}"
        for name, said, least in limits
        if not figures[name] >= least  # NaN is no health
    ]


def rank_of(x: Float[Tensor, "M K"]) -> float:
    """RankMe, as `wm.losses.effective_rank`, from the smaller Gram matrix: exact enough, and faster."""
    centred = x.double() - x.double().mean(0)
    gram = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    return effective_rank_of(torch.linalg.eigvalsh(gram).clamp_min(0).sqrt())


def probe_scores(
    fitted: Float[Tensor, "K X"],
    fitted_truth: Float[Tensor, "K S"],
    x: Float[Tensor, "M X"],
    truth: Float[Tensor, "M S"],
) -> dict[str, float]:
    """R² of ridge regression and of nearest neighbours from features to truth, on frames they were not fitted to."""
    mean, std = fitted.mean(0), fitted.std(0) + 1e-9
    a, b = ((each - mean) / std / each.shape[1] ** 0.5 for each in (fitted, x))
    known, offset = fitted_truth.double(), fitted_truth.double().mean(0)
    gram, cross = (a @ a.T).double(), (b @ a.T).double()
    squares = gram.diagonal().clone()
    nearest = (squares - 2 * cross).topk(min(NEIGHBOURS, len(a)), largest=False).indices
    gram.diagonal().add_(PENALTY * squares.mean())
    linear = cross @ torch.linalg.solve(gram, known - offset) + offset
    spread = (truth - truth.mean(0)).square().mean(0).clamp_min(1e-12)
    scores = {}
    for name, read in {"probe_r2": linear, "knn_r2": known[nearest].mean(1)}.items():
        r2 = 1 - (read - truth).square().mean(0) / spread
        scores[name] = float(r2.clamp_min(0).mean())
    return scores


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every part is in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _tokens(objective: Objective, frames: Tensor) -> Float[Tensor, "M N D"]:
    parts = [run_fast(objective.kept, normalise(part), objective.bf16) for part in frames.split(_CHUNK)]
    return torch.cat(parts)
