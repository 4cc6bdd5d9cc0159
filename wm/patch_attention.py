"""Attention of frames of many tokens over the frames that they may see, at the rate of the machine where it can be."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wm.linear import AVX512, linear

Past = tuple[Tensor, Tensor]
"""Keys ``(M, k * N, I)`` and values ``(M, I, k * N)`` of k frames of N tokens."""

SCORES = 2**19
"""Scores at a time: what stays near a core, measured."""

TOKENS, NUMBERS = 96, 3 * 2**14
"""Below so many tokens of a frame, or numbers in its queries, torch's own attention is as fast or faster; measured."""


def project(
    x: Float[Tensor, "M G N D"], weight: Float[Tensor, "J D"], newest: bool
) -> tuple[Float[Tensor, "M F N I"], Float[Tensor, "M L I"], Float[Tensor, "M I L"]]:
    """Queries of all G frames or of the newest, and keys and values of all of their L = G * N tokens; J = 3 * I.

    Values come transposed; in memory too, where `attend` multiplies with them so.
    """
    inner = len(weight) // 3
    if not _grouped(x.shape[2], inner, x, weight):
        if newest and x.shape[1] > 1:
            queries = linear(x[:, -1:], weight[:inner])
            keys, values = linear(x, weight[inner:]).chunk(2, dim=-1)
        else:
            queries, keys, values = linear(x, weight).chunk(3, dim=-1)
        return queries, keys.flatten(1, 2), values.flatten(1, 2).mT
    queries = linear(x[:, -1:] if newest else x, weight[:inner])
    keys = linear(x, weight[inner : 2 * inner])
    values = linear(weight[-inner:], x.flatten(0, 2))  # a product with its factors exchanged gives its transpose
    return queries, keys.flatten(1, 2), values.unflatten(1, (len(x), -1)).transpose(0, 1)


def attend(
    queries: Float[Tensor, "M F N I"],
    keys: Float[Tensor, "M K I"],
    values: Float[Tensor, "M I K"],
    past: Past | None,
    heads: int,
) -> tuple[Float[Tensor, "M F N I"], Past]:
    """Attention of the newest F frames over the past and themselves, each over the blocks of frames that it may see.

    Args:
        queries: From `project`, as keys and values: of the newest F of G frames.
        keys: Of the G frames.
        values: Theirs.
        past: Keys and values of the frames before the G new ones.
        heads: Attention heads.

    Returns:
        Their results, and all keys and values.
    """
    frames, tokens, inner = queries.shape[1:]
    if past is not None:
        keys, values = torch.cat([past[0], keys], dim=1), _behind(past[1], values)
    lengths = [keys.shape[1] - (frames - 1 - frame) * tokens for frame in range(frames)]
    if _grouped(tokens, inner, queries, keys, values):
        results = torch.empty_like(queries)
        for frame, length in enumerate(lengths):
            _attend_grouped(queries[:, frame], keys[:, :length], values[..., :length], heads, results[:, frame])
    else:
        found = [_attend_plain(queries[:, f], keys[:, :k], values[..., :k], heads) for f, k in enumerate(lengths)]
        results = found[0][:, None] if frames == 1 else torch.stack(found, dim=1)
    return results, (keys, values)


def _behind(past: Tensor, values: Tensor) -> Tensor:
    """Both, one behind the other, in memory as the new ones."""
    return torch.cat([past, values], dim=-1) if values.stride(-1) == 1 else torch.cat([past.mT, values.mT], dim=1).mT


def _attend_plain(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """``(M, N, I)`` queries over ``(M, L, I)`` keys and ``(M, I, L)`` values."""
    by_head = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (queries, keys, values.mT))
    return functional.scaled_dot_product_attention(*by_head).transpose(1, 2).flatten(-2)


def _attend_grouped(queries: Tensor, keys: Tensor, values: Tensor, heads: int, results: Tensor) -> None:
    """The same with oneDNN's products, as in `wm.linear`: more than twice the rate of those in torch's own attention.

    torch gives batches of fp32 products to MKL. What it gives to oneDNN are convolutions, and one of 1 × 1 places in
    groups is a product for each group, here a head. Tokens are its places, and channels the heads' numbers, one head
    behind the other: so the linear layers before and after have queries and results, and nothing of them is moved.
    """
    (tokens, inner), length = queries.shape[1:], keys.shape[1]
    width, some = inner // heads, min(heads, max(1, SCORES // (tokens * length)))
    for candidate in range(len(queries)):
        by_head = keys[candidate].unflatten(-1, (heads, width)).transpose(0, 1)
        for head in range(0, heads, some):
            at = slice(head * width, (head + some) * width)
            few = by_head[head : head + some]
            scores = _products(queries[candidate, :, at] * width**-0.5, few.reshape(-1, width), len(few))
            weights = scores.unflatten(-1, (len(few), length))
            torch.softmax(weights, -1, out=weights)
            results[candidate, :, at] = _products(scores, values[candidate, at].contiguous(), len(few))


def _products(x: Float[Tensor, "N GX"], weights: Float[Tensor, "GY X"], groups: int) -> Float[Tensor, "N GY"]:
    """``x @ weights.T`` for each of G groups."""
    places = x[None, None].permute(0, 3, 1, 2)
    found = torch.mkldnn_convolution(places, weights[..., None, None], None, [0, 0], [1, 1], [1, 1], groups)
    return found.permute(0, 2, 3, 1)[0, 0]


def _grouped(tokens: int, inner: int, *tensors: Tensor) -> bool:
    """Whether `_attend_grouped` is faster here, and no gradient has to pass."""
    if not AVX512 or tokens < TOKENS or tokens * inner < NUMBERS:
        return False
    if torch.is_grad_enabled() and any(each.requires_grad for each in tensors):
        return False
    return all(each.device.type == "cpu" and each.dtype == torch.float32 and each.numel() > 0 for each in tensors)
