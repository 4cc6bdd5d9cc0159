"""Pretraining an encoder without labels: action-conditioned temporal joint embedding.

Encoder, state head and predictor learn together to predict the representation of later frames from earlier ones and
the logged actions, with SIGReg against collapse (LeWM, arXiv 2603.19312; LeJEPA, arXiv 2511.08544). The head and the
predictor are then thrown away; the encoder is frozen and every world model builds on its tokens. Which head and which
predictor depends on the form of the world models that are to come (`wm.specs.ModelSpec.form`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wm.encoders.base import Encoder, normalise
from wm.fit import FitConfig, fast_bf16, fit
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.patch_head import PatchHead
from wm.point_head import PointHead
from wm.predictor import Predictor
from wm.stroke_predictor import StrokePredictor, require_segment


@dataclass(frozen=True)
class PretrainConfig:
    """What is learned with the encoder, and how.

    Attributes:
        form: Of the world models to come.
        history: Context frames.
        width: Numbers in the state that is predicted, the read-out of proprioception not counted; of each patch where
            the form has a token per patch.
        hidden: Width of the predictor.
        depth: Residual blocks of the predictor.
        regulariser: Weight of SIGReg.
        segment: Of the world's actions, see `wm.specs.ActionSpec`.
    """

    form: str = "compact"
    history: int = 2
    width: int = 32
    hidden: int = 384
    depth: int = 2
    regulariser: float = 3.0
    segment: float | None = None


class _Pretraining(nn.Module):
    def __init__(self, encoder: Encoder, joint: JointModel[Any]) -> None:
        super().__init__()
        self.encoder, self.joint = encoder, joint


def config_for(segment: float | None) -> PretrainConfig:
    """What suits a world by its actions (`wm.specs.ActionSpec.segment`); for strokes one number of each patch."""
    if segment is None:
        return PretrainConfig()
    return PretrainConfig(form="strokes", history=1, width=1, segment=segment)


def pretrain(encoder: Encoder, windows: LogWindows, config: PretrainConfig, fit_config: FitConfig, out: Path) -> None:
    """Train `encoder` in place; progress, log and checkpoints as `wm.fit.fit`.

    Args:
        encoder: Freshly initialised.
        windows: Frames, at least `history + 1` per window.
        config: The objective.
        fit_config: The schedule.
        out: Run folder.
    """
    module = _Pretraining(encoder, _thrown_away(encoder, windows, config))
    bf16 = fast_bf16()

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        batch = windows.draw(rng, fit_config.batch)
        n, t = batch.observations.shape[:2]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            tokens = module.encoder(normalise(batch.observations.flatten(0, 1)))
        states = module.joint.state_vectors(tokens.float().unflatten(0, (n, t)), batch.proprio)
        value, figures = module.joint.loss(states, batch.actions, batch.proprio, config.regulariser, generator)
        return value, {**figures}

    fit(module, loss, fit_config, out, "pretrain")


def _thrown_away(encoder: Encoder, windows: LogWindows, config: PretrainConfig) -> JointModel[Any]:
    """Head and predictor that the encoder learns under."""
    if config.form == "strokes":
        patches = PatchHead(encoder.grid, encoder.width, config.width)
        predictor = StrokePredictor(
            encoder.grid, config.width, require_segment(config.segment), config.hidden, config.depth
        )
        return JointModel(patches, predictor)
    proprio_width = 0 if windows.log.proprio is None else windows.log.proprio.shape[1]
    action_width = windows.cut(np.zeros(1, np.int64), np.zeros(1, np.int64)).actions.shape[-1]
    width = config.width + proprio_width  # the last numbers read proprioception out of the picture
    head = PointHead(encoder.grid, encoder.width, 1, width)
    compact = Predictor(width + proprio_width, action_width, config.history, config.hidden, config.depth)
    return JointModel(head, compact)
