"""What of a frame is state: its slow features, found in closed form.

Of all linear functions of the frozen features with unit variance, pairwise uncorrelated, take those that change least
from one latent step to the next (slow feature analysis, Wiskott & Sejnowski 2002). That is the optimum of a
joint-embedding objective with VICReg's three terms, invariance between neighbouring frames under exact variance and
covariance constraints, for a linear embedding: it cannot collapse, has no learning rate and takes a minute.

Scaled so that every feature changes by the same root mean square per step, the squared distance between two states
approximates how long it takes to get from one to the other (commute time; Wu et al. 2019, "The Laplacian in RL", arXiv
1810.04586), which is what a planner wants: the pusher, which moves fast, counts little, and the block counts much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.state_head import StateHead

STEP = 0.2
"""Root mean square change of every slow feature per latent step, in state units."""

VISIBLE = 0.8
"""A number of the proprioception is read out where a linear map explains at least this share of its variance."""

PAIRS_PER_FEATURE = 2
"""Pairs below which the slowest functions are those that happen to be constant on the few frames; ten are good."""

SAMPLE = 8000
"""Frames that the principal components and the spread of the features are taken from."""


@dataclass(frozen=True)
class Pairs:
    """Frames one latent step apart.

    Attributes:
        now: ``(M, Ne, De)`` encoder tokens.
        later: The same, one latent step later.
        proprio: ``(M, P)`` normalised, of `now`; None when the robot reports none.
    """

    now: Float[Tensor, "M Ne De"]
    later: Float[Tensor, "M Ne De"]
    proprio: Float[Tensor, "M P"] | None


@dataclass(frozen=True)
class SlowFeatures:
    """What was found.

    Attributes:
        slowness: Mean squared change per latent step of each feature at unit variance; 2 is white noise.
        visible: Share of each proprioceptive number's variance that the picture tells.
    """

    slowness: list[float]
    visible: list[float]


@torch.no_grad()
def fit_state_head(head: StateHead, pairs: Pairs, components: int = 500, ridge: float = 1e-2) -> SlowFeatures:
    """Set a state head's linear maps: slow features, and behind them a read-out of proprioception.

    Args:
        head: Its last P numbers become the read-out, the others slow features, slowest first.
        pairs: Frames of the log; ten or more times as many as features (components + De (De + 1) / 2).
        components: Principal components of the flattened tokens.
        ridge: Added to the covariance of the standardised features, and 0.3 times it to that of their changes.

    Raises:
        BadInputError: NaN or infinity in the pairs, fewer of them than `PAIRS_PER_FEATURE` per feature, no room for a
            slow feature in the head or too much of it, or frames that do not change.
    """
    _require_finite(pairs)
    slow = _slow_count(head, pairs, components)
    head.channel_mean.copy_(pairs.now.mean((0, 1)))
    head.channel_std.copy_(pairs.now.std((0, 1)) + 1e-6)
    basis = _Basis.of(head, pairs.now, components)
    now, later = basis(head, pairs.now), basis(head, pairs.later)
    maps, found = _state_maps(now, later, pairs.proprio, slow, ridge)
    basis.install(head, maps)
    return found


@torch.no_grad()
def rescale_state_head(head: StateHead, pairs: Pairs, ridge: float = 1e-3) -> SlowFeatures:
    """Turn a learned head's numbers into their own slow features, and put the read-out of proprioception behind them.

    The same search as `fit_state_head`, among linear functions of what the head sees already.

    Args:
        head: Trained with the encoder (`wm.refine`).
        pairs: Frames of the log; ten or more times as many as the head has numbers.
        ridge: As in `fit_state_head`.

    Raises:
        BadInputError: NaN or infinity in the pairs, no room for a slow feature, or frames that do not change.
    """
    _require_finite(pairs)
    width, known = head.tokens * head.width, 0 if pairs.proprio is None else pairs.proprio.shape[1]
    if width <= known:
        raise BadInputError(
            f"state head: expected more than {known} numbers, {known} of them proprioception, came {width}."
        )
    now, later = _states(head, pairs.now), _states(head, pairs.later)
    mean, std = now.mean(0), now.std(0) + 1e-6
    now, later = (now - mean) / std, (later - mean) / std
    maps, found = _state_maps(now, later, pairs.proprio, width - known, ridge)
    maps = maps / std[:, None]
    bias = (head.places.bias.double() - mean) @ maps
    head.places.weight.copy_(maps.T @ head.places.weight.double())
    head.places.bias.copy_(bias)
    head.products.weight.copy_(maps.T @ head.products.weight.double())
    return found


def _states(head: StateHead, tokens: Tensor) -> Float[Tensor, "M X"]:
    parts = [head(tokens[start : start + 1000].float()).flatten(1) for start in range(0, len(tokens), 1000)]
    return torch.cat(parts).double()


def _require_finite(pairs: Pairs) -> None:
    for name, values in {"tokens": pairs.now, "later tokens": pairs.later, "proprioception": pairs.proprio}.items():
        if values is None:
            continue
        broken = ~torch.isfinite(values.flatten(0, -2).mean(0))  # a mean is finite where everything in it is
        if bool(broken.any()):
            numbers = torch.nonzero(broken).flatten().tolist()
            raise BadInputError(f"state head: expected finite {name}, came NaN or infinity in numbers {numbers}.")


def _slow_count(head: StateHead, pairs: Pairs, components: int) -> int:
    """How many slow features the head has room for, after a look at what there is to find them in."""
    count, places = len(pairs.now), pairs.now.shape[1] * pairs.now.shape[2]
    features = min(components, places, SAMPLE) + head.pairs.shape[1]
    needed = PAIRS_PER_FEATURE * features
    if count < needed:
        raise BadInputError(
            f"state head: expected at least {needed} pairs of frames one latent step apart "
            f"({PAIRS_PER_FEATURE} for each of {features} features), came {count}."
        )
    width, known = head.tokens * head.width, 0 if pairs.proprio is None else pairs.proprio.shape[1]
    if not 1 <= width - known <= features:
        raise BadInputError(
            f"state head: expected {known + 1} to {known + features} numbers, {known} of them proprioception, "
            f"came {width}."
        )
    return width - known


def _state_maps(
    now: Tensor, later: Tensor, proprio: Tensor | None, slow: int, ridge: float
) -> tuple[Float[Tensor, "K X"], SlowFeatures]:
    """Maps of standardised features to a state: slow features, and the read-out of proprioception behind them."""
    maps, slowness = _slowest(now, later, slow, ridge)
    if proprio is None:
        return maps, SlowFeatures(slowness, [])
    read_out, visible = _read_out(now, proprio.double(), ridge)
    return torch.cat([maps, read_out], dim=1), SlowFeatures(slowness, visible)


def _slowest(now: Tensor, later: Tensor, count: int, ridge: float) -> tuple[Tensor, list[float]]:
    """``(K, count)`` maps of standardised features to slow ones, scaled to an equal change per step."""
    eye = torch.eye(now.shape[1], dtype=now.dtype)
    change = (later - now).T @ (later - now) / len(now) + 0.3 * ridge * eye
    spread = now.T @ now / len(now) + ridge * eye
    _, vectors = scipy.linalg.eigh(change.numpy(), spread.numpy(), subset_by_index=[0, count - 1])
    maps = torch.from_numpy(vectors)
    variance = (now @ maps).square().mean(0)
    changes = ((later - now) @ maps).square().mean(0)
    still = int((changes <= 1e-12 * variance).sum())
    if still:
        raise BadInputError(
            f"state head: expected frames that change from one latent step to the next; {still} of {count} features "
            "never do."
        )
    return maps * (STEP / changes.sqrt()), (changes / variance).tolist()


def _read_out(now: Tensor, proprio: Tensor, ridge: float) -> tuple[Tensor, list[float]]:
    """``(K, P)`` ridge regression of the proprioception; what the picture does not tell (a velocity) is left at 0."""
    fit, test = slice(0, len(now) * 4 // 5), slice(len(now) * 4 // 5, None)
    seen, known = now[fit], proprio[fit]
    spread = seen.T @ seen / len(seen) + ridge * torch.eye(now.shape[1], dtype=now.dtype)
    maps = torch.linalg.solve(spread, seen.T @ known / len(seen))
    error = (now[test] @ maps - proprio[test]).square().mean(0)
    visible = 1 - error / proprio[test].var(0).clamp_min(1e-9)  # a number that never changes has no variance
    return maps * (visible >= VISIBLE), visible.tolist()


@dataclass(frozen=True)
class _Basis:
    """Standardised features: principal components of the flattened tokens, and their pooled products."""

    axes: Tensor  # (L, components)
    centre: Tensor  # (L,)
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, head: StateHead, tokens: Tensor, components: int) -> _Basis:
        sample = tokens[torch.linspace(0, len(tokens) - 1, min(len(tokens), SAMPLE)).long()]
        places, products = head.features(sample.float())
        with torch.random.fork_rng():
            torch.manual_seed(0)
            components = min(components, *places.shape)
            axes = torch.pca_lowrank(places, q=components, niter=3)[2]
        centre = places.mean(0)
        raw = torch.cat([(places - centre) @ axes, products], dim=1).double()
        return cls(axes, centre, raw.mean(0), raw.std(0) + 1e-6)

    def __call__(self, head: StateHead, tokens: Tensor) -> Float[Tensor, "M K"]:
        rows = []
        for start in range(0, len(tokens), 1000):
            places, products = head.features(tokens[start : start + 1000].float())
            raw = torch.cat([(places - self.centre) @ self.axes, products], dim=1).double()
            rows.append((raw - self.mean) / self.std)
        return torch.cat(rows)

    def install(self, head: StateHead, maps: Float[Tensor, "K X"]) -> None:
        """Fold basis and maps into the head's two linear layers."""
        maps = maps / self.std[:, None]
        linear = self.axes.double() @ maps[: self.axes.shape[1]]
        head.places.weight.copy_(linear.T)
        head.places.bias.copy_(-(self.centre.double() @ linear) - self.mean @ maps)
        head.products.weight.copy_(maps[self.axes.shape[1] :].T)


def draw_pairs(rows: np.ndarray, tokens: Tensor, proprio: Tensor | None) -> Pairs:
    """Pairs from a table of tokens ``(O, Ne, De)``; `rows` ``(M, 2)`` are frames one latent step apart."""
    now, later = torch.from_numpy(rows[:, 0]), torch.from_numpy(rows[:, 1])
    return Pairs(tokens[now], tokens[later], None if proprio is None else proprio[now])
