from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.errors import BadInputError
from wm.probe import LinearProbe
from wm.slow_features import STEP, Pairs, SlowFeatures, _Basis, draw_pairs, fit_state_head, rescale_state_head
from wm.state_head import StateHead

GRID, WIDTH, COMPONENTS = 3, 4, 20
MEMORY = torch.tensor([0.99, 0.95, 0.0, 0.1, -0.2, 0.3])
"""Correlation of each source with itself one step later: two slow ones that move the tokens, then fast ones."""
HIDDEN = 0.97
"""That of a third slow one, which is only in the tokens' products."""


def world(count: int = 6000, seed: int = 0) -> tuple[Pairs, Tensor]:
    """Pairs of frames whose tokens mix slow and fast sources, and the three slow ones ``(M, 3)`` of the first frames.

    A source moves all tokens along a pattern of its own. The last one is the strength of a pattern whose sign is drawn
    anew in every frame: no linear function of the tokens knows it. All channels are mixed at last. Proprioception is
    the first slow source and noise.
    """
    patterns = torch.Generator().manual_seed(100)
    places = torch.randn(len(MEMORY), GRID * GRID, WIDTH - 1, generator=patterns)
    flicker = torch.randn(GRID * GRID, 1, generator=patterns).sign()
    mix, offset = torch.randn(WIDTH, WIDTH, generator=patterns), 5 * torch.randn(WIDTH, generator=patterns)
    draw = torch.Generator().manual_seed(seed)
    memory = torch.cat([MEMORY, torch.tensor([HIDDEN])])
    now = torch.randn(count, len(memory), generator=draw)
    later = memory * now + (1 - memory**2).sqrt() * torch.randn(count, len(memory), generator=draw)

    def seen(sources: Tensor) -> Tensor:
        strength = (2 + 0.6 * sources[:, -1].clamp(-3, 3)).sqrt() * torch.randn(count, generator=draw).sign()
        linear = torch.einsum("ms,snd->mnd", sources[:, :-1], places)
        tokens = torch.cat([linear, 2 * strength[:, None, None] * flicker], dim=-1)
        return (tokens + 0.05 * torch.randn(tokens.shape, generator=draw)) @ mix + offset

    proprio = torch.stack([now[:, 0], torch.randn(count, generator=draw)], 1)
    return Pairs(seen(now), seen(later), proprio), now[:, [0, -1, 1]]


def fitted(pairs: Pairs, width: int = 5) -> tuple[StateHead, SlowFeatures]:
    head = StateHead(GRID, WIDTH, 1, width + (0 if pairs.proprio is None else pairs.proprio.shape[1]))
    return head, fit_state_head(head, pairs, COMPONENTS)


@torch.no_grad()
def states(head: StateHead, tokens: Tensor) -> Tensor:
    return head(tokens).flatten(1)


def aligned(found: Tensor, wanted: Tensor) -> Tensor:
    """A slow feature's sign is arbitrary."""
    return found * (found * wanted).sum(0).sign()


def correlation(rows: Tensor) -> Tensor:
    return torch.corrcoef(rows.T)


def test_the_slowest_features_are_the_slow_sources() -> None:
    head, _ = fitted(replace(world()[0], proprio=None))
    fresh, sources = world(seed=1)
    found = states(head, fresh.now)
    assert abs(correlation(torch.stack([found[:, 0], sources[:, 0]], 1))[0, 1]) > 0.95
    score, _ = LinearProbe(found, sources).score(found, sources)
    assert min(score) > 0.9


def test_what_no_linear_function_of_the_tokens_knows_is_found_in_their_products() -> None:
    head, _ = fitted(replace(world()[0], proprio=None))
    fresh, sources = world(seed=1)
    linear = LinearProbe(fresh.now.flatten(1), sources[:, 1:2]).score(fresh.now.flatten(1), sources[:, 1:2])[0][0]
    found = states(head, fresh.now)
    assert linear < 0.05 and LinearProbe(found, sources[:, 1:2]).score(found, sources[:, 1:2])[0][0] > 0.9


def test_features_are_uncorrelated_and_change_equally_slowest_first() -> None:
    pairs, _ = world()
    head, found = fitted(replace(pairs, proprio=None))
    now, later = states(head, pairs.now), states(head, pairs.later)
    assert (correlation(now) - torch.eye(5)).abs().max() < 0.03
    torch.testing.assert_close((later - now).square().mean(0).sqrt(), torch.full((5,), STEP), rtol=1e-3, atol=0)
    assert len(found.slowness) == 5 and found.slowness == sorted(found.slowness) and found.visible == []
    assert found.slowness[0] == pytest.approx(2 * (1 - 0.99), rel=0.2)
    assert (STEP / now.std(0)).square().tolist() == pytest.approx(found.slowness, rel=0.01)


def test_slow_features_of_fresh_frames_are_as_slow() -> None:
    head, found = fitted(replace(world()[0], proprio=None))
    fresh, _ = world(seed=1)
    now, later = states(head, fresh.now), states(head, fresh.later)
    slowness = (later - now).square().mean(0) / now.var(0)
    assert slowness[:3].tolist() == pytest.approx(found.slowness[:3], rel=0.25)


def test_proprioception_is_read_out_where_the_picture_tells_it() -> None:
    pairs, _ = world()
    head, found = fitted(pairs)
    fresh, _ = world(seed=1)
    assert fresh.proprio is not None
    read = states(head, fresh.now)[:, -2:]
    assert (read[:, 0] - fresh.proprio[:, 0]).square().mean() < 0.05
    assert (read[:, 1] == 0).all()
    assert found.visible[0] > 0.95 and abs(found.visible[1]) < 0.1
    alone, _ = fitted(replace(pairs, proprio=None))
    torch.testing.assert_close(states(head, fresh.now)[:, :5], states(alone, fresh.now), rtol=1e-4, atol=1e-4)


def test_proprioception_that_never_changes_does_no_harm() -> None:
    pairs, _ = world()
    head, found = fitted(replace(pairs, proprio=torch.zeros(6000, 1)))
    assert (states(head, pairs.now)[:, -1] == 0).all() and np.isfinite(found.visible).all()


def test_the_heads_layers_are_basis_and_maps_folded() -> None:
    pairs, _ = world(500)
    head = StateHead(GRID, WIDTH, 1, 7)
    with torch.no_grad():
        head.channel_mean.copy_(pairs.now.mean((0, 1)))
        head.channel_std.copy_(pairs.now.std((0, 1)))
        basis = _Basis.of(head, pairs.now, 12)
        maps = torch.randn(12 + 10, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        basis.install(head, maps)
        by_hand = (basis(head, pairs.later) @ maps).float()
    torch.testing.assert_close(states(head, pairs.later), by_hand, rtol=1e-3, atol=1e-3)


def test_basis_is_standardised_on_its_own_frames() -> None:
    pairs, _ = world(500)
    head = StateHead(GRID, WIDTH, 1, 7)
    with torch.no_grad():
        rows = _Basis.of(head, pairs.now, 12)(head, pairs.now)
    assert rows.shape == (500, 22)
    assert rows.mean(0).abs().max() < 1e-3 and (rows.std(0) - 1).abs().max() < 1e-3


def test_the_same_pairs_give_the_same_head_and_chance_is_left_alone() -> None:
    pairs, _ = world(2000)
    heads = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        head = StateHead(GRID, WIDTH, 1, 7)
        before = torch.get_rng_state()
        fit_state_head(head, pairs, COMPONENTS)
        assert torch.equal(torch.get_rng_state(), before)
        heads.append(head.state_dict())
    assert all(torch.equal(value, heads[1][name]) for name, value in heads[0].items())


def test_channels_may_have_any_unit_and_offset() -> None:
    pairs, _ = world()
    scale, shift = torch.tensor([100.0, 0.2, -3.0, 1.0]), torch.tensor([-40.0, 3.0, 0.0, 1.0])
    changed = Pairs(pairs.now * scale + shift, pairs.later * scale + shift, None)
    (one, _), (other, _) = fitted(replace(pairs, proprio=None)), fitted(changed)
    wanted, found = states(one, pairs.now)[:, :3], states(other, changed.now)[:, :3]
    torch.testing.assert_close(aligned(found, wanted), wanted, rtol=0, atol=0.02)


def test_a_bfloat16_table_gives_the_same_features() -> None:
    pairs, _ = world()
    rough = Pairs(pairs.now.to(torch.bfloat16), pairs.later.to(torch.bfloat16), None)
    (one, _), (other, _) = fitted(replace(pairs, proprio=None)), fitted(rough)
    wanted, found = states(one, pairs.now)[:, :3], states(other, rough.now.float())[:, :3]
    both = correlation(torch.cat([wanted, found], 1))[:3, 3:]
    assert both.diagonal().abs().min() > 0.98


def test_pairs_are_rows_of_the_tables() -> None:
    tokens, proprio = torch.arange(10.0)[:, None, None].expand(10, 9, 4), -torch.arange(10.0)[:, None]
    pairs = draw_pairs(np.array([[0, 5], [3, 8], [3, 8]]), tokens, proprio)
    assert pairs.now[:, 0, 0].tolist() == [0, 3, 3] and pairs.later[:, 8, 3].tolist() == [5, 8, 8]
    assert pairs.proprio is not None and pairs.proprio.flatten().tolist() == [0, -3, -3]
    assert draw_pairs(np.array([[0, 5]]), tokens, None).proprio is None


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(
        BadInputError,
        match=r"expected at least 60 pairs of frames one latent step apart \(2 for each of 30 features\), came 59\.",
    ):
        fitted(world(59)[0])
    fitted(world(60)[0])


@pytest.mark.parametrize(
    ("field", "name", "spoil"),
    [
        ("now", "tokens", lambda v: v[5, 3, :].fill_(torch.nan)),
        ("later", "later tokens", lambda v: v[5, 3, :].fill_(torch.inf)),
        ("proprio", "proprioception", lambda v: v[7].fill_(-torch.inf)),
    ],
)
def test_non_finite_numbers_are_refused_and_the_head_is_left_alone(
    field: str, name: str, spoil: Callable[[Tensor], Any]
) -> None:
    pairs, head = world(500)[0], StateHead(GRID, WIDTH, 1, 7)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    spoil(getattr(pairs, field))
    with pytest.raises(BadInputError, match=rf"expected finite {name}, came NaN or infinity in numbers \[0, 1"):
        fit_state_head(head, pairs, COMPONENTS)
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())


@pytest.mark.parametrize("width", [2, 33])
def test_a_head_of_unusable_width_is_refused(width: int) -> None:
    with pytest.raises(BadInputError, match=f"expected 3 to 32 numbers, 2 of them proprioception, came {width}"):
        fit_state_head(StateHead(GRID, WIDTH, 1, width), world(500)[0], COMPONENTS)


def test_a_log_in_which_nothing_happens_is_refused() -> None:
    pairs, _ = world(500)
    with pytest.raises(BadInputError, match="expected frames that change .*; 5 of 5 features never do"):
        fitted(Pairs(pairs.now, pairs.now, None))


def mixed(pairs: Pairs, width: int = 5) -> StateHead:
    """A fitted head whose numbers were mixed at random since, as training does."""
    head, _ = fitted(replace(pairs, proprio=None), width)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(7)) + 2 * torch.eye(width)
    with torch.no_grad():
        head.places.weight.copy_(mix @ head.places.weight)
        head.places.bias.copy_(mix @ head.places.bias + 3.0)
        head.products.weight.copy_(mix @ head.products.weight)
    return head


def test_a_learned_head_is_turned_back_into_slow_features() -> None:
    pairs, _ = world()
    reference, found = fitted(replace(pairs, proprio=None))
    head = mixed(pairs)
    again = rescale_state_head(head, replace(pairs, proprio=None), ridge=1e-9)
    now, wanted = states(head, pairs.now), states(reference, pairs.now)
    error = (aligned(now, wanted) - (wanted - wanted.mean(0))).square().mean(0) / wanted.var(0)
    assert error.max() < 0.01 and now.mean(0).abs().max() < 1e-3
    assert again.slowness == pytest.approx(found.slowness, rel=0.01)


def test_a_learned_heads_last_numbers_become_the_read_out() -> None:
    pairs, _ = world()
    head = mixed(pairs)
    before = states(head, pairs.now)
    found = rescale_state_head(head, pairs)
    now, fresh = states(head, pairs.now), world(seed=1)[0]
    assert fresh.proprio is not None and len(found.slowness) == 3 and now.shape == (6000, 5)
    assert (states(head, fresh.now)[:, 3] - fresh.proprio[:, 0]).square().mean() < 0.05 and (now[:, 4] == 0).all()
    assert min(LinearProbe(before, now[:, :4]).score(before, now[:, :4])[0]) > 0.999  # a linear map of what it saw
    torch.testing.assert_close(
        (states(head, pairs.later) - now)[:, :3].square().mean(0).sqrt(), torch.full((3,), STEP), rtol=1e-3, atol=0
    )


def test_a_learned_head_without_room_for_a_slow_feature_is_refused() -> None:
    pairs, _ = world(100)
    with pytest.raises(BadInputError, match="expected more than 2 numbers, 2 of them proprioception, came 2"):
        rescale_state_head(StateHead(GRID, WIDTH, 1, 2), pairs)
