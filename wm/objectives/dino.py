"""DINO: self-distillation. A student names the views of a picture as a teacher, its own moving average, does.

Two things together keep it from collapsing: centring (all names are given equally often) and sharpening (the teacher
is surer than the student, so not all names are as good). Centring is that of SwAV and DINOv2: Sinkhorn-Knopp on the
batch, which holds at every step. DINO's own, a running mean of the logits, balances them in the mean only.
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
from wm.objectives.multiview import projector
from wm.objectives.teacher import follow, momentum_at, teacher_of
from wm.objectives.views import ViewConfig, view


@dataclass(frozen=True)
class DinoConfig(ObjectiveConfig):
    """Caron et al. 2021, arXiv 2104.14294, for small batches and runs of some thousand steps.

    Attributes:
        learning_rate: Peak.
        globals: Views of most of the picture, for student and teacher.
        locals: Views of less of it, for the student alone.
        view: How far a view may be from its picture; of the global ones also the crop.
        local_least: Smallest share of the area of a local view.
        local_most: Largest.
        prototypes: K, names to choose from: fewer than a batch has global views, or none can be given to several.
        hidden: Width of the head's hidden layers.
        bottleneck: Width of what is compared with the prototypes.
        student_temperature: Of the student's choice.
        teacher_temperature: Of the teacher's, after the warm-up.
        first_temperature: Of the teacher's, at the first step.
        warmup: Share of the run over which it rises.
        momentum: Of the teacher, at the start; it rises to 1.
        balancing: Iterations of Sinkhorn-Knopp; 0: there is no centring.
    """

    name = "dino"

    learning_rate: float = 1e-3
    globals: int = 2
    locals: int = 4
    view: ViewConfig = field(default_factory=ViewConfig)
    local_least: float = 0.5
    local_most: float = 0.8
    prototypes: int = 64
    hidden: int = 256
    bottleneck: int = 64
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    first_temperature: float = 0.03
    warmup: float = 0.3
    momentum: float = 0.98
    balancing: int = 3

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
        return replace(self, balancing=0, teacher_temperature=same, first_temperature=same)


class DinoHead(nn.Module):
    """Tokens to the cosines with K prototypes. All tokens: what a robot's pictures differ in is where things are.

    Args:
        inputs: N · D.
        config: Sizes.
    """

    def __init__(self, inputs: int, config: DinoConfig) -> None:
        super().__init__()
        self.layers = projector(inputs, config.hidden, config.bottleneck)
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, config.bottleneck))

    def direction(self, tokens: Float[Tensor, "M N D"]) -> Float[Tensor, "M E"]:
        """What is compared with the prototypes, of length 1."""
        return functional.normalize(self.layers(tokens.flatten(1)), dim=-1)

    def forward(self, tokens: Float[Tensor, "M N D"]) -> Float[Tensor, "M K"]:
        """Cosines."""
        return self.direction(tokens) @ functional.normalize(self.prototypes, dim=-1).T


class Dino(Objective):
    """Student and teacher, each an encoder and a head; the teacher's encoder is kept.

    Args:
        encoder: Trained in place: the student's.
        config: Settings.
    """

    def __init__(self, encoder: Encoder, config: DinoConfig) -> None:
        super().__init__(encoder)
        self.config = config
        self.head = DinoHead(encoder.grid**2 * encoder.width, config)
        self.teacher, self.teacher_head = teacher_of(encoder), teacher_of(self.head)

    def loss(self, batch: Batch, moment: Moment) -> tuple[Float[Tensor, ""], Figures]:
        """Cross-entropy of the student's choice for a view under the teacher's for another one.

        Of the figures, `teacher_entropy` is how unsure the teacher is of a view and `mean_entropy` how many names it
        gives in all, both in nats, at most log K; `divergence` is what the student could still learn.
        """
        config, pixels = self.config, normalise(batch.observations[:, 0])
        small = config.view.cropped(config.local_least, config.local_most)
        wide = torch.cat([view(pixels, config.view, moment.generator) for _ in range(config.globals)])
        near = [view(pixels, small, moment.generator) for _ in range(config.locals)]
        student = self.head(self.tokens(torch.cat([wide, *near]))).unflatten(0, (-1, len(pixels)))
        with torch.no_grad():
            teacher = self.teacher_head(run_fast(self.teacher, wide, self.bf16))
            chosen = balanced(teacher / self._temperature(moment.share), config.balancing)
        value = distillation(student / config.student_temperature, chosen.unflatten(0, (-1, len(pixels))))
        unsure, names = torch.special.entr(chosen).sum(-1).mean(), torch.special.entr(chosen.mean(0)).sum()
        return value, {"teacher_entropy": unsure, "mean_entropy": names, "divergence": value.detach() - unsure}

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

    def embed(self, tokens: Float[Tensor, "M N D"], source: int = 0) -> Float[Tensor, "M E"]:
        """The teacher head's direction, on the sphere of radius √E."""
        return self.teacher_head.direction(tokens) * self.config.bottleneck**0.5


def balanced(logits: Float[Tensor, "M K"], iterations: int) -> Float[Tensor, "M K"]:
    """The teacher's choice: softmax, with every name given to the same share of the views (Sinkhorn-Knopp).

    Cuturi 2013, arXiv 1306.0895, as in SwAV, arXiv 2006.09882. Each row sums to 1 exactly, each column to M / K the
    closer the more iterations there are; with none this is the softmax.
    """
    for _ in range(iterations):
        logits = logits - logits.logsumexp(0)
        logits = logits - logits.logsumexp(1, keepdim=True)
    return logits.softmax(1)


def distillation(student: Float[Tensor, "V B K"], teacher: Float[Tensor, "G B K"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student's.

    Args:
        student: Logits; the first G views are those that the teacher saw.
        teacher: Probabilities.
    """
    cross = -torch.einsum("gbk,vbk->gv", teacher, student.log_softmax(-1)) / student.shape[1]
    other = ~torch.eye(len(teacher), len(student), dtype=torch.bool)
    return cross[other].mean()
