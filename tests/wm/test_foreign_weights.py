from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from wm.errors import CheckpointError
from wm.experiments.studies.rival_reference import DinoWM, LeWM, PictureEncoder
from wm.experiments.studies.rival_weights import LEWM, Sizes, dino_wm_state, lewm_state
from wm.foreign_weights import from_dino_wm, from_lewm
from wm.patch_predictor import PatchPredictor
from wm.token_predictor import TokenPredictor

DINO = Sizes(image=9, patch=3, width=12, encoder_depth=1, embedding=4, depth=3, heads=2, head_width=8, hidden=24)
SMALL_LEWM = dataclasses.replace(
    LEWM, image=6, patch=3, width=12, encoder_depth=1, depth=3, heads=2, head_width=8, hidden=24
)


def patch_predictor(sizes: Sizes = DINO, chunk: int = 3) -> PatchPredictor:
    s = sizes
    predictor = PatchPredictor(
        s.patches, s.width, s.proprio_width, s.action_width, s.embedding, s.embedding, s.window, s.depth, s.heads,
        s.head_width, s.hidden, chunk,
    )  # fmt: skip
    return predictor.requires_grad_(False)


def token_predictor(sizes: Sizes = SMALL_LEWM, chunk: int = 3) -> TokenPredictor:
    s = sizes
    predictor = TokenPredictor(
        s.width, s.action_width, 4 * s.width, s.window, s.depth, s.heads, s.head_width, s.hidden, s.hidden, chunk
    )
    return predictor.requires_grad_(False)


def dense_patches(reference: DinoWM, frames: Tensor, past: Tensor, actions: Tensor) -> Tensor:
    """The reference's rollout of every candidate, the whole window computed in each step: ``(B, S, H, N, X)``."""
    rolled = []
    for frame, before, candidates in zip(frames, past, actions, strict=True):
        count = len(candidates)
        whole = torch.cat([before.expand(count, -1, -1), candidates], dim=1)
        rolled.append(reference.imagine(frame.expand(count, -1, -1, -1), whole)[:, len(frame) :])
    return torch.stack(rolled)


def dense_tokens(reference: LeWM, latents: Tensor, past: Tensor, actions: Tensor) -> Tensor:
    """The same with one token per frame: ``(B, S, H, D)``."""
    rolled = []
    for latent, before, candidates in zip(latents, past, actions, strict=True):
        count = len(candidates)
        whole = torch.cat([before.expand(count, -1, -1), candidates], dim=1)
        rolled.append(reference.imagine(latent.expand(count, -1, -1), whole)[:, len(latent) :])
    return torch.stack(rolled)


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize(("batch", "samples"), [(1, 1), (1, 7), (3, 4)])
@pytest.mark.parametrize(("history", "window"), [(1, 2), (2, 2), (1, 3), (2, 3), (3, 3)])
def test_dino_wm_gives_the_same_answer(history: int, window: int, batch: int, samples: int, horizon: int) -> None:
    sizes = dataclasses.replace(DINO, window=window)
    state, predictor = dino_wm_state(sizes, 0), patch_predictor(sizes)
    from_dino_wm(predictor, state)
    torch.manual_seed(1)
    tokens, proprio = torch.randn(batch, history, sizes.patches, sizes.width), torch.randn(batch, history, 4)
    past, actions = torch.randn(batch, history - 1, 10), torch.randn(batch, samples, horizon, 10)
    frames = predictor.frames(tokens, proprio)
    ours = predictor.rollout(predictor.observe(frames, past), actions)
    theirs = dense_patches(DinoWM(state, sizes, PictureEncoder(sizes)), frames, past, actions)
    assert ours.shape == (batch, samples, horizon, sizes.patches, sizes.width + sizes.embedding)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    last = predictor.rollout(predictor.observe(frames, past), actions, last_only=True)
    torch.testing.assert_close(last, ours[:, :, -1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize(("batch", "samples"), [(1, 1), (1, 7), (3, 4)])
@pytest.mark.parametrize("history", [1, 2, 3])
def test_lewm_gives_the_same_answer(horizon: int, batch: int, samples: int, history: int) -> None:
    state, predictor = lewm_state(SMALL_LEWM, 0), token_predictor()
    from_lewm(predictor, state)
    torch.manual_seed(1)
    latents = torch.randn(batch, history, SMALL_LEWM.width)
    past, actions = torch.randn(batch, history - 1, 10), torch.randn(batch, samples, horizon, 10)
    ours = predictor.rollout(predictor.observe(latents[:, :, None], past), actions)[..., 0, :]
    theirs = dense_tokens(LeWM(state, SMALL_LEWM, PictureEncoder(SMALL_LEWM)), latents, past, actions)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_missing_names_are_named() -> None:
    state = dino_wm_state(DINO, 0)
    del state["predictor.transformer.layers.1.0.to_qkv.weight"], state["action_encoder.patch_embed.bias"]
    with pytest.raises(CheckpointError) as error:
        from_dino_wm(patch_predictor(), state, "model.pth")
    assert str(error.value) == (
        "model.pth: expected the weights action_encoder.patch_embed.bias, "
        "predictor.transformer.layers.1.0.to_qkv.weight, they are missing."
    )
    state = lewm_state(SMALL_LEWM, 0)
    del state["pred_proj.net.1.running_var"]
    with pytest.raises(
        CheckpointError, match=r"LeWM's weights: expected the weights pred_proj\.net\.1\.running_var, they"
    ):
        from_lewm(token_predictor(), state)


def test_other_sizes_and_broken_numbers_are_refused() -> None:
    other = dataclasses.replace(DINO, image=6)
    with pytest.raises(CheckpointError, match="misshapen .*positions"):
        from_dino_wm(patch_predictor(), dino_wm_state(other, 0))
    state = dino_wm_state(DINO, 0)
    state["predictor.transformer.norm.bias"][0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN or infinity in norm.bias"):
        from_dino_wm(patch_predictor(), state)
    state = lewm_state(SMALL_LEWM, 0) | {"predictor.transformer.input_proj.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"tokens' width, it has predictor\.transformer\.input_proj\.weight"):
        from_lewm(token_predictor(), state)
