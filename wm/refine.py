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

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.encoders.base import Encoder, normalise
from wm.errors import BadInputError
from wm.fit import FitConfig, fast_bf16, fit
from wm.inverse_dynamics import InverseDynamics
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.losses import rollout_loss, straightening
from wm.rollout import rollout
from wm.state_head import StateHead

OPTIONS = ("straightening", "inverse")
"""The optional terms of the loss: fields of `RefineConfig`, their weights."""


@dataclass(frozen=True)
class RefineConfig:
    """How far the states may move, and for how long.

    Attributes:
        anchor: Weight of the mean squared distance to the states that were found, beside the rollout loss.
        horizon: Latent steps of the rollout loss.
        schedule: Of encoder, head and predictor together.
        straightening: Weight of how much the latent's trajectory bends (`wm.losses.straightening`), so that distances
            in latent space say more about the way to a goal; 0: without.
        inverse: Weight of the error of a head that tells the action from two consecutive latents
            (`wm.inverse_dynamics`); the head is trained along and not kept. 0: without.
    """

    anchor: float = 0.1
    horizon: int = 3
    schedule: FitConfig = field(default_factory=lambda: FitConfig(steps=3000, batch=64, warmup=100))
    straightening: float = 0.0
    inverse: float = 0.0

    def options(self) -> dict[str, float]:
        """Weights of those of the optional terms that are used, by name.

        Raises:
            BadInputError: a weight is negative or no finite number.
        """
        weights = {name: float(getattr(self, name)) for name in OPTIONS}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise BadInputError(f"{name}: expected a finite number >= 0, came {weight}.")
        return {name: weight for name, weight in weights.items() if weight > 0}


class _Refining(nn.Module):
    """All that is trained, and so all that a checkpoint holds."""

    def __init__(self, encoder: Encoder, joint: JointModel[StateHead], inverse: InverseDynamics | None) -> None:
        super().__init__()
        self.encoder, self.joint, self.inverse = encoder, joint, inverse

    def term(self, name: str, latents: Float[Tensor, "B T L"], actions: Float[Tensor, "B T-1 A"]) -> Tensor:
        """One of `OPTIONS`, not weighted."""
        if name == "inverse" and self.inverse is not None:
            return self.inverse.error(latents, actions)
        return straightening(latents)


def refine(
    encoder: Encoder, joint: JointModel[StateHead], windows: LogWindows, states: Tensor, config: RefineConfig, out: Path
) -> None:
    """Train `encoder`, and `joint` on it, in place; progress, log and checkpoints as `wm.fit.fit`.

    Args:
        encoder: Pretrained.
        joint: A head that was fitted to this encoder and a predictor that was trained on its states.
        windows: Frames ``(O, H, W, 3)``, ``history + config.horizon`` per window; three at least to straighten.
        states: ``(O, N * D)`` the head's states of these frames: the anchors.
        config: The objective and its schedule.
        out: Run folder.

    The first weights of the head of `config.inverse` are drawn from torch's global generator.

    Raises:
        BadInputError: the weight of an optional term is out of its range, or the loss became non-finite.
    """
    bf16, history, latent, weights = fast_bf16(), joint.predictor.history, states.shape[1], config.options()
    inverse = None
    if "inverse" in weights:
        inverse = InverseDynamics(latent, windows.draw(np.random.default_rng(0), 1).actions.shape[-1])
    module = _Refining(encoder, joint, inverse)
    module.requires_grad_(True)

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
        value, figures = prediction + config.anchor * moved, figures | {"moved": moved.detach()}
        for name, weight in weights.items():
            term = module.term(name, vectors[..., :latent], batch.actions)
            value, figures = value + weight * term, figures | {name: term.detach()}
        return value, figures

    fit(module, loss, config.schedule, out, "refine")
    module.requires_grad_(False)
