"""Refining an encoder: the state that was found is made predictable, and the encoder learns to see it.

Slow features (`wm.slow_features`) are a linear look at an encoder that was trained for something else: they know where
the block is, but the pusher's place and the pixel grid leak into them as an error that changes from frame to frame.
Encoder, head and predictor are now trained together so that each state foretells the next ones, both ends of the
prediction carrying gradients, while an anchor holds every frame's state near what it was. Without the anchor this
collapses (everything is predictable where nothing changes); with it what cannot be predicted, the error, is what gives
way. It is the maximum a posteriori smoother of a noisy reading under learned dynamics, amortised into the encoder; as a
joint embedding, it is prediction with a fixed teacher (data2vec, Baevski et al. 2022, arXiv 2202.03555).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wm.encoders.base import Encoder, normalise
from wm.fit import FitConfig, fast_bf16, fit
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.losses import rollout_loss
from wm.rollout import rollout
from wm.state_head import StateHead


@dataclass(frozen=True)
class RefineConfig:
    """How far the states may move, and for how long.

    Attributes:
        anchor: Weight of the mean squared distance to the states that were found, beside the rollout loss.
        horizon: Latent steps of the rollout loss.
        schedule: Of encoder, head and predictor together.
    """

    anchor: float = 0.1
    horizon: int = 3
    schedule: FitConfig = field(default_factory=lambda: FitConfig(steps=3000, batch=64, warmup=100))


class _Refining(nn.Module):
    def __init__(self, encoder: Encoder, joint: JointModel[StateHead]) -> None:
        super().__init__()
        self.encoder, self.joint = encoder, joint


def refine(
    encoder: Encoder, joint: JointModel[StateHead], windows: LogWindows, states: Tensor, config: RefineConfig, out: Path
) -> None:
    """Train `encoder`, and `joint` on it, in place; progress, log and checkpoints as `wm.fit.fit`.

    Args:
        encoder: Pretrained.
        joint: A head that was fitted to this encoder and a predictor that was trained on its states.
        windows: Frames ``(O, H, W, 3)``, ``history + config.horizon`` per window.
        states: ``(O, N * D)`` the head's states of these frames: the anchors.
        config: The objective and its schedule.
        out: Run folder.
    """
    module = _Refining(encoder, joint)
    module.requires_grad_(True)
    bf16, history, latent = fast_bf16(), joint.predictor.history, states.shape[1]

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        episodes, starts = windows.sampler.sample(rng, config.schedule.batch)
        batch = windows.cut(episodes, starts)
        anchors = states[torch.from_numpy(windows.sampler.observation_index(episodes, starts))]
        n, t = batch.observations.shape[:2]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            tokens = module.encoder(normalise(batch.observations.flatten(0, 1)))
        vectors = module.joint.state_vectors(tokens.float().unflatten(0, (n, t)), batch.proprio)
        imagined = rollout(module.joint.predictor, vectors[:, :history], batch.actions[:, None, history - 1 :])[:, 0]
        target = vectors[:, history:]
        prediction = rollout_loss(imagined, target, torch.ones(vectors.shape[-1]))
        moved = (vectors[..., :latent] - anchors).square().mean()
        with torch.no_grad():
            copy = (vectors[:, history - 1 : history] - target).square().mean()
        found = prediction.detach()
        figures: dict[str, float | Tensor] = {"prediction": found, "share_of_copy": found / copy}
        return prediction + config.anchor * moved, figures | {"moved": moved.detach()}

    fit(module, loss, config.schedule, out, "refine")
    module.requires_grad_(False)
