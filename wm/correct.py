"""Online correction: a predictor goes on learning, partly from what its own plans led to.

A planner looks for what the model promises most for, and finds it where the model is wrong: states and actions that no
log of another policy holds. What really happened when the plans were executed is the cure: it joins the log, and the
predictor is trained on. This is the online world modelling of Parthasarathy et al. 2025, "Closing the Train-Test Gap in
World Models for Gradient-Based Planning" (arXiv 2512.09929): DAgger (Ross et al. 2011, arXiv 1011.0686) for a model
instead of a policy, and what Dyna (Sutton 1991, "Dyna, an Integrated Architecture for Learning, Planning, and
Reacting") does for its own model. The played episodes are few beside the log, so each batch takes a fixed share of its
windows from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.fit import FitConfig, fit
from wm.logs import LogWindows, draw_states
from wm.model import WorldModel
from wm.train import prediction_error, rollout_error


@dataclass(frozen=True)
class CorrectConfig:
    """How a predictor is trained on.

    Attributes:
        share: Of a batch's windows that come from the played episodes, on average; above 0, below 1.
        schedule: Of the predictor; slower than a fresh one's.
    """

    share: float = 0.5
    schedule: FitConfig = field(default_factory=lambda: FitConfig(2000, 512, learning_rate=3e-4, weight_decay=1e-5))

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise BadInputError(f"share: expected more than 0 and less than 1, came {self.share}.")


def correct(model: WorldModel, logged: LogWindows, played: LogWindows, config: CorrectConfig, out: Path) -> None:
    """Train the model's predictor on, in place, by the rollout loss; all else of it stays as it is.

    Progress, log (`correct.jsonl`; `share_of_copy` is the error as a share of the copied last frame's, of the log's
    windows and of the played ones) and checkpoints as `wm.fit.fit`.

    Args:
        model: To be corrected.
        logged: Windows of the log's states ``(O, N * D)`` from the model's own encoder and head, normalised by the
            model's own moments, as many frames per window as the rollout needs.
        played: The same of episodes that the model's plans led to.
        config: The share and the schedule.
        out: Run folder.

    Raises:
        BadInputError: the loss became non-finite.
        CheckpointError: as `wm.fit.fit`.
    """
    predictor, head = model.joint.predictor, model.joint.head
    history, batch = model.spec.history, config.schedule.batch

    def error(states: Float[Tensor, "n T X"], actions: Float[Tensor, "n T-1 A"]) -> tuple[Tensor, Tensor]:
        """Of the rollout, and of copying the last observed frame."""
        target, last = states[:, history:], states[:, history - 1 : history]
        with torch.no_grad():
            copy = prediction_error(head, last.expand_as(target), target)
        return rollout_error(model.joint, states[:, :history], actions[:, history - 1 :], target), copy

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        count = int(rng.binomial(batch, config.share))  # rounding would leave a small share of a small batch without
        value, figures = torch.zeros(()), dict[str, float | Tensor]()
        for name, windows, n in (("logged", logged, batch - count), ("played", played, count)):
            if n > 0:
                found, copy = error(*draw_states(windows, history, rng, n))
                value = value + n / batch * found
                figures[f"{name}_share_of_copy"] = found.detach() / copy.clamp_min(1e-9)
        return value, figures

    predictor.requires_grad_(True)
    fit(predictor, loss, config.schedule, out, "correct")
    predictor.requires_grad_(False)
