"""The whole control loop on a clock that passes only when it sleeps: the same decisions as in real time, only faster.

Observations, plans and their delay, shield and sent actions are those of `wm control`; a plan is always in time.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from wm.envs.pusht.env import PushTEnv
from wm.envs.pusht.physics import PushTPhysics
from wm.errors import WmError
from wm.experiments.assemble import make_env
from wm.experiments.control_setup import REPLAN_EVERY
from wm.experiments.episode import Task
from wm.experiments.robots import LEAD_STEPS, SimulatedRobot, at_rest
from wm.experiments.rules import on_states
from wm.kinematics import PointKinematics
from wm.planners.control.loop import INTERRUPTED, ControlLoop, LoopSettings, StepLog
from wm.planners.control.messages import PlanFailure, PlannerSpec, PlanReply, PlanRequest
from wm.planners.control.parts import Certifier, Planner
from wm.planners.control.shield import Certified, Shield, ShieldLimits
from wm.planners.control.states import State
from wm.planners.guardrails import Guardrail
from wm.specs import ActionSpec


class VirtualClock:
    """Monotonic seconds; sleeping is what makes them pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds now."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let them pass."""
        self.now += seconds


class InlinePlanner:
    """A planner in this process, whose answer is there at once on the virtual clock; its search is never cut off.

    Args:
        plan: Plans.
        spec: What it was made for.
    """

    def __init__(self, plan: Callable[[PlanRequest], PlanReply], spec: PlannerSpec) -> None:
        self._plan, self.spec, self.alive = plan, spec, True
        self._reply: PlanReply | PlanFailure | None = None

    def submit(self, request: PlanRequest) -> bool:
        """Plan."""
        try:
            self._reply = self._plan(dataclasses.replace(request, deadline_ms=math.inf))
        except WmError as error:
            self._reply = PlanFailure(request.step, str(error))
        return True

    def poll(self) -> PlanReply | PlanFailure | None:
        """The plan, once."""
        reply, self._reply = self._reply, None
        return reply


class TracedPhysics(PushTPhysics):
    """Push-T that writes down the pusher's true x, y, vx, vy after every physics step."""

    def __init__(self) -> None:
        self.trace: list[tuple[float, float, float, float]] = []
        super().__init__()

    def _build(self) -> None:
        super()._build()
        advance, agent, trace = self.space.step, self.agent, self.trace

        def step(dt: float) -> None:
            advance(dt)
            trace.append((*agent.position, *agent.velocity))

        self.space.step = step  # type: ignore[method-assign]


@dataclass
class Timed:
    """A shield, and how long each of its answers took [s]."""

    shield: Shield
    seconds: list[float] = field(default_factory=list)

    @property
    def kinematics(self) -> PointKinematics:
        """The shield's."""
        return self.shield.kinematics

    @property
    def action_spec(self) -> ActionSpec:
        """The shield's."""
        return self.shield.action_spec

    @property
    def limits(self) -> ShieldLimits:
        """The shield's."""
        return self.shield.limits

    def certify(self, proprio: np.ndarray, asked: np.ndarray, held: Sequence[np.ndarray] = ()) -> Certified:
        """The shield's answer."""
        begin = time.perf_counter()
        answer = self.shield.certify(proprio, asked, held)
        self.seconds.append(time.perf_counter() - begin)
        return answer

    def skipped(self, count: int) -> None:
        """Tell the shield."""
        self.shield.skipped(count)

    def stop_action(self) -> np.ndarray:
        """The shield's."""
        return self.shield.stop_action()

    def reset(self) -> None:
        """Forget what was certified, and how long that took."""
        self.shield.reset()
        self.seconds.clear()


@dataclass
class Unshielded:
    """Lets everything through: what a study compares the shield with, and nothing else."""

    kinematics: PointKinematics
    action_spec: ActionSpec
    limits: ShieldLimits = field(default_factory=ShieldLimits)

    def certify(self, proprio: np.ndarray, asked: np.ndarray, held: Sequence[np.ndarray] = ()) -> Certified:
        """The action asked for."""
        return Certified(np.array(asked, np.float64), "passed", None, 0.0, 0.0, math.inf)

    def skipped(self, count: int) -> None:
        """Nothing is remembered."""

    def stop_action(self) -> np.ndarray:
        """Braking."""
        return np.zeros(self.action_spec.width)

    def reset(self) -> None:
        """Nothing is remembered."""


@dataclass(frozen=True)
class Played:
    """An episode.

    Attributes:
        reached: The simulator's success test passed at some control step.
        final: ``(10,)`` the simulator's state after it.
        path: ``(R, 4)`` true x, y, vx, vy of the pusher after every physics step, braking included.
        steps: Executed control steps.
        plans: By what became of them.
        breaches: Physics steps at which a guardrail was broken, by name.
        smallest: Smallest true margin, by name.
    """

    reached: bool
    final: np.ndarray
    path: np.ndarray
    steps: list[StepLog]
    plans: dict[str, int]
    breaches: dict[str, int]
    smallest: dict[str, float]


@dataclass
class _Kept:
    steps: list[StepLog] = field(default_factory=list)

    def record(self, step: StepLog) -> None:
        self.steps.append(step)


def traced_env(image_size: int) -> PushTEnv:
    """Push-T whose ``physics`` is a `TracedPhysics`."""
    env: Any = make_env("pusht", image_size)
    env.physics = TracedPhysics()
    return env


def play(
    env: PushTEnv, task: Task, planner: Planner, shield: Certifier, rules: Sequence[Guardrail], steps: int
) -> Played:
    """Play a task for a number of control steps, from rest.

    Args:
        env: Of `traced_env`.
        task: Start and goal; the goal's state is for the success test alone.
        planner: Answers at once, `InlinePlanner`; it has the goal, and has not planned yet.
        shield: Certifies.
        rules: To be judged on the true path.
        steps: Control steps.

    Raises:
        WmError: the loop faulted.
        KeyboardInterrupt: somebody interrupted it.
    """
    clock, kept = VirtualClock(), _Kept()
    options = {"state": at_rest(task.start_state, env.env_spec), "goal_state": task.goal_state}
    robot = SimulatedRobot(env, reset_options=options, clock=clock)
    settings = LoopSettings(env.env_spec.action.control_hz, lead_steps=LEAD_STEPS, replan_every=REPLAN_EVERY)
    loop = ControlLoop(robot, planner, shield, settings, log=kept, clock=clock, sleep=clock.sleep)
    physics = env.physics
    assert isinstance(physics, TracedPhysics)
    physics.trace.clear()
    loop.arm()
    report = loop.run(steps / settings.rate_hz)
    loop.close()
    if report.why == INTERRUPTED:
        raise KeyboardInterrupt
    if report.state is not State.IDLE:
        raise WmError(f"the loop stopped: {report.why}")
    path = np.array(physics.trace)
    margins = {rule.name: rule.margin_of(torch.from_numpy(path)) for rule in on_states(rules)}
    return Played(
        reached=robot.reached,
        final=np.array(env.get_state()),
        path=path,
        steps=kept.steps,
        plans=report.plans,
        breaches={name: int((~(margin >= 0)).sum()) for name, margin in margins.items()},
        smallest={name: float(margin.min()) for name, margin in margins.items()},
    )
