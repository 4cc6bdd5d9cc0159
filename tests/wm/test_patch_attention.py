"""Attention of frames of many tokens: its fast way equals the plain one, and is taken where it should be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from wm import patch_attention
from wm.patch_attention import Past, attend, project

M, N, D = 3, 100, 40

fast_only = pytest.mark.skipif(not patch_attention.AVX512, reason="no AVX-512 here")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def dense(x: Tensor, weight: Tensor, heads: int, frames: int) -> Tensor:
    """All frames at once with a mask, in double precision; results of the newest frames."""
    queries, keys, values = (x.double().flatten(1, 2) @ weight.double().T).unflatten(-1, (3, heads, -1)).unbind(2)
    frame = torch.arange(x.shape[1]).repeat_interleave(x.shape[2])
    scores = torch.einsum("mqhw,mkhw->mhqk", queries, keys) * queries.shape[-1] ** -0.5
    weights = scores.masked_fill(frame[:, None] < frame, -torch.inf).softmax(-1)
    mixed = torch.einsum("mhqk,mkhw->mqhw", weights, values).flatten(-2)
    return mixed.unflatten(1, x.shape[1:3])[:, -frames:]


def step_by_step(x: Tensor, weight: Tensor, heads: int, passes: list[int], newest: bool) -> Tensor:
    """The newest pass's results, its past computed by the passes before it."""
    past: Past | None = None
    for frames in x.split(passes, dim=1):
        mixed, past = attend(*project(frames, weight, newest), past, heads)
    return mixed


def refuse(*_: object) -> NoReturn:
    raise AssertionError("the other way was expected")


@pytest.mark.parametrize("fast", [pytest.param(True, marks=fast_only), False])
@pytest.mark.parametrize(("heads", "width"), [(8, 64), (5, 100)])
@pytest.mark.parametrize("passes", [[1], [1, 1, 1], [3], [2, 2]])
@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("scores", [2**19, 3 * N * N, 1])  # of all heads, of some, of one at a time
def test_both_ways_equal_a_dense_one(
    fast: bool, heads: int, width: int, passes: list[int], newest: bool, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = torch.randn(M, sum(passes), N, D), torch.randn(3 * heads * width, D) * D**-0.5
    monkeypatch.setattr(patch_attention, "AVX512", fast)
    monkeypatch.setattr(patch_attention, "SCORES", scores)
    monkeypatch.setattr(patch_attention, "_attend_plain" if fast else "_attend_grouped", refuse)
    with torch.inference_mode():
        found = step_by_step(x, weight, heads, passes, newest)
    expected = dense(x, weight, heads, 1 if newest else passes[-1])
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


@fast_only
def test_a_past_from_one_way_serves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, heads = torch.randn(M, 3, N, D), torch.randn(3 * 512, D) * D**-0.5, 8
    for ways in [(True, False, True), (False, True, True)]:
        past: Past | None = None
        with torch.inference_mode():
            for frame, way in zip(x.split(1, dim=1), ways, strict=True):
                monkeypatch.setattr(patch_attention, "AVX512", way)
                mixed, past = attend(*project(frame, weight, False), past, heads)
        torch.testing.assert_close(mixed, dense(x, weight, heads, 1).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("of_weight", [False, True])
def test_gradient_passes(of_weight: bool) -> None:
    x, weight = torch.randn(1, 2, N, D), torch.randn(3 * 512, D) * D**-0.5
    learned = (weight if of_weight else x).requires_grad_()
    step_by_step(x, weight, 8, [1, 1], False).square().sum().backward()
    found = learned.grad
    learned.grad = None
    dense(x, weight, 8, 1).square().sum().backward()
    torch.testing.assert_close(found, learned.grad, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "inner"), [(64, 1024), (196, 192)])
def test_small_frames_take_torchs_attention(tokens: int, inner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_attention, "_attend_grouped", refuse)
    x, weight = torch.randn(M, 1, tokens, D), torch.randn(3 * inner, D)
    with torch.inference_mode():
        assert step_by_step(x, weight, 2, [1], False).shape == (M, 1, tokens, inner)
