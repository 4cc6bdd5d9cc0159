"""Receding horizon: plan, execute the first latent steps, shift, plan again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.base import Problem, Solver
from wm.types import Plan, Trajectory


class MPC:
    """Model predictive control: what one search leaves for the next.

    The last plan's action sequence and the solver's elites, shifted by the control steps that have passed since, start
    the next search. Only this state lives here; observing and acting are the caller's.

    Args:
        solver: Searches.
        horizon: H, latent steps of every problem.
        execute: Latent steps to execute before planning again, 1 … horizon.
        frameskip: Control steps per latent step.
        fill: What the steps beyond the old horizon become: ``"repeat"`` the last latent step, or ``"stay"``.
        most_proposals: Proposals that a search tries at most, >= 0, the first ones; None: all.

    Attributes:
        warm_start: ``(B, H, A)`` the last plan, shifted by the latent steps to execute; None when nothing is left.
        elites: ``(B, E, H, A)`` the same of the elites.

    Raises:
        BadInputError: ``execute``, ``frameskip`` or ``most_proposals`` is out of its range, or ``fill`` is unknown.
    """

    def __init__(
        self,
        solver: Solver,
        horizon: int,
        execute: int,
        frameskip: int,
        fill: Literal["repeat", "stay"] = "repeat",
        most_proposals: int | None = None,
    ) -> None:
        if not 1 <= execute <= horizon:
            raise BadInputError(f"MPC: execute must be in 1 … horizon = {horizon}, came {execute}.")
        if frameskip < 1:
            raise BadInputError(f"MPC: frameskip must be >= 1, came {frameskip}.")
        if fill not in ("repeat", "stay"):
            raise BadInputError(f"MPC: fill must be 'repeat' or 'stay', came '{fill}'.")
        if most_proposals is not None and most_proposals < 0:
            raise BadInputError(f"MPC: most_proposals must be >= 0, came {most_proposals}.")
        self.solver, self.horizon, self.execute, self.frameskip, self.fill = solver, horizon, execute, frameskip, fill
        self.most_proposals = most_proposals
        self.reset()

    def reset(self) -> None:
        """Forget the last plan: a new episode or a new goal begins."""
        self._plan: Tensor | None = None  # (B, 1, H, A)
        self._elites: Tensor | None = None  # (B, E, H, A)
        self._stay: Tensor | None = None  # (B, 1, 1, A)

    @property
    def warm_start(self) -> Float[Tensor, "B H A"] | None:
        """See the class."""
        shifted = self._shifted(self._plan, self.execute * self.frameskip)
        return None if shifted is None else shifted[:, 0]

    @property
    def elites(self) -> Float[Tensor, "B E H A"] | None:
        """See the class."""
        return self._shifted(self._elites, self.execute * self.frameskip)

    def select(self, problems: Sequence[int]) -> None:
        """Keep the state of these problems of the batch only, e.g. when an episode of a batch has ended."""
        index = list(problems)
        kept = [None if part is None else part[index] for part in (self._plan, self._elites, self._stay)]
        self._plan, self._elites, self._stay = kept

    def plan(
        self,
        problem: Problem,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        deadline_ms: float | int | None = None,
        passed: int | None = None,
        proposals: Float[Tensor, "B S H A"] | None = None,
    ) -> tuple[Plan, Float[Tensor, "B E W"]]:
        """Search from the shifted last plan.

        Args:
            problem: The problem now; its horizon is this MPC's, or shorter (never longer than the last one since
                `reset`) where an episode's end is near: a plan that always has the whole horizon left puts off
                arriving.
            generator: Source of randomness, as in `Solver.solve`.
            deadline_ms: Milliseconds for the search.
            passed: Control steps since the last plan, >= 0; None: those of the latent steps to execute.
            proposals: More candidates for the first iteration, raw units, at least the problem's horizon long.

        Returns:
            The plan, its ``candidates`` counted, and the actions to execute now, control step by control step:
            ``(B, execute * frameskip, W)`` in raw units, W = A / frameskip numbers of the robot's action.

        Raises:
            BadInputError: a longer horizon, another batch than the last plan's (see `reset`, `select`), A is not a
                multiple of frameskip, or ``passed`` is negative.
        """
        if problem.horizon > self.horizon:
            raise BadInputError(f"MPC: expected a horizon up to {self.horizon}, came {problem.horizon}.")
        if problem.width % self.frameskip:
            raise BadInputError(f"MPC: frameskip {self.frameskip} must divide A = {problem.width}.")
        passed = self.execute * self.frameskip if passed is None else passed
        if passed < 0:
            raise BadInputError(f"MPC: passed must be >= 0 control steps, came {passed}.")
        warm_start, elites = self._shifted(self._plan, passed), self._shifted(self._elites, passed)
        steps, counted = problem.horizon, _Counted(problem.rollout)
        proposals = None if proposals is None else proposals[:, : self.most_proposals]
        known = [part[:, :, :steps] for part in (elites, proposals) if part is not None]
        plan, found = self.solver.search(
            replace(problem, rollout=counted),
            warm_start=None if warm_start is None else warm_start[:, 0, :steps],
            elites=torch.cat(known, dim=1) if known else None,
            generator=generator,
            deadline_ms=deadline_ms,
        )
        plan = replace(plan, candidates=counted.candidates)
        self._plan, self._elites, self._stay = plan.actions[:, None], found, problem.staying()[:, None, -1:]
        now = plan.actions[:, : self.execute]  # (B, execute, A)
        return plan, now.reshape(problem.batch, now.shape[1] * self.frameskip, -1)

    def _shifted(self, actions: Float[Tensor, "B K H A"] | None, passed: int) -> Float[Tensor, "B K H A"] | None:
        """Without the first ``passed`` control steps, filled up at the end; None where nothing is left."""
        if actions is None or self._stay is None or passed >= actions.shape[2] * self.frameskip:
            return None
        tail = actions[:, :, -1:] if self.fill == "repeat" else self._stay.expand(-1, actions.shape[1], -1, -1)
        more = -(-passed // self.frameskip)  # latent steps, rounded up
        longer = torch.cat([actions, tail.expand(-1, -1, more, -1)], dim=2)
        steps = longer.unflatten(-1, (self.frameskip, -1)).flatten(2, 3)  # control steps (B, K, (H + more) F, W)
        kept = steps[:, :, passed : passed + actions.shape[2] * self.frameskip]
        return kept.unflatten(2, (-1, self.frameskip)).flatten(-2)


class _Counted:
    """A rollout that counts the candidates of each problem."""

    def __init__(self, rollout: Callable[[Tensor], Trajectory]) -> None:
        self.rollout, self.candidates = rollout, 0

    def __call__(self, actions: Float[Tensor, "B S H A"]) -> Trajectory:
        self.candidates += actions.shape[1]
        return self.rollout(actions)
