"""Pretraining an encoder without labels: action-conditioned temporal joint embedding.

Encoder, state head and predictor learn together to predict the representation of later frames from earlier ones and
the logged actions, with SIGReg against collapse (LeWM, arXiv 2603.19312; LeJEPA, arXiv 2511.08544). The head and the
predictor are then thrown away; the encoder is frozen and every world model builds on its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wm.encoders.base import Encoder, normalise
from wm.fit import FitConfig, fast_bf16, fit
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.point_head import PointHead
from wm.predictor import Predictor


@dataclass(frozen=True)
class PretrainConfig:
    """What is learned with the encoder, and how.

    Attributes:
        history: Context frames.
        width: Numbers in the state that is predicted, the read-out of proprioception not counted.
        hidden: Width of the predictor.
        depth: Residual blocks of the predictor.
        regulariser: Weight of SIGReg.
    """

    history: int = 2
    width: int = 32
    hidden: int = 384
    depth: int = 2
    regulariser: float = 3.0


class _Pretraining(nn.Module):
    def __init__(self, encoder: Encoder, joint: JointModel) -> None:
        super().__init__()
        self.encoder, self.joint = encoder, joint


def pretrain(encoder: Encoder, windows: LogWindows, config: PretrainConfig, fit_config: FitConfig, out: Path) -> None:
    """Train `encoder` in place; progress, log and checkpoints as `wm.fit.fit`.

    Args:
        encoder: Freshly initialised.
        windows: Frames, at least `history + 1` per window.
        config: The objective.
        fit_config: The schedule.
        out: Run folder.
    """
    proprio_width = 0 if windows.log.proprio is None else windows.log.proprio.shape[1]
    action_width = windows.cut(np.zeros(1, np.int64), np.zeros(1, np.int64)).actions.shape[-1]
    width = config.width + proprio_width  # the last numbers read proprioception out of the picture
    head = PointHead(encoder.grid, encoder.width, 1, width)
    predictor = Predictor(width + proprio_width, action_width, config.history, config.hidden, config.depth)
    module = _Pretraining(encoder, JointModel(head, predictor))
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
