"""Training a world model on a frozen encoder.

Three phases. *Head*: what of a frame is state is found in closed form (`wm.slow_features`, `wm.patch_head`) on the
tokens of some episodes, and then frozen. *Predictor*: every frame's state is computed once, and the predictor learns by
a multi-step rollout loss on logged windows of all of them. *Proposal*: see `wm.proposal`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wm.adversarial import deviations, perturbed, require_radius
from wm.checkpoint import load_tensors, load_weights, save_tensors
from wm.encoders.base import Encoder
from wm.fit import FitConfig, fast_bf16, fit
from wm.joint import JointModel
from wm.logs import LogWindows, draw_states
from wm.losses import rollout_loss
from wm.patch_head import PatchHead, fit_patch_head
from wm.rollout import rollout
from wm.slow_features import SlowFeatures, draw_pairs, fit_state_head, rescale_state_head
from wm.specs import PatchSizes
from wm.state_head import StateHead

PATCH_FRAMES = 4000
"""Frames that a patch head is fitted to."""

PROPRIO_WEIGHT = 0.01
"""Of the error of the read-out of proprioception, a mean over its numbers, beside the mean over a field of tokens: of
thousands of numbers, most of which change little, it would otherwise not be noticed."""


@dataclass(frozen=True)
class TrainConfig:
    """Sizes and schedule of a world model.

    Attributes:
        form: See `wm.specs.ModelSpec`.
        frameskip: F, control steps per latent step.
        history: Context frames.
        horizon: Latent steps of the rollout loss.
        tokens: N of the state head; where the form has a token per patch, that is how many.
        width: D of the state head, the read-out of proprioception not counted; in the patch form at most the
            encoder's.
        hidden: Width of the predictor.
        depth: Residual blocks of the predictor, or its layers.
        episodes: The first of the log's only; all when None.
        head_episodes: Episodes whose tokens are cached for fitting the state head.
        pairs: Pairs of frames that it is fitted to.
        components: Principal components of the tokens that it may use.
        proposals: Action sequences that the proposal gives.
        predictor: Schedule of the predictor.
        proposal: Schedule of the proposal.
        patch: More sizes of the patch form; None in the others.
        adversarial: Radius within which the predictor's inputs are moved to where it errs (`wm.adversarial`), standard
            deviations; a small one, e.g. 0.05; 0: without. Of the compact form only.
    """

    form: str = "compact"
    frameskip: int = 5
    history: int = 2
    horizon: int = 5
    tokens: int = 1
    width: int = 32
    hidden: int = 384
    depth: int = 3
    proposals: int = 16
    episodes: int | None = None
    head_episodes: int = 2500
    pairs: int = 40_000
    components: int = 500
    predictor: FitConfig = field(default_factory=lambda: FitConfig(steps=10_000, batch=512, weight_decay=1e-5))
    proposal: FitConfig = field(default_factory=lambda: FitConfig(steps=6000, batch=512))
    patch: PatchSizes | None = None
    adversarial: float = 0.0


def strokes_config() -> TrainConfig:
    """What suits a world of strokes (`wm.stroke_predictor`)."""
    return TrainConfig(
        form="strokes", frameskip=1, history=1, horizon=2, width=1, hidden=256, depth=2, proposals=0,
        predictor=FitConfig(steps=8000, batch=192),
    )  # fmt: skip


def patch_config() -> TrainConfig:
    """The patch form (`wm.patch_dynamics`) in sizes that a laptop's processor can plan with."""
    return TrainConfig(
        form="patch", history=3, width=48, depth=4, head_episodes=250, patch=PatchSizes(read_out=32),
        predictor=FitConfig(steps=6000, batch=16), proposal=FitConfig(steps=6000, batch=256),
    )  # fmt: skip


READ_OUT_WEIGHT = 0.1
"""Of the error of the patch form's read-out beside that of its tokens, which are small; both then count about alike."""


def train_patch_head(
    head: PatchHead, windows: LogWindows, config: TrainConfig, out: Path, learned: StateHead | None = None
) -> list[float] | None:
    """Phase one in a form with a token per patch: what varies most, in closed form; files and errors as `train_head`.

    Args:
        head: Fitted in place, its read-out included where it has one.
        windows: Of encoder tokens.
        config: How many pairs and components the read-out is fitted to.
        out: Run folder.
        learned: A head of the read-out's size that was trained with the encoder (`wm.refine`): it becomes the read-out,
            turned and rescaled. None: the read-out is found in closed form.

    Returns:
        Share of the tokens' variance of each number; None where the head was there already.
    """
    path = out / "head.safetensors"
    if path.exists():
        load_weights(head, load_tensors(path)[0], path)
        return None
    rng = np.random.default_rng(config.predictor.seed)
    episodes, starts = windows.sampler.sample(rng, PATCH_FRAMES)
    rows = torch.from_numpy(windows.sampler.observation_index(episodes, starts)[:, 0])
    shares = fit_patch_head(head, torch.as_tensor(windows.log.observations)[rows].float())
    if head.state is not None:
        if learned is not None:
            head.state.load_state_dict(learned.state_dict())
        _find_state(head.state, windows, config, learned is not None)
    save_tensors(path, dict(head.state_dict()), {"shares": shares})
    return shares


def train_head(
    head: StateHead, windows: LogWindows, config: TrainConfig, out: Path, learned: bool = False
) -> SlowFeatures | None:
    """Phase one: what is state, in closed form, from cached encoder tokens ``(O, Ne, De)``.

    Args:
        head: Fitted in place.
        windows: Of encoder tokens.
        config: How many pairs and components.
        out: Run folder.
        learned: The head was trained with its encoder (`wm.refine`): it is only turned and rescaled.

    Returns:
        What was found, also written to `<out>/head.safetensors`; None where that exists and is read back instead.

    Raises:
        BadInputError: too few pairs for the components, or a broken log (`wm.slow_features.fit_state_head`).
        CheckpointError: a head that was found is unreadable or of other sizes.
    """
    path = out / "head.safetensors"
    if path.exists():
        load_weights(head, load_tensors(path)[0], path)
        return None
    found = _find_state(head, windows, config, learned)
    save_tensors(path, dict(head.state_dict()), {"slowness": found.slowness, "visible": found.visible})
    return found


def _find_state(head: StateHead, windows: LogWindows, config: TrainConfig, learned: bool) -> SlowFeatures:
    """`train_head` without its file."""
    episodes, starts = windows.sampler.sample(np.random.default_rng(config.predictor.seed), config.pairs)
    rows = windows.sampler.observation_index(episodes, starts)[:, :2]
    proprio = None
    if windows.log.proprio is not None and windows.proprio_moments is not None:
        proprio = windows.proprio_moments.normalise(torch.from_numpy(windows.log.proprio))
    pairs = draw_pairs(rows, torch.as_tensor(windows.log.observations), proprio)
    return rescale_state_head(head, pairs) if learned else fit_state_head(head, pairs, config.components)


@torch.inference_mode()
def states_of(encoder: Encoder, head: StateHead | PatchHead, frames: UInt8[Tensor, "n H W 3"]) -> Float[Tensor, "n X"]:
    """States of frames, flattened (X = N * D)."""
    return head(encoder.encode(frames[None])[0]).flatten(1)


def train_predictor(joint: JointModel[Any], windows: LogWindows, config: TrainConfig, out: Path) -> None:
    """Phase two: the predictor alone, on windows of states ``(O, N * D)`` from the frozen head.

    With `TrainConfig.adversarial` the log's ``share_of_copy`` is that of the inputs that were moved.

    Raises:
        BadInputError: `TrainConfig.adversarial` is out of its range, or not 0 in another form than the compact one; or
            the loss became non-finite.
    """
    require_radius(config.adversarial, config.form)
    scales = deviations(windows) if config.adversarial > 0 else None
    predictor: nn.Module = joint.predictor
    history = config.history

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        states, actions = draw_states(windows, history, rng, config.predictor.batch)
        context, ahead = states[:, :history], actions[:, history - 1 :]
        target, last = states[:, history:], states[:, history - 1 : history]

        def error(context: Tensor, ahead: Tensor) -> Tensor:
            return rollout_error(joint, context, ahead, target)

        if scales is not None:
            context, ahead = perturbed(error, context, ahead, config.adversarial, scales)
        value = error(context, ahead)
        with torch.no_grad():
            copy = prediction_error(joint.head, last.expand_as(target), target)
        return value, {"share_of_copy": value.detach() / copy}

    fit(predictor, loss, config.predictor, out, "predictor")


def rollout_error(
    joint: JointModel[Any],
    context: Float[Tensor, "B T X"],
    ahead: Float[Tensor, "B H A"],
    target: Float[Tensor, "B H X"],
) -> Float[Tensor, ""]:
    """`prediction_error` of the rollout from a context, in bfloat16 where this processor is faster at it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        imagined = rollout(joint.predictor, context, ahead[:, None])[:, 0].float()
    return prediction_error(joint.head, imagined, target)


def prediction_error(
    head: nn.Module, imagined: Float[Tensor, "B H X"], target: Float[Tensor, "B H X"]
) -> Float[Tensor, ""]:
    """Mean squared error of imagined state vectors; of a field of tokens see `field_weights`, and of its read-out."""
    if not isinstance(head, PatchHead):
        return rollout_loss(imagined, target, torch.ones(target.shape[-1]))
    shape, latent = (head.tokens, head.width), head.tokens * head.width
    value = rollout_loss(imagined, target, field_weights(latent, target.shape[-1]))
    if head.state is None:
        return value
    seen, wanted = (head.read(each[..., :latent].unflatten(-1, shape)) for each in (imagined, target))
    return value + READ_OUT_WEIGHT * (seen - wanted).square().mean()


def field_weights(latent: int, width: int) -> Float[Tensor, " X"]:
    """Weights of a state vector's numbers whose mean is that of the latent's errors, plus `PROPRIO_WEIGHT` of the rest.

    Args:
        latent: N * D, the first numbers.
        width: X, all of them.
    """
    weights, rest = torch.full((width,), width / latent), width - latent
    weights[latent:] = PROPRIO_WEIGHT * width / max(1, rest)
    return weights
