"""DINO: self-distillation. A student names the views of a picture as a teacher, its own moving average, does.

Two things together keep it from collapsing: centring (no name is the teacher's for everything) and sharpening (the
teacher is surer than the student, so not all names are as good).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wm.encoders.base import Encoder, normalise
from wm.logs import Batch
from wm.objectives.base import Figures, Moment, Objective, ObjectiveConfig, Source, run_fast
from wm.objectives.teacher import follow, momentum_at, teacher_of
from wm.objectives.views import ViewConfig, view


@dataclass(frozen=True)
class DinoConfig(ObjectiveConfig):
    """Caron et al. 2021, arXiv 2104.14294, with schedules for runs of some thousand steps.

    Attributes:
        learning_rate: Peak.
        globals: Views of most of the picture, for student and teacher.
        locals: Views of a small part of it, for the student alone.
        view: How far a view may be from its picture; of the global ones also the crop.
        local_least: Smallest share of the area of a local view.
        local_most: Largest.
        prototypes: K, names to choose from.
        hidden: Width of the head's hidden layers.
        bottleneck: Width of what is compared with the prototypes.
        student_temperature: Of the student's choice.
        teacher_temperature: Of the teacher's, after the warm-up.
        first_temperature: Of the teacher's, at the first step.
        warmup: Share of the run over which it rises.
        momentum: Of the teacher, at the start; it rises to 1.
        centre_momentum: Of the teacher's centre; 1: there is no centring.
    """

    name = "dino"

    learning_rate: float = 1e-3
    globals: int = 2
    locals: int = 4
    view: ViewConfig = field(default_factory=lambda: ViewConfig(crop_least=0.6))
    local_least: float = 0.25
    local_most: float = 0.5
    prototypes: int = 512
    hidden: int = 256
    bottleneck: int = 64
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    first_temperature: float = 0.03
    warmup: float = 0.3
    momentum: float = 0.99
    centre_momentum: float = 0.9

    @property
    def rate(self) -> float:
        """Peak of the learning rate."""
        return self.learning_rate

    @property
    def frames(self) -> int:
        """One picture."""
        return 1

    def build(self, encoder: Encoder, source: Source) -> Dino:
        """The objective around an encoder."""
        return Dino(encoder, self)

    def unregulated(self) -> DinoConfig:
        """Neither centring nor sharpening: the teacher is as unsure as the student."""
        same = self.student_temperature
        return replace(self, centre_momentum=1.0, teacher_temperature=same, first_temperature=same)


class DinoHead(nn.Module):
    """Mean token to the cosines with K prototypes.

    Mean tokens of a robot's pictures differ little; standardised over the batch, they differ at once.

    Args:
        width: D.
        config: Sizes.
    """

    def __init__(self, width: int, config: DinoConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Linear(width, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.hidden), nn.GELU(),
            nn.Linear(config.hidden, config.bottleneck),
        )  # fmt: skip
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, config.bottleneck))

    def direction(self, tokens: Float[Tensor, "M N D"]) -> Float[Tensor, "M E"]:
        """What is compared with the prototypes, of length 1."""
        return functional.normalize(self.layers(tokens.mean(1)), dim=-1)

    def forward(self, tokens: Float[Tensor, "M N D"]) -> Float[Tensor, "M K"]:
        """Cosines."""
        return self.direction(tokens) @ functional.normalize(self.prototypes, dim=-1).T


class Dino(Objective):
    """Student and teacher, each an encoder and a head; the teacher's encoder is kept.

    Args:
        encoder: Trained in place: the student's.
        config: Settings.
    """

    centre: Tensor

    def __init__(self, encoder: Encoder, config: DinoConfig) -> None:
        super().__init__(encoder)
        self.config = config
        self.head = DinoHead(encoder.width, config)
        self.teacher, self.teacher_head = teacher_of(encoder), teacher_of(self.head)
        self.register_buffer("centre", torch.zeros(config.prototypes))

    def loss(self, batch: Batch, moment: Moment) -> tuple[Float[Tensor, ""], Figures]:
        """Cross-entropy of the student's choice for a view under the teacher's for another one."""
        config, pixels = self.config, normalise(batch.observations[:, 0])
        small = config.view.cropped(config.local_least, config.local_most)
        wide = torch.cat([view(pixels, config.view, moment.generator) for _ in range(config.globals)])
        near = [view(pixels, small, moment.generator) for _ in range(config.locals)]
        student = self.head(self.tokens(torch.cat([wide, *near]))).unflatten(0, (-1, len(pixels)))
        with torch.no_grad():
            teacher = self.teacher_head(run_fast(self.teacher, wide, self.bf16)).unflatten(0, (-1, len(pixels)))
        chosen = sharpened(teacher, self.centre, self._temperature(moment.share))
        value = distillation(student / config.student_temperature, chosen)
        with torch.no_grad():
            self.centre.lerp_(teacher.mean((0, 1)), 1 - config.centre_momentum)
            surprise = -(chosen * chosen.clamp_min(1e-12).log()).sum(-1).mean()
            mean = chosen.mean((0, 1))
            diversity = -(mean * mean.clamp_min(1e-12).log()).sum()
        return value, {"teacher_entropy": surprise, "mean_entropy": diversity}

    def _temperature(self, share: float) -> float:
        first, last = self.config.first_temperature, self.config.teacher_temperature
        return first + (last - first) * min(1.0, share / max(self.config.warmup, 1e-9))

    def after_step(self, share: float) -> None:
        """The teacher follows."""
        momentum = momentum_at(share, self.config.momentum)
        follow(self.teacher, self.encoder, momentum)
        follow(self.teacher_head, self.head, momentum)

    @property
    def kept(self) -> Encoder:
        """The teacher's encoder."""
        return self.teacher

    def embed(self, tokens: Float[Tensor, "M N D"]) -> Float[Tensor, "M E"]:
        """The teacher head's direction, on the sphere of radius √E."""
        return self.teacher_head.direction(tokens) * self.config.bottleneck**0.5


def sharpened(cosines: Float[Tensor, "*n K"], centre: Float[Tensor, " K"], temperature: float) -> Float[Tensor, "*n K"]:
    """The teacher's choice: softmax of the centred cosines over the temperature."""
    return ((cosines - centre) / temperature).softmax(-1)


def distillation(student: Float[Tensor, "V B K"], teacher: Float[Tensor, "G B K"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student's.

    Args:
        student: Logits; the first G views are those that the teacher saw.
        teacher: Probabilities.
    """
    cross = -torch.einsum("gbk,vbk->gv", teacher, student.log_softmax(-1)) / student.shape[1]
    other = ~torch.eye(len(teacher), len(student), dtype=torch.bool)
    return cross[other].mean()
