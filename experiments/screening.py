"""Screening: a cheap model's search proposes, the model that is asked rescores the best few and searches from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.experiments.episode import Controller
from wm.model import WorldModel
from wm.planners.energies import Energy
from wm.planners.mpc import MPC
from wm.types import Latent, Trajectory

SHORTLIST = 24
"""Candidates of the cheap search that are rescored."""

SCREEN_SHARE = 0.5
"""Of a deadline, for the cheap search."""

RESCORING = "fast"
"""How much the default planner thinks where it rescores, unless something else is asked for."""


def rescoring(think: str | None, screen: str | None) -> str | None:
    """How much to think: what is asked for, or where another model screens `RESCORING`."""
    return RESCORING if think is None and screen is not None else think


class Shortlist:
    """An energy that remembers the best candidates that it has scored, each once.

    Args:
        energy: What scores them.
        most: Candidates remembered.
    """

    def __init__(self, energy: Energy, most: int = SHORTLIST) -> None:
        self.energy, self.name, self.most = energy, energy.name, most
        self.forget()

    def forget(self) -> None:
        """Begin a new list."""
        self._actions: Tensor | None = None
        self._values: Tensor | None = None

    def __call__(self, trajectory: Trajectory) -> Float[Tensor, "B S"]:
        """The energy's values; of one problem, B = 1."""
        values = self.energy(trajectory)
        actions, seen = trajectory.actions.detach(), values.detach().nan_to_num(nan=torch.inf)
        if self._actions is not None and self._values is not None:
            actions, seen = torch.cat([self._actions, actions], dim=1), torch.cat([self._values, seen], dim=1)
        best = seen[0].argsort(stable=True)
        best = best[_first_ones(actions[0, best], self.most)]
        self._actions, self._values = actions[:, best], seen[:, best]
        return values

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

    The cheap search runs anew for every plan, from the same observations, over the same horizon and, where there is a
    deadline, for `SCREEN_SHARE` of it. Its answer and the others on its shortlist are what this model rescores; this
    model's own proposal is not asked.

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
        self.shortlist = Shortlist(screen.energies[0])
        screen.energies[0] = self.shortlist

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Take one control step's observation, for both."""
        super().observe(observation)
        self.screen.observe(observation)

    def proposals(self) -> Float[Tensor, "1 S H A"]:
        """The cheap search's answer first, then the shortlist."""
        self.screen.planned_steps = self.planned_steps
        self.shortlist.forget()
        share = None if self.deadline_ms is None else SCREEN_SHARE * self.deadline_ms
        plan, _ = self.screen.search(share)
        found = plan.actions[:, None]
        if self.shortlist.actions is not None:
            found = torch.cat([found, self.shortlist.actions], dim=1)
        return found
