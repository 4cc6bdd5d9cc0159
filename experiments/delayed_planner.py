"""The control loop's planner: what it plans at control step k begins with the actions that run while it plans.

A `PlannerSetup` is small and picklable; `wm.planners.control.worker.PlannerProcess` calls it in the process that plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.experiments.assemble import find_model, make_mpc
from wm.experiments.controllers import controller_options
from wm.experiments.episode import LatentPlanner
from wm.experiments.robots import world_of
from wm.experiments.rules import Rules
from wm.experiments.worlds import find_world
from wm.kinematics import PointKinematics
from wm.model import WorldModel
from wm.planners.control.messages import PlannerSpec, PlanReply, PlanRequest
from wm.planners.mpc import MPC
from wm.robot import ObservationSpec
from wm.types import Latent, Trajectory

REPLY_MS = 3.0
"""Kept back of a request's deadline for the way of the answer."""


class DelayedPlanner(LatentPlanner):
    """Receding horizon with compensation of its own delay.

    A plan asked for at control step k is executed from step k + d on. So the first d control-step actions of every
    candidate are pinned to those that are executed meanwhile: energies and guardrails see what will really happen, and
    only what comes after it is searched. The search starts from the last plan, shifted by the control steps since.

    Args: as `LatentPlanner`; ``budget`` counts from the first request.
    """

    def __init__(self, model: WorldModel, mpc: MPC, goal: Latent, **options: Any) -> None:
        super().__init__(model, mpc, goal, **options)
        self._seen: list[tuple[np.ndarray, Tensor]] = []  # the last request's pictures and their tokens
        self._request: PlanRequest | None = None
        self._began: int | None = None
        self._planned_at = 0

    def __call__(self, request: PlanRequest) -> PlanReply:
        """Plan.

        Raises:
            BadInputError: the request does not fit the model, or the model foresees nothing finite.
        """
        received = time.monotonic()
        committed, horizon = request.committed, self.mpc.horizon * self.mpc.frameskip
        if committed.ndim != 2 or not 0 < len(committed) < horizon or not np.isfinite(committed).all():
            raise BadInputError(f"plan request: expected 1 … {horizon - 1} committed actions, came {committed}.")
        self._request = request
        self._began = request.step if self._began is None else self._began
        self.planned_steps = request.step - self._began
        if self.budget is not None:  # the horizon always reaches beyond the committed actions
            self.planned_steps = min(self.planned_steps, self.budget - len(committed) - 1)
        left = request.deadline_ms - REPLY_MS - 1000 * (time.monotonic() - received)
        plan, _ = self.search(max(0.0, left), max(0, request.step - self._planned_at))
        self._planned_at = request.step
        energy = float(plan.energy[0])
        if not np.isfinite(energy):
            raise BadInputError(f"the model foresees nothing finite: energy {energy}.")
        actions = plan.actions[0].double().numpy().reshape(-1, committed.shape[1])
        return PlanReply(
            step=request.step,
            actions=np.concatenate([committed, actions[len(committed) :]]),
            energies={name: float(term[0]) for name, term in plan.energy_terms.items()},
            margins={name: float(margin[0].min()) for name, margin in plan.margins.items()},
            feasible=bool(plan.feasible[0]),
            plan_ms=1000 * (time.monotonic() - received),
            stopped_by=plan.stopped_by,
        )

    def context(self) -> Latent:
        """The request's pictures; each is encoded once, however many requests show it."""
        request = self._request
        assert request is not None
        self._seen = [(image, self._tokens(image)) for image in request.images]
        readings = None if request.proprio is None else torch.from_numpy(request.proprio.astype(np.float32))[None]
        if readings is not None and not bool(torch.isfinite(readings).all()):
            raise BadInputError(f"plan request: expected finite proprio, came {request.proprio}.")
        return Latent(torch.cat([tokens for _, tokens in self._seen], dim=1), readings)

    def imagination(self) -> Callable[[Tensor], Trajectory]:
        """The rollout in which every candidate begins with the committed actions."""
        assert self._request is not None
        rollout, committed = super().imagination(), torch.from_numpy(self._request.committed).float()
        return lambda actions: rollout(pinned(actions, committed))

    def _tokens(self, image: np.ndarray) -> Tensor:
        for known, tokens in self._seen:
            if np.array_equal(known, image):
                return tokens
        return self.model.encode(torch.from_numpy(image)[None, None]).tokens


def pinned(actions: Float[Tensor, "B S H A"], committed: Float[Tensor, "d W"]) -> Float[Tensor, "B S H A"]:
    """Candidates whose first d control-step actions are the committed ones; W numbers an action, A a multiple of it."""
    steps = actions.reshape(*actions.shape[:2], -1, committed.shape[1]).clone()
    steps[:, :, : len(committed)] = committed
    return steps.reshape(actions.shape)


@dataclass(frozen=True, eq=False)
class PlannerSetup:
    """All that a process needs to plan; calling it builds the planner and plans once, so that the first plan is fast.

    How to plan, and the disc that keeps the rules, are those of the model's world.

    Attributes:
        model: Shipped name or path.
        planner: Planner's name.
        goal_image: ``(H, W, 3)`` uint8.
        kinematics: The robot's exact motion, or None.
        rules: What the robot keeps.
        budget_steps: Control steps from the first request; the horizon never reaches beyond them. None: without end.
        seed: Of the search.
        think: How much it thinks for a plan, see `Thinking.parse`; None: as it suits the world.
        guarded: False leaves every guardrail out, for studies of what the shield does alone.
        world: The simulated robot's world, as `find_world` takes it from the command line; None: the world that
            `world_of` finds for the model, whose file names none of a foreign package's.
    """

    model: str
    planner: str
    goal_image: np.ndarray
    kinematics: PointKinematics | None
    rules: Rules = Rules()
    budget_steps: int | None = None
    seed: int = 0
    think: str | None = None
    guarded: bool = True
    world: str | None = None

    def __call__(self) -> DelayedPlanner:
        """Load the model and encode the goal.

        Raises:
            WmError: as `find_model`, `make_mpc` and `World.guardrails`.
        """
        model, _ = find_model(self.model)
        warm_up(self.planner_of(model, self.goal_image, self.seed))
        return self.planner_of(model, self.goal_image, self.seed)

    def planner_of(self, model: WorldModel, goal_image: np.ndarray, seed: int) -> DelayedPlanner:
        """A planner to some goal, with a model that is loaded."""
        world = world_of(model.spec.env.env) if self.world is None else find_world(self.world)
        guardrails = world.guardrails(self.rules, self.kinematics) if self.guarded else []
        mpc = make_mpc(self.planner, model.spec.frameskip, world.planning, self.think)
        goal = model.encode(torch.from_numpy(goal_image)[None, None])
        options = controller_options(world, guardrails, self.kinematics, self.budget_steps, seed)
        return DelayedPlanner(model, mpc, goal, **options)


def warm_up(planner: DelayedPlanner) -> None:
    """Plan once from nothing in particular: libraries set themselves up at their first use."""
    spec = planner_spec(planner.model)
    images = np.zeros((spec.frames, spec.observation.image_size, spec.observation.image_size, 3), np.uint8)
    proprio = None if spec.observation.proprio is None else np.zeros((spec.frames, spec.observation.proprio.width))
    planner(PlanRequest(0, images, proprio, np.zeros((1, spec.action.width)), np.inf))


def planner_spec(model: WorldModel) -> PlannerSpec:
    """What a planner on this model takes and gives."""
    spec = model.spec
    observation = ObservationSpec(spec.encoder.image_size, spec.env.proprio)
    return PlannerSpec(spec.env.action, observation, frames=spec.history, stride=spec.frameskip)
