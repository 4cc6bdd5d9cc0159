"""Receding horizon: plan, execute the first latent steps, shift, plan again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, Solver
from wm.types import Plan


class MPC:
    """Model predictive control: what one search leaves for the next.

    After each plan the action sequence and the solver's elites are shifted by the executed latent steps, and start the
    next search. Only this state lives here; observing and acting are the caller's.

    Args:
        solver: Searches.
        horizon: H, latent steps of every problem.
        execute: Latent steps to execute before planning again, 1 … horizon.
        frameskip: Control steps per latent step.
        fill: What the steps beyond the old horizon become: ``"repeat"`` the last latent step, or ``"stay"``.

    Raises:
        BadInputError: ``execute`` or ``frameskip`` is out of its range, or ``fill`` is unknown.
    """

    def __init__(
        self,
        solver: Solver,
        horizon: int,
        execute: int,
        frameskip: int,
        fill: Literal["repeat", "stay"] = "repeat",
    ) -> None:
        if not 1 <= execute <= horizon:
            raise BadInputError(f"MPC: execute must be in 1 … horizon = {horizon}, came {execute}.")
        if frameskip < 1:
            raise BadInputError(f"MPC: frameskip must be >= 1, came {frameskip}.")
        if fill not in ("repeat", "stay"):
            raise BadInputError(f"MPC: fill must be 'repeat' or 'stay', came '{fill}'.")
        self.solver, self.horizon, self.execute, self.frameskip, self.fill = solver, horizon, execute, frameskip, fill
        self.reset()

    def reset(self) -> None:
        """Forget the last plan: a new episode or a new goal begins."""
        self.warm_start: Tensor | None = None
        self.elites: Tensor | None = None

    def select(self, problems: Sequence[int]) -> None:
        """Keep the state of these problems of the batch only, e.g. when an episode of a batch has ended."""
        index = list(problems)
        self.warm_start = None if self.warm_start is None else self.warm_start[index]
        self.elites = None if self.elites is None else self.elites[index]

    def plan(
        self,
        problem: Problem,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        deadline_ms: float | int | None = None,
    ) -> tuple[Plan, Float[Tensor, "B E W"]]:
        """Search from the shifted last plan.

        Args:
            problem: The problem now; its horizon is this MPC's, or shorter (never longer than the last one since
                `reset`) where an episode's end is near: a plan that always has the whole horizon left puts off
                arriving.
            generator: Source of randomness, as in `Solver.solve`.
            deadline_ms: Milliseconds for the search.

        Returns:
            The plan, and the actions to execute now, control step by control step: ``(B, execute * frameskip, W)`` in
            raw units, W = A / frameskip numbers of the robot's action.

        Raises:
            BadInputError: a longer horizon, another batch than the last plan's (see `reset`, `select`), or A is not a
                multiple of frameskip.
        """
        if problem.horizon > self.horizon:
            raise BadInputError(f"MPC: expected a horizon up to {self.horizon}, came {problem.horizon}.")
        if problem.width % self.frameskip:
            raise BadInputError(f"MPC: frameskip {self.frameskip} must divide A = {problem.width}.")
        steps = problem.horizon
        plan, elites = self.solver.search(
            problem,
            warm_start=None if self.warm_start is None else self.warm_start[:, :steps],
            elites=None if self.elites is None else self.elites[:, :, :steps],
            generator=generator,
            deadline_ms=deadline_ms,
        )
        self.warm_start = self._shifted(problem, plan.actions[:, None])
        self.warm_start = None if self.warm_start is None else self.warm_start[:, 0]
        self.elites = None if elites is None else self._shifted(problem, elites)
        now = plan.actions[:, : self.execute]  # (B, execute, A)
        return plan, now.reshape(problem.batch, now.shape[1] * self.frameskip, -1)

    def _shifted(self, problem: Problem, actions: Float[Tensor, "B K H A"]) -> Float[Tensor, "B K H A"] | None:
        """Without the executed latent steps, filled up at the end; None where nothing of the plan is left."""
        rest = actions[:, :, self.execute :]
        if rest.shape[2] == 0:
            return None
        tail = rest[:, :, -1:] if self.fill == "repeat" else problem.staying()[:, None, -1:]
        return torch.cat([rest, tail.expand(-1, rest.shape[1], self.execute, -1)], dim=2)
