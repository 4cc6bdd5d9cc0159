"""Losses of joint-embedding prediction: the prediction itself, and what keeps it from collapsing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def rollout_loss(
    predicted: Float[Tensor, "B H X"], target: Float[Tensor, "B H X"], weights: Float[Tensor, " X"]
) -> Float[Tensor, ""]:
    """Mean squared error of a rollout over all steps, each state number weighted."""
    return ((predicted - target).square() * weights).mean()


STILL = 0.01
"""Share of the root mean square speed below which a velocity has no direction that would mean anything."""


def straightening(latents: Float[Tensor, "B T X"]) -> Float[Tensor, ""]:
    """How much trajectories bend: the mean of ``1 - cos(z[t+1] - z[t], z[t+2] - z[t+1])`` over consecutive triples.

    0 for straight lines, whatever the speed, 1 where each step is at right angles to the last, 2 where each goes back.
    Temporal straightening for latent planning (Wang et al. 2026, arXiv 2603.12231), after the perceptual straightening
    of videos (Hénaff et al. 2019, doi 10.1038/s41593-019-0377-4). Triples with a velocity of less than `STILL` of the
    root mean square of all speeds do not count; where none counts (all at rest, or fewer than three frames) it is 0.

    Args:
        latents: Trajectories of T frames, one latent step apart.
    """
    velocities = latents.diff(dim=1)
    speeds = velocities.detach().norm(dim=-1)
    moving = speeds > STILL * speeds.square().mean().sqrt()
    counted = moving[:, :-1] & moving[:, 1:]
    bends = 1 - functional.cosine_similarity(velocities[:, :-1][counted], velocities[:, 1:][counted], dim=-1)
    return bends.sum() / max(1, len(bends))


def sigreg(
    embeddings: Float[Tensor, "M D"], generator: torch.Generator, projections: int = 256, knots: int = 17
) -> Float[Tensor, ""]:
    """Sketched isotropic-Gaussian regularisation (LeJEPA, Balestriero & LeCun 2025, arXiv 2511.08544).

    The Epps-Pulley distance between the characteristic function of random one-dimensional projections and that of
    N(0, 1), integrated against exp(-t²/2) over |t| <= 4 by the trapezoid rule. It is 0 for a standard normal sample
    (up to sampling noise of order 1 / M), 0.41 for one that is collapsed onto the origin, and largest, up to 3.95, for
    one that is collapsed far from it.

    Args:
        embeddings: A sample of embeddings.
        generator: Draws the projections.
        projections: Random directions per call.
        knots: Integration points.
    """
    directions = torch.randn(embeddings.shape[1], projections, generator=generator, dtype=embeddings.dtype)
    directions = directions / directions.norm(dim=0, keepdim=True)
    t = torch.linspace(0.0, 4.0, knots, dtype=embeddings.dtype)  # even in t: half of the axis is enough
    angles = (embeddings @ directions)[..., None] * t  # (M, projections, knots)
    gaussian = torch.exp(-0.5 * t.square())
    distance = (angles.cos().mean(0) - gaussian).square() + angles.sin().mean(0).square()
    return 2.0 * torch.trapezoid(distance * gaussian, t, dim=-1).mean()


def explained_part(
    embeddings: Float[Tensor, "M D"], known: Float[Tensor, "M P"], generator: torch.Generator, features: int = 48
) -> Float[Tensor, "M D"]:
    """What a smooth function of `known` explains of the embeddings: ridge regression on random Fourier features.

    The features (Rahimi & Recht 2007) are cosines of random directions with a length scale of one standard deviation.

    Args:
        embeddings: A sample.
        known: What is known of each of its members, of unit scale.
        generator: Draws the features.
        features: Cosines, besides the linear and the constant one; keep well below M.
    """
    directions = torch.randn(known.shape[1], features, generator=generator, dtype=known.dtype)
    phases = 2 * torch.pi * torch.rand(features, generator=generator, dtype=known.dtype)
    basis = torch.cat([torch.ones_like(known[:, :1]), known, (known @ directions + phases).cos()], dim=1)
    gram = basis.T @ basis + 1e-2 * len(basis) * torch.eye(basis.shape[1], dtype=basis.dtype)
    return basis @ torch.linalg.solve(gram, basis.T @ embeddings)


def variance_covariance(embeddings: Float[Tensor, "M D"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """VICReg's variance and covariance terms (Bardes et al. 2022, arXiv 2105.04906, eqs. 1 and 4).

    Returns:
        Mean over dimensions of max(0, 1 - std), and the sum of squared off-diagonal covariances over D.
    """
    centred = embeddings - embeddings.mean(0)
    std = (centred.square().mean(0) + 1e-4).sqrt()
    covariance = centred.T @ centred / (len(embeddings) - 1)
    off = covariance.square().sum() - covariance.diagonal().square().sum()
    return torch.relu(1.0 - std).mean(), off / embeddings.shape[1]


def effective_rank(embeddings: Float[Tensor, "M D"]) -> float:
    """RankMe (Garrido et al. 2023, arXiv 2210.02885): exp of the entropy of the normalised singular values, 1…D."""
    return effective_rank_of(torch.linalg.svdvals(embeddings - embeddings.mean(0)))


def effective_rank_of(singular: Float[Tensor, " D"]) -> float:
    """RankMe of singular values, see `effective_rank`."""
    p = singular / singular.sum().clamp_min(1e-12) + 1e-12
    return float(torch.exp(-(p * p.log()).sum()))
