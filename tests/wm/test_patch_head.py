"""What varies most in every patch."""

import pytest
import torch

from wm.errors import BadInputError
from wm.patch_head import PatchHead, fit_patch_head


def _tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Frames whose patches are mostly empty; where something is, it shows along one direction, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(6, generator=generator)
    direction = direction / direction.norm()
    amount = (torch.rand(50, 16, generator=generator) - 0.7).clamp_min(0) * 10
    noise = 0.02 * torch.randn(50, 16, 6, generator=generator)
    return 3.0 + amount[..., None] * direction + noise, amount


def test_the_first_number_is_what_varies_most_at_unit_scale_and_zero_where_nothing_is():
    tokens, amount = _tokens()
    head = PatchHead(4, 6, 2)
    shares = fit_patch_head(head, tokens)
    state = head(tokens)[..., 0].detach()
    assert shares[0] > 0.99
    assert float(torch.corrcoef(torch.stack([state.flatten(), amount.flatten()]))[0, 1].abs()) > 0.999
    assert float(state.flatten().std()) == pytest.approx(1.0, abs=0.01)
    assert float(state[amount == 0].abs().mean()) < 0.05


def test_numbers_keep_their_proportions():
    tokens, _ = _tokens()
    head = PatchHead(4, 6, 2)
    fit_patch_head(head, tokens)
    first, second = head(tokens).flatten(0, 1).std(0).tolist()
    assert second < 0.1 * first


@pytest.mark.parametrize(
    ("tokens", "width", "message"),
    [
        (torch.full((4, 16, 6), float("nan")), 2, "NaN"),
        (torch.zeros(4, 16, 6), 2, "all are the same"),
        (torch.randn(4, 16, 6), 7, "7 or more numbers, came 6"),
    ],
)
def test_tokens_that_cannot_be_used_are_refused(tokens, width, message):
    with pytest.raises(BadInputError, match=message):
        fit_patch_head(PatchHead(4, 6, width), tokens)


def test_the_read_out_sees_the_tokens_that_the_narrow_ones_stand_for():
    torch.manual_seed(0)
    tokens, _ = _tokens()
    head = PatchHead(4, 6, 2, read_out=3)
    fit_patch_head(head, tokens)
    assert head.widen is not None and head.state is not None
    restored = head.widen(head(tokens))
    centred = (tokens - tokens.mean((0, 1))).flatten(0, 1)
    left = (restored - tokens).square().sum()
    smallest = torch.linalg.svdvals(centred)[2:].square().sum()  # what two components cannot tell
    assert float(left) == pytest.approx(float(smallest), rel=1e-3)
    narrow = head(tokens)
    expected = head.state(restored).detach()
    torch.testing.assert_close(head.read(narrow).detach(), expected)
    torch.testing.assert_close(head.read(narrow.unflatten(0, (5, 10))).detach(), expected.unflatten(0, (5, 10)))


def test_all_components_restore_the_tokens_exactly():
    tokens, _ = _tokens()
    head = PatchHead(4, 6, 6, read_out=3)
    fit_patch_head(head, tokens)
    assert head.widen is not None
    torch.testing.assert_close(head.widen(head(tokens)), tokens, rtol=1e-4, atol=1e-4)


def test_a_head_without_a_read_out_says_so():
    with pytest.raises(BadInputError, match="with a read-out, came one without"):
        PatchHead(4, 6, 2).read(torch.zeros(1, 16, 2))
