"""Action-conditioned temporal joint embedding: the representation of later frames from earlier ones and actions.

Encoder, state head and predictor learn together to predict the representation of later frames from earlier ones and
the logged actions, with SIGReg against collapse (LeWM, arXiv 2603.19312; LeJEPA, arXiv 2511.08544). The head and the
predictor are then thrown away; the encoder is frozen and every world model builds on its tokens. Which head and which
predictor depends on the form of the world models that are to come (`wm.specs.ModelSpec.form`). Of several worlds' logs
each has a head and a predictor of its own, and all have one encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.encoders.base import Encoder, normalise
from wm.errors import BadInputError
from wm.joint import JointModel
from wm.logs import Batch, LogWindows
from wm.objectives.base import Figures, Mixture, Moment, Objective, ObjectiveConfig, Source
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
        return Acjepa(encoder, [(_log(source), self)], self.light)

    def unregulated(self) -> AcjepaConfig:
        """Without SIGReg."""
        return replace(self, regulariser=0.0)

    def identity(self) -> dict[str, Any]:
        """The keys that runs had before there were other objectives, and `light` where it is asked for."""
        return {key: value for key, value in asdict(self).items() if key != "light" or value}


@dataclass(frozen=True)
class WorldsConfig(ObjectiveConfig):
    """`AcjepaConfig` for the logs of several worlds at once.

    Attributes:
        worlds: Of each world.
        light: As in `AcjepaConfig`, of all frames; the worlds' own is not asked.
    """

    name = AcjepaConfig.name
    actions = True

    worlds: tuple[AcjepaConfig, ...]
    light: bool = False

    @property
    def rate(self) -> float:
        """Peak of the learning rate."""
        return self.worlds[0].rate

    @property
    def frames(self) -> int:
        """T, of the world that needs most: where one needs less, more steps are predicted."""
        return max(world.frames for world in self.worlds)

    def build(self, encoder: Encoder, source: Source) -> Acjepa:
        """The objective around an encoder.

        Raises:
            BadInputError: anything but a mixture of as many logs with actions.
        """
        logs = source.sources if isinstance(source, Mixture) else ()
        if len(logs) != len(self.worlds):
            raise BadInputError(f"objective 'acjepa': expected logs of {len(self.worlds)} worlds, came {len(logs)}.")
        return Acjepa(encoder, [(_log(log), world) for log, world in zip(logs, self.worlds, strict=True)], self.light)

    def unregulated(self) -> WorldsConfig:
        """Without SIGReg."""
        return replace(self, worlds=tuple(world.unregulated() for world in self.worlds))

    def identity(self) -> dict[str, Any]:
        """JSON values that a run is known by."""
        return {"objective": self.name, "light": self.light, "worlds": [world.identity() for world in self.worlds]}


def config_for(segment: float | None) -> AcjepaConfig:
    """What suits a world by its actions (`wm.specs.ActionSpec.segment`); for strokes one number of each patch."""
    if segment is None:
        return AcjepaConfig()
    return AcjepaConfig(form="strokes", history=1, width=1, segment=segment)


def _log(source: Source) -> LogWindows:
    if not isinstance(source, LogWindows):
        raise BadInputError("objective 'acjepa': expected windows of a log with actions, came pictures.")
    return source


class Acjepa(Objective):
    """The joint embedding of windows of a log, or of several worlds' logs.

    Args:
        encoder: Trained in place.
        logs: Of each world its windows, of at least ``frames`` of its settings each, and these.
        light: Whether each frame is seen in light of its own.
    """

    def __init__(self, encoder: Encoder, logs: Sequence[tuple[LogWindows, AcjepaConfig]], light: bool) -> None:
        super().__init__(encoder)
        self.light, self.configs = light, [config for _, config in logs]
        self.worlds = nn.ModuleList(_thrown_away(encoder, windows, config) for windows, config in logs)

    def loss(self, batch: Batch, moment: Moment) -> tuple[Float[Tensor, ""], Figures]:
        """Rollout error in latent space plus SIGReg, mean over worlds; see `wm.joint.JointModel.loss`.

        All worlds' frames are encoded together, so that batch normalisation sees all of them at every step.
        """
        parts = batch.parts or (batch,)
        pixels = normalise(batch.observations.flatten(0, 1))
        tokens = self.tokens(relit(pixels, ViewConfig(), moment.generator) if self.light else pixels)
        seen = tokens.unflatten(0, batch.observations.shape[:2]).split([len(part.actions) for part in parts])
        values, figures = [], []
        for source, (part, of) in enumerate(zip(parts, seen, strict=True)):
            joint, config = self._world(source)
            states = joint.state_vectors(of, part.proprio)
            value, said = joint.loss(states, part.actions, part.proprio, config.regulariser, moment.generator)
            values.append(value)
            figures.append(said)
        return torch.stack(values).mean(), {k: torch.stack([said[k] for said in figures]).mean() for k in figures[0]}

    def embed(self, tokens: Float[Tensor, "M N D"], source: int = 0) -> Float[Tensor, "M E"]:
        """The predicted state without its read-out of proprioception; SIGReg asks for a standard deviation of 1."""
        joint, config = self._world(source)
        world = config.width if config.form == "compact" else config.width * self.encoder.grid**2
        return joint.head(tokens).flatten(1)[:, :world]

    def _world(self, source: int) -> tuple[JointModel[Any], AcjepaConfig]:
        joint = self.worlds[source]
        assert isinstance(joint, JointModel)
        return joint, self.configs[source]


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
