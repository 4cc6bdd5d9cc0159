"""One closed-loop episode: observe, encode, plan, execute, again, until the goal test or the budget ends it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wm.experiments.rules import on_states
from wm.kinematics import PointKinematics
from wm.model import WorldModel
from wm.planners.base import Problem
from wm.planners.energies import Energy, GoalDistance, GridDistance, ReadOutDistance
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC
from wm.specs import ActionSpec
from wm.types import Latent, Plan, Trajectory

EARLIER_WEIGHT = 0.05
"""Weight of every latent step before the last in the goal distance, the last having 1."""

ROBOT_WEIGHT = 3.0
"""Weight of the read-out of the robot's own place in the goal distance, the rest of the latent having 1."""

NEAR = 1 / 8
"""Energy that is good enough for a plan, as a share of the usual distance between the nearest of the states that a
model remembers of its log (`WorldModel.spacing`). Measured on push-T's development goals (docs/how-it-works.md)."""

PROPOSAL_ENDS = 3
"""The model proposes action sequences for so many times of arrival: the full horizon's end, and the steps before it.
Where the budget cuts the horizon, their beginnings are used."""

PROPOSAL_COPIES, PROPOSAL_NOISE = 2, 0.1
"""Copies of each proposed sequence with white noise, and the noise's standard deviation [raw action units]."""


@dataclass(frozen=True)
class Task:
    """Where an episode starts and what it is to reach.

    Attributes:
        start_state: Simulator state at the start.
        goal_image: ``(H, W, 3)`` uint8, all that the planner sees of the goal.
        goal_state: Simulator state of the goal, for the success test and for pictures only; None when unknown.
        seed: Of the planner's noise.
    """

    start_state: np.ndarray
    goal_image: np.ndarray
    goal_state: np.ndarray | None
    seed: int


@dataclass
class Outcome:
    """What happened.

    Attributes:
        reached: The environment's success test, at any control step within the budget.
        steps: Control steps executed.
        states: ``(steps + 1, S)``; actions: ``(steps, A / F)``; frames: ``(steps + 1, H, W, 3)``.
        proprio: ``(steps + 1, P)`` what the robot reported, raw units; empty when it reports none.
        plans: Every plan, and `planned_at` the control step it was made at.
        plan_ms: Wall time of each plan from the remembered observations to actions, search included [ms].
        observe_ms: Wall time of taking in each observation (encoding it) [ms].
        violations: Executed control steps at which a guardrail's margin was negative, by name.
        smallest_margin: Smallest executed margin, by name.
    """

    reached: bool = False
    steps: int = 0
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    proprio: list[np.ndarray] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    planned_at: list[int] = field(default_factory=list)
    plan_ms: list[float] = field(default_factory=list)
    observe_ms: list[float] = field(default_factory=list)
    violations: dict[str, int] = field(default_factory=dict)
    smallest_margin: dict[str, float] = field(default_factory=dict)

    @property
    def stopped_by(self) -> str:
        """``"reached"`` or ``"budget"``."""
        return "reached" if self.reached else "budget"


@runtime_checkable
class Actor(Protocol):
    """What closes the loop: a controller that plans, or a baseline that does not."""

    guardrails: list[Guardrail]

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Take one control step's observation."""
        ...

    def plan(self) -> tuple[Plan | None, np.ndarray]:
        """A plan (None from what does not plan), and the control-step actions to execute now, raw units."""
        ...


class PlanningController(ABC):
    """Receding-horizon control; a subclass knows how to imagine what actions lead to.

    Args:
        action: One control step's action.
        mpc: Solver and receding horizon; it is reset.
        energies: Terms to minimise.
        guardrails: On the robot's path.
        budget: Control steps of the episode; the horizon never reaches beyond it. None plans as if it never ended.
        deadline_ms: Per search.
        seed: Of the noise.
        rest: ``(W,)`` one control step's action that stays, raw units; None: zeros.
        enough: Energy that is good enough for a plan; None: none is.
    """

    def __init__(
        self,
        action: ActionSpec,
        mpc: MPC,
        energies: Sequence[Energy],
        *,
        guardrails: list[Guardrail] | None = None,
        budget: int | None = None,
        deadline_ms: float | None = None,
        seed: int = 0,
        rest: np.ndarray | None = None,
        enough: float | None = None,
    ) -> None:
        self.enough = -math.inf if enough is None else enough
        self.budget, self.planned_steps = budget, 0
        self.mpc, self.energies = mpc, list(energies)
        self.guardrails, self.deadline_ms = guardrails or [], deadline_ms
        self.generator = torch.Generator().manual_seed(seed)
        self.low, self.high = torch.tensor(action.low * mpc.frameskip), torch.tensor(action.high * mpc.frameskip)
        self.stay = None if rest is None else torch.from_numpy(np.tile(rest, mpc.frameskip)).to(self.low)[None]
        mpc.reset()

    @abstractmethod
    def imagination(self) -> Callable[[Tensor], Trajectory]:
        """The rollout from what is known now: ``(1, S, H, A)`` raw actions to their trajectory."""

    def plan(self) -> tuple[Plan, np.ndarray]:
        """Search from what was observed.

        Returns:
            The plan and the control-step actions to execute now, ``(execute * F, A / F)`` raw units.
        """
        plan, now = self.search(self.deadline_ms)
        self.planned_steps += now.shape[1]
        return plan, now[0].numpy()

    def search(self, deadline_ms: float | None, passed: int | None = None) -> tuple[Plan, Tensor]:
        """One search from what is known now; the arguments and the answer are `MPC.plan`'s.

        The deadline counts from here: what is prepared before the search is part of it.
        """
        start = time.perf_counter()
        horizon = self.mpc.horizon
        if self.budget is not None:
            left = -(-(self.budget - self.planned_steps) // self.mpc.frameskip)  # latent steps, rounded up
            horizon = max(1, min(horizon, left))
        problem = Problem(
            self.imagination(),
            self.energies,
            self.guardrails,
            self.low,
            self.high,
            horizon,
            stay=self.stay,
            enough=self.enough,
        )
        proposals = self.proposals()
        if deadline_ms is not None:
            deadline_ms = max(0.0, deadline_ms - (time.perf_counter() - start) * 1e3)
        return self.mpc.plan(
            problem, generator=self.generator, deadline_ms=deadline_ms, passed=passed, proposals=proposals
        )

    def proposals(self) -> Tensor | None:
        """More candidates to start the search from, ``(1, S, H, A)`` raw units; None when there are none."""
        return None


def goal_distance(
    model: WorldModel, goal: Float[Tensor, "B N D"], earlier_weight: float, robot_weight: float
) -> GoalDistance:
    """The goal's energy in a model's latent space.

    Of a field of many like things it is the distance at every scale of its grid; of patch tokens that of their
    read-out, or where they have none the plain one, as in DINO-WM. In the compact form, as in a read-out, the robot's
    own place has a weight of its own.
    """
    scaled = model.goal_scale(robot_weight)
    if model.spec.read_out:
        return ReadOutDistance(goal, model.read_out, earlier_weight=earlier_weight, scale=scaled)
    if model.spec.form == "strokes" and model.grid is not None:
        return GridDistance(goal, model.grid, earlier_weight=earlier_weight)
    scale = scaled if model.spec.form == "compact" else None
    return GoalDistance(goal, earlier_weight=earlier_weight, scale=scale)


class LatentPlanner(PlanningController):
    """Plans in the latent world model towards a goal latent; a subclass knows what was observed.

    Args:
        model: The world model.
        mpc: Solver and receding horizon.
        goal: Goal latent, one frame.
        guardrails: On the robot's path.
        kinematics: The robot's exact motion; None when it declares none (then no path guardrail can be used).
        energies: More terms besides the goal distance.
        earlier_weight: Of each latent step before the last in the goal distance.
        robot_weight: Of the latent's read-out of the robot's own place, beside what is seen of the world.
        budget: Control steps of the episode, or None (see `PlanningController`).
        deadline_ms: Per search.
        seed: Of the noise.
        rest: An action that stays, see `PlanningController`.
    """

    def __init__(
        self,
        model: WorldModel,
        mpc: MPC,
        goal: Latent,
        *,
        guardrails: list[Guardrail] | None = None,
        kinematics: PointKinematics | None = None,
        energies: list[Energy] | None = None,
        earlier_weight: float = EARLIER_WEIGHT,
        robot_weight: float = ROBOT_WEIGHT,
        budget: int | None = None,
        deadline_ms: float | None = None,
        seed: int = 0,
        rest: np.ndarray | None = None,
    ) -> None:
        distance = goal_distance(model, goal.tokens[:, 0], earlier_weight, robot_weight)
        spacing = None if energies else model.spacing(model.goal_scale(robot_weight))  # enough of the distance alone
        super().__init__(
            model.spec.env.action,
            mpc,
            [distance, *(energies or [])],
            guardrails=guardrails,
            budget=budget,
            deadline_ms=deadline_ms,
            seed=seed,
            rest=rest,
            enough=None if spacing is None else NEAR * spacing,
        )
        self.model, self.kinematics, self.goal = model, kinematics, goal.tokens[:, 0]

    def proposals(self) -> Tensor | None:
        """The model's proposal for the goal, each sequence also with small noise; cut where the horizon is shorter."""
        horizon = self.mpc.horizon
        steps = range(min(horizon, self.model.spec.reach), 0, -1)[:PROPOSAL_ENDS]
        found = self.model.propose(self.context(), self.goal, steps)
        if found is None:
            return None
        noise = torch.randn(PROPOSAL_COPIES, *found.shape, generator=self.generator)
        found = torch.cat([found, *(found + PROPOSAL_NOISE * noise)], dim=1)
        return torch.nn.functional.pad(found, (0, 0, 0, max(0, horizon - found.shape[2])))

    @abstractmethod
    def context(self) -> Latent:
        """The last `history` observed frames, one latent step apart, oldest first."""

    def imagination(self) -> Callable[[Tensor], Trajectory]:
        """The model's rollout from the observed history, with the robot's exact path where a guardrail needs it."""
        context = self.context()
        imagine = self.model.imagination(context)
        start = None if context.proprio is None else context.proprio[:, -1]
        frameskip = self.model.spec.frameskip

        def rollout(actions: Tensor) -> Trajectory:
            imagined = imagine(actions)
            if self.kinematics is None or start is None or not self.guardrails:
                return imagined
            path = self.kinematics.path(start, actions, frameskip)
            return Trajectory(imagined.actions, imagined.tokens, imagined.proprio, path)

        return rollout


class Controller(LatentPlanner):
    """Plans from pictures and proprioception of every control step; knows nothing of the simulator's state.

    Args: as `LatentPlanner`.
    """

    def __init__(self, model: WorldModel, mpc: MPC, goal: Latent, **options: Any) -> None:
        super().__init__(model, mpc, goal, **options)
        self.span = (model.spec.history - 1) * model.spec.frameskip + 1
        self.memory: deque[tuple[Tensor, Tensor | None]] = deque(maxlen=self.span)

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Take one control step's observation: encoded once, remembered as latent."""
        proprio = observation.get("proprio") if self.model.spec.env.proprio is not None else None
        reading = None if proprio is None else torch.from_numpy(np.asarray(proprio, np.float32))[None, None]
        latent = self.model.encode(torch.from_numpy(observation["image"])[None, None], reading)
        self.memory.append((latent.tokens, reading))

    def context(self) -> Latent:
        """The history, one latent step apart; before it is long enough the oldest frame stands in (a robot at rest)."""
        frameskip, history = self.model.spec.frameskip, self.model.spec.history
        rows = [max(0, len(self.memory) - 1 - frameskip * age) for age in range(history - 1, -1, -1)]
        tokens = torch.cat([self.memory[row][0] for row in rows], dim=1)
        readings = [self.memory[row][1] for row in rows]
        proprio = None if readings[0] is None else torch.cat([r for r in readings if r is not None], dim=1)
        return Latent(tokens, proprio)


def run_episode(
    env: Any,
    task: Task,
    controller: Actor,
    budget: int,
    after_step: Callable[[int], None] | None = None,
) -> Outcome:
    """Play one episode in closed loop.

    The environment's success test ends the episode; it never reaches the planner.

    Args:
        env: Gymnasium environment with `reset(options={"state", "goal_state"})`.
        task: Start and goal.
        controller: Plans, or is a baseline.
        budget: Control steps.
        after_step: Called with the number of executed control steps (progress).
    """
    observation, info = env.reset(seed=task.seed, options={"state": task.start_state, "goal_state": task.goal_state})
    outcome = Outcome(states=[info["state"]], frames=[observation["image"]])
    _observe(outcome, controller, observation)
    while outcome.steps < budget and not outcome.reached:
        begun = time.perf_counter()
        plan, actions = controller.plan()
        if plan is not None:
            outcome.plan_ms.append(1e3 * (time.perf_counter() - begun))
            outcome.plans.append(plan)
            outcome.planned_at.append(outcome.steps)
        for action in actions[: budget - outcome.steps]:
            observation, _, _, _, info = env.step(action)
            _observe(outcome, controller, observation)
            _record(outcome, controller.guardrails, observation, info, action)
            if after_step is not None:
                after_step(outcome.steps)
            if outcome.reached:
                break
    return outcome


def _observe(outcome: Outcome, controller: Actor, observation: dict[str, np.ndarray]) -> None:
    begun = time.perf_counter()
    controller.observe(observation)
    outcome.observe_ms.append(1e3 * (time.perf_counter() - begun))
    if "proprio" in observation:
        outcome.proprio.append(observation["proprio"])


def _record(
    outcome: Outcome,
    guardrails: list[Guardrail],
    observation: dict[str, np.ndarray],
    info: dict[str, Any],
    action: np.ndarray,
) -> None:
    outcome.steps += 1
    outcome.states.append(info["state"])
    outcome.actions.append(np.asarray(action, np.float64))
    outcome.frames.append(observation["image"])
    outcome.reached = outcome.reached or bool(info.get("is_success", False))
    for rule in on_states(guardrails):
        margin = float(rule.margin_of(torch.from_numpy(np.asarray(observation["proprio"], np.float32))))
        outcome.smallest_margin[rule.name] = min(margin, outcome.smallest_margin.get(rule.name, margin))
        outcome.violations[rule.name] = outcome.violations.get(rule.name, 0) + int(margin < 0)
