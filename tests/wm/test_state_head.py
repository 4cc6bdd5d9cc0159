from __future__ import annotations

import torch
from torch import Tensor

from wm.state_head import StateHead

GRID, WIDTH = 4, 6


def make() -> StateHead:
    torch.manual_seed(0)
    head = StateHead(GRID, WIDTH, tokens=3, width=5)
    head.channel_mean.copy_(torch.randn(WIDTH))
    head.channel_std.copy_(torch.rand(WIDTH) + 0.5)
    return head.requires_grad_(False)


def frames(count: int = 7) -> Tensor:
    return torch.randn(count, GRID * GRID, WIDTH, generator=torch.Generator().manual_seed(1))


def test_shape_and_independence_of_frames() -> None:
    head, tokens = make(), frames()
    states = head(tokens)
    assert states.shape == (7, 3, 5)
    torch.testing.assert_close(head(tokens[4:5])[0], states[4])


def test_features_are_the_standardised_tokens_and_their_mean_products() -> None:
    head, tokens = make(), frames(2)
    places, products = head.features(tokens)
    standard = (tokens - head.channel_mean) / head.channel_std
    torch.testing.assert_close(places, standard.flatten(1))
    expected = [(standard[:, :, i] * standard[:, :, j]).mean(1) for i in range(WIDTH) for j in range(i, WIDTH)]
    torch.testing.assert_close(products, torch.stack(expected, 1))


def test_products_do_not_see_where_a_token_is_and_places_do() -> None:
    head, tokens = make(), frames(3)
    moved = tokens[:, torch.randperm(GRID * GRID, generator=torch.Generator().manual_seed(2))]
    before, after = head.features(tokens), head.features(moved)
    torch.testing.assert_close(after[1], before[1])
    assert (after[0] - before[0]).abs().max() > 0.1


def test_states_are_linear_in_the_tokens_and_in_their_products() -> None:
    """With only the places, a state is affine in the tokens; with only the products, it is even and of degree two."""
    head, one, other = make(), frames(2)[:1], frames(2)[1:]
    products = head.products.weight.clone()
    head.products.weight.zero_()
    torch.testing.assert_close(head(0.3 * one + 0.7 * other), 0.3 * head(one) + 0.7 * head(other))
    head.products.weight.copy_(products)
    head.places.weight.zero_()
    head.places.bias.zero_()
    centre = head.channel_mean
    torch.testing.assert_close(head(centre - (one - centre)), head(one))
    torch.testing.assert_close(head(centre + 3 * (one - centre)), 9 * head(one), rtol=1e-4, atol=1e-5)


def test_what_fitting_sets_travels_with_the_weights() -> None:
    names = {"channel_mean", "channel_std", "places.weight", "places.bias", "products.weight"}
    assert set(make().state_dict()) == names
    other = StateHead(GRID, WIDTH, tokens=3, width=5)
    other.load_state_dict(make().state_dict())
    assert torch.equal(other(frames()), make()(frames()))
