"""Screening: a cheap model's search proposes, the model that is asked rescores the best few and searches from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.experiments.assemble import THINKERS
from wm.experiments.episode import Controller
from wm.model import WorldModel
from wm.planners.energies import Energy
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC
from wm.types import Latent, Plan, Trajectory

SHORTLIST = 24
"""Candidates of the cheap search that are rescored."""

SCREEN_SHARE = 0.5
"""Of a deadline, for the cheap search."""

RESCORING = "fast"
"""How much the default planner thinks where it rescores, unless something else is asked for."""


def rescoring(planner: str, think: str | None, screen: str | None) -> str | None:
    """How much to think: what is asked for, or `RESCORING` where a model screens for a planner that can be told."""
    return RESCORING if think is None and screen is not None and planner in THINKERS else think


class Shortlist:
    """An energy that remembers the best candidates that it has scored, each once; those that break no rule first.

    Args:
        energy: What scores them.
        guardrails: Rules; as in a search the lesser violation wins, then the lesser energy.
        most: Candidates remembered.
    """

    def __init__(self, energy: Energy, guardrails: Sequence[Guardrail] = (), most: int = SHORTLIST) -> None:
        self.energy, self.name, self.guardrails, self.most = energy, energy.name, guardrails, most
        self.forget()

    def forget(self) -> None:
        """Begin a new list."""
        self._actions: Tensor | None = None
        self._ranks: Tensor | None = None  # (2, S): violation and energy

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S"]:
        """The energy's values; of one problem, B = 1."""
        values = self.energy(trajectory)
        actions, ranks = trajectory.actions.detach(), torch.stack([self._violation(trajectory), values.detach()[0]])
        ranks = ranks.nan_to_num(nan=torch.inf)
        if self._actions is not None and self._ranks is not None:
            actions, ranks = torch.cat([self._actions, actions], dim=1), torch.cat([self._ranks, ranks], dim=1)
        best = ranks[1].argsort(stable=True)
        best = best[ranks[0, best].argsort(stable=True)]
        best = best[_first_ones(actions[0, best], self.most)]
        self._actions, self._ranks = actions[:, best], ranks[:, best]
        return values

    def _violation(self, trajectory: Trajectory) -> Float[Tensor, " S"]:
        broken = torch.zeros(trajectory.actions.shape[1])
        for guardrail in self.guardrails:
            broken = broken - guardrail(trajectory).detach()[0].clamp(max=0.0).sum(-1).to(broken)
        return broken

    @property
    def actions(self) -> Float[Tensor, "1 K H A"] | None:
        """The best, best first; None when nothing was scored."""
        return self._actions


def _first_ones(actions: Float[Tensor, "S H A"], most: int) -> Tensor:
    """Places of the first ``most`` different sequences: kept elites are scored in every iteration."""
    _, kinds = torch.unique(actions[: 4 * most].flatten(1), dim=0, return_inverse=True)
    earlier = kinds[:, None] == kinds[None, :]
    return torch.nonzero(~earlier.tril(-1).any(1))[:most, 0]


class ScreenedController(Controller):
    """A `Controller` whose proposals are the best candidates of another controller's search.

    The cheap search runs for every plan, from the same observations and its own last answer, over the same horizon,
    under the same rules and, where there is a deadline, for `SCREEN_SHARE` of it. Its answer and the others on its
    shortlist are what this model rescores; this model's own proposal is not asked. A plan's candidates are those of
    both.

    Args:
        model: That rescores.
        mpc: Solver and receding horizon of the search that rescores.
        goal: In this model's latent.
        screen: A controller on the cheap model towards the same goal, with the same frameskip and horizon.
        options: As `Controller`.
    """

    def __init__(self, model: WorldModel, mpc: MPC, goal: Latent, *, screen: Controller, **options: Any) -> None:
        super().__init__(model, mpc, goal, **options)
        self.screen = screen
        self.shortlist, self._found = Shortlist(screen.energies[0], screen.guardrails), torch.empty(0)
        screen.energies[0] = self.shortlist

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Take one control step's observation, for both."""
        super().observe(observation)
        self.screen.observe(observation)

    def search(self, deadline_ms: float | None, passed: int | None = None) -> tuple[Plan, Tensor]:
        """The cheap search, then this model's from what it found."""
        start = time.perf_counter()
        self.screen.planned_steps = self.planned_steps
        self.shortlist.forget()
        proposed, _ = self.screen.search(None if deadline_ms is None else SCREEN_SHARE * deadline_ms, passed)
        shortlist = self.shortlist.actions
        answer = proposed.actions[:, None]
        self._found = answer if shortlist is None else torch.cat([answer, shortlist], dim=1)
        if deadline_ms is not None:
            deadline_ms = max(0.0, deadline_ms - (time.perf_counter() - start) * 1e3)
        plan, now = super().search(deadline_ms, passed)
        return replace(plan, candidates=plan.candidates + proposed.candidates), now

    def proposals(self) -> Float[Tensor, "1 S H A"]:
        """The cheap search's answer first, then the shortlist."""
        return self._found
