"""Action-conditioned temporal joint embedding: the representation of later frames from earlier ones and actions.

Encoder, state head and predictor learn together to predict the representation of later frames from earlier ones and
the logged actions, with SIGReg against collapse (LeWM, arXiv 2603.19312; LeJEPA, arXiv 2511.08544). The head and the
predictor are then thrown away; the encoder is frozen and every world model builds on its tokens. Which head and which
predictor depends on the form of the world models that are to come (`wm.specs.ModelSpec.form`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from wm.encoders.base import Encoder, normalise
from wm.errors import BadInputError
from wm.joint import JointModel
from wm.logs import Batch, LogWindows
from wm.objectives.base import Figures, Moment, Objective, ObjectiveConfig, Source
from wm.objectives.views import ViewConfig, relit
from wm.patch_head import PatchHead
from wm.point_head import PointHead
from wm.predictor import Predictor
from wm.stroke_predictor import StrokePredictor, require_segment

HORIZON = 2
"""Latent steps that are predicted."""


@dataclass(frozen=True)
class AcjepaConfig(ObjectiveConfig):
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
        light: Each frame of a window is seen in light of its own (`wm.objectives.views.relit`), so that
            nothing is gained by saying anything of it.
    """

    name = "acjepa"
    actions = True

    form: str = "compact"
    history: int = 2
    width: int = 32
    hidden: int = 384
    depth: int = 2
    regulariser: float = 3.0
    segment: float | None = None
    light: bool = False

    @property
    def rate(self) -> float:
        """Peak of the learning rate."""
        return 2e-3

    @property
    def frames(self) -> int:
        """T: the context and what is predicted."""
        return self.history + HORIZON

    def build(self, encoder: Encoder, source: Source) -> Acjepa:
        """The objective around an encoder.

        Raises:
            BadInputError: a source without actions.
        """
        if not isinstance(source, LogWindows):
            raise BadInputError("objective 'acjepa': expected windows of a log with actions, came pictures.")
        return Acjepa(encoder, source, self)

    def unregulated(self) -> AcjepaConfig:
        """Without SIGReg."""
        return replace(self, regulariser=0.0)

    def identity(self) -> dict[str, Any]:
        """The keys that runs had before there were other objectives, and `light` where it is asked for."""
        return {key: value for key, value in asdict(self).items() if key != "light" or value}


def config_for(segment: float | None) -> AcjepaConfig:
    """What suits a world by its actions (`wm.specs.ActionSpec.segment`); for strokes one number of each patch."""
    if segment is None:
        return AcjepaConfig()
    return AcjepaConfig(form="strokes", history=1, width=1, segment=segment)


class Acjepa(Objective):
    """The joint embedding of a log's windows.

    Args:
        encoder: Trained in place.
        windows: At least `config.frames` frames each.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, windows: LogWindows, config: AcjepaConfig) -> None:
        super().__init__(encoder)
        self.joint = _thrown_away(encoder, windows, config)
        self.regulariser, self.light = config.regulariser, config.light
        self.world = config.width if config.form == "compact" else config.width * encoder.grid**2

    def loss(self, batch: Batch, moment: Moment) -> tuple[Float[Tensor, ""], Figures]:
        """Rollout error in latent space plus SIGReg; see `wm.joint.JointModel.loss`."""
        n, t = batch.observations.shape[:2]
        pixels = normalise(batch.observations.flatten(0, 1))
        tokens = self.tokens(relit(pixels, ViewConfig(), moment.generator) if self.light else pixels)
        states = self.joint.state_vectors(tokens.unflatten(0, (n, t)), batch.proprio)
        return self.joint.loss(states, batch.actions, batch.proprio, self.regulariser, moment.generator)

    def embed(self, tokens: Float[Tensor, "M N D"]) -> Float[Tensor, "M E"]:
        """The predicted state without its read-out of proprioception; SIGReg asks for a standard deviation of 1."""
        return self.joint.head(tokens).flatten(1)[:, : self.world]


def _thrown_away(encoder: Encoder, windows: LogWindows, config: AcjepaConfig) -> JointModel[Any]:
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
