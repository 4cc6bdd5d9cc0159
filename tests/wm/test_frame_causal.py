"""What both sizes of frame-causal predictors promise; that they equal a dense one is in test_foreign_weights.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wm import patch_predictor, token_predictor
from wm.errors import BadInputError
from wm.frame_causal import FramePredictor, Observed
from wm.linear import linear
from wm.patch_predictor import PatchPredictor
from wm.token_predictor import TokenPredictor

B, S, H, A = 2, 5, 5, 3


def patches(chunk: int = 4) -> PatchPredictor:
    torch.manual_seed(0)
    return PatchPredictor(4, 8, 2, A, 3, 3, window=3, depth=2, heads=2, head_width=4, hidden=16, chunk=chunk)


def token(chunk: int = 4) -> TokenPredictor:
    torch.manual_seed(0)
    return TokenPredictor(8, A, 16, window=3, depth=2, heads=2, head_width=4, hidden=16, out_hidden=16, chunk=chunk)


BOTH = pytest.mark.parametrize("make", [patches, token])


def scene(predictor: FramePredictor, history: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, past actions and candidates."""
    torch.manual_seed(1)
    width = 11 if isinstance(predictor, PatchPredictor) else 8
    frames = torch.randn(B, history, predictor.tokens, width)
    return frames, torch.randn(B, history - 1, A), torch.randn(B, S, H, A)


class Counting:
    """Notes the frames of every pass through the layers: candidates, new frames, frames of the past."""

    def __init__(self, predictor: FramePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes = list[tuple[int, int, int]]()
        advance = predictor.advance

        def counted(frames: Tensor, conditions: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            before = past[0].shape[1] // predictor.tokens if past else 0
            self.passes.append((frames.shape[0], frames.shape[1], before))
            return advance(frames, conditions, past)

        monkeypatch.setattr(predictor, "advance", counted)


@BOTH
@pytest.mark.parametrize(
    ("history", "shared", "steps"),
    [
        (1, [], [(1, 0), (1, 1), (1, 2), (3, 0), (3, 0)]),
        (2, [(1, 0)], [(1, 1), (1, 2), (3, 0), (3, 0), (3, 0)]),
        (3, [(2, 0), (1, 0)], [(1, 2), (2, 1), (3, 0), (3, 0), (3, 0)]),
    ],
)
def test_shared_frames_are_computed_once_per_observation(
    make: Callable[[], FramePredictor],
    history: int,
    shared: list[tuple[int, int]],
    steps: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = make()
    counting = Counting(predictor, monkeypatch)
    frames, past, actions = scene(predictor, history)
    with torch.inference_mode():
        observed = predictor.observe(frames, past)
        assert counting.passes == [(B, *each) for each in shared]  # at the batch of observations, not of candidates
        for _ in range(3):  # iterations of a solver
            counting.passes.clear()
            predictor.rollout(observed, actions)
            rows = (4, 3, 3)  # B * S = 10 candidates, at most 4 at a time
            assert counting.passes == [(count, *each) for count in rows for each in steps]


@BOTH
def test_of_the_last_layer_only_the_newest_frame_is_computed(
    make: Callable[[], FramePredictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, rows = make(), dict[int, int]()

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
        rows[weight.data_ptr()] = rows.get(weight.data_ptr(), 0) + x[..., 0].numel()
        return linear(x, weight, bias, gelu)

    for module in (patch_predictor, token_predictor):
        monkeypatch.setattr(module, "linear", counted)
    frames, past, actions = scene(predictor, 1)
    with torch.inference_mode():
        predictor.rollout(predictor.observe(frames, past), actions)
    first, last = (block.widen.weight.data_ptr() for block in predictor.get_submodule("blocks").children())
    assert rows[first] == B * S * predictor.tokens * (1 + 1 + 1 + 3 + 3)
    assert rows[last] == B * S * predictor.tokens * H


@BOTH
@pytest.mark.parametrize("history", [1, 3])
def test_chunks_candidates_and_problems_do_not_disturb_each_other(
    make: Callable[[int], FramePredictor], history: int
) -> None:
    frames, past, actions = scene(make(1), history)
    with torch.inference_mode():
        whole, pieces = make(100), make(3)
        one, other = (each.rollout(each.observe(frames, past), actions) for each in (whole, pieces))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        alone = whole.rollout(whole.observe(frames[1:], past[1:]), actions[1:, 2:3])
        torch.testing.assert_close(alone, one[1:, 2:3], atol=1e-5, rtol=1e-5)
        changed = actions.clone()
        changed[1, 2, 3:] += 1.0
        difference = (whole.rollout(whole.observe(frames, past), changed) - one).abs().amax((-1, -2))
        assert difference[1, 2, 3:].min() > 1e-4
        difference[1, 2, 3:] = 0
        assert difference.max() < 1e-5


@BOTH
@pytest.mark.parametrize("history", [1, 2])
def test_gradient_reaches_every_action_and_changes_nothing(make: Callable[[], FramePredictor], history: int) -> None:
    predictor = make()
    frames, past, actions = scene(predictor, history)
    with torch.inference_mode():
        expected = predictor.rollout(predictor.observe(frames, past), actions)
    actions.requires_grad_()
    rolled = predictor.rollout(predictor.observe(frames, past), actions)
    torch.testing.assert_close(rolled, expected, atol=1e-5, rtol=1e-5)
    rolled[:, :, -3:].square().sum().backward()
    assert actions.grad is not None and (actions.grad.abs().amax(-1) > 0).all()


def test_gradient_equals_finite_differences() -> None:
    predictor = token().double()
    frames, past, actions = (each.double() for each in scene(predictor, 2))
    observed = predictor.observe(frames, past)
    observed = Observed(observed.last.detach(), tuple([x.detach() for x in each] for each in observed.earlier))
    predictor.requires_grad_(False)
    some = actions[:, :1, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: predictor.rollout(observed, a, last_only=True), some)


@BOTH
def test_wrong_sizes_are_refused(make: Callable[[], FramePredictor]) -> None:
    predictor = make()
    frames, past, actions = scene(predictor, 3)
    longer = torch.cat([frames, frames[:, :1]], dim=1)
    with pytest.raises(BadInputError, match=r"^history: expected 1 to 3 frames, came 4\.$"):
        predictor.observe(longer, torch.zeros(B, 3, A))
    with pytest.raises(BadInputError, match=r"^history: expected 1 to 3 frames, came 0\.$"):
        predictor.observe(frames[:, :0], past)
    with pytest.raises(BadInputError, match=r"^past actions: expected 2 between 3 frames, came 1\.$"):
        predictor.observe(frames, past[:, 1:])
    with pytest.raises(BadInputError, match=rf"^tokens of a frame: expected {predictor.tokens}, came "):
        predictor.observe(torch.cat([frames, frames], dim=2), past)
    with pytest.raises(BadInputError, match=r"^actions: expected 2 observations' candidates, came 1's\.$"):
        predictor.rollout(predictor.observe(frames, past), actions[:1])


def test_frames_of_patches_hold_tokens_and_proprioception() -> None:
    predictor = patches()
    tokens, proprio = torch.randn(B, 2, 4, 8), torch.randn(B, 2, 2)
    seen, embedded = predictor.split(predictor.frames(tokens, proprio))
    assert torch.equal(seen, tokens)
    torch.testing.assert_close(embedded, predictor.embed_proprio(proprio))
    observed = predictor.observe_frames(tokens, proprio, torch.randn(B, 1, A))
    assert observed.frames == 2 and torch.equal(observed.last[..., :8], tokens[:, -1])
