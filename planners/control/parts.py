"""What the control loop needs from its parts, beside the robot (`wm.robot.Robot`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from wm.kinematics import PointKinematics
from wm.planners.control.messages import PlanFailure, PlannerSpec, PlanReply, PlanRequest
from wm.planners.control.report import StepLog
from wm.planners.control.shield import Certified, ShieldLimits
from wm.specs import ActionSpec


@runtime_checkable
class Planner(Protocol):
    """Plans beside the loop, as `wm.planners.control.worker.PlannerProcess`; no call blocks."""

    @property
    def spec(self) -> PlannerSpec:
        """What it was made for."""
        ...

    @property
    def alive(self) -> bool:
        """False once it can never answer again."""
        ...

    def submit(self, request: PlanRequest) -> bool:
        """Begin to plan; False when it is busy."""
        ...

    def poll(self) -> PlanReply | PlanFailure | None:
        """The answer to the last request, once; None when there is none yet."""
        ...


@runtime_checkable
class Certifier(Protocol):
    """Lets through only actions from which the robot can still brake, as `wm.planners.control.shield.Shield`.

    Where no kinematics are declared `wm.planners.control.bounds_filter.BoundsFilter`, which certifies nothing.
    """

    @property
    def kinematics(self) -> PointKinematics | None:
        """The motion it certifies with; None: nothing is certified."""
        ...

    @property
    def action_spec(self) -> ActionSpec:
        """The action it certifies."""
        ...

    @property
    def limits(self) -> ShieldLimits:
        """Stated bounds; a reading older than the latency is not one to certify with."""
        ...

    def certify(self, proprio: np.ndarray, asked: np.ndarray, held: Sequence[np.ndarray] = ()) -> Certified:
        """The action to send instead of ``asked``; ``held``: the actions sent last, oldest first. NaN: no reading."""
        ...

    def skipped(self, count: int) -> None:
        """So many control periods, >= 1, have passed since the last `certify` without one; the last action was held."""
        ...

    def stop_action(self) -> np.ndarray:
        """``(W,)`` the action that brakes to rest."""
        ...

    def reset(self) -> None:
        """Forget what was certified: the robot stands still."""
        ...


@runtime_checkable
class Watchdog(Protocol):
    """Stops the robot when the loop cannot, as `wm.planners.control.supervisor.Supervisor`; only `reset` may block."""

    def watch(self) -> None:
        """From now on late heartbeats mean death."""
        ...

    def unwatch(self) -> None:
        """The robot stands still; no heartbeats are expected."""
        ...

    def beat(self) -> None:
        """The loop lives."""
        ...

    def estop(self) -> None:
        """Ask for a stop."""
        ...

    def trouble(self) -> str | None:
        """Why the robot must not be driven, or None."""
        ...

    def reset(self) -> None:
        """Clear the latch."""
        ...


@runtime_checkable
class LogSink(Protocol):
    """Keeps what happened."""

    def record(self, step: StepLog) -> None:
        """Take one executed control step; an error stops the robot, and a slow call delays the loop."""
        ...


@runtime_checkable
class HasEstop(Protocol):
    """A robot with an emergency stop of its own."""

    @property
    def estopped(self) -> bool:
        """True while it is pressed."""
        ...


@runtime_checkable
class HasLatch(Protocol):
    """A robot whose `stop` latches, as `wm.envs.bridge.client.BridgeRobot`: arming the loop releases its own."""

    def reset(self, force: bool = False) -> None:
        """Allow actions again after a stop of one's own; with `force` after anybody's.

        Raises:
            RobotError: the robot refuses.
        """
        ...
