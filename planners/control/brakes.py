"""Everything that forbids the control loop to go on, and bringing the robot to rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from wm.planners.control.parts import HasEstop, Watchdog
from wm.planners.control.realtime import Interrupts
from wm.planners.control.states import StateMachine
from wm.robot import Robot

STOP_ATTEMPTS = 3


class Brakes:
    """The loop's own way to a stop; the supervisor's is beside it.

    Args:
        robot: What is driven.
        supervisor: Stops the robot when the loop cannot, or None.
        machine: Where an e-stop latches.
        interrupts: What Ctrl-C does.
    """

    def __init__(
        self, robot: Robot, supervisor: Watchdog | None, machine: StateMachine, interrupts: Interrupts
    ) -> None:
        self._robot, self._supervisor, self._machine, self._interrupts = robot, supervisor, machine, interrupts

    def must_stop(self) -> bool:
        """Say that the loop lives, and look whether it may go on; from the loop's own thread only."""
        if self._supervisor is not None:
            self._supervisor.beat()
        return self.forbidden()

    def forbidden(self) -> bool:
        """Whether anything forbids to drive the robot; it latches."""
        if self._machine.latched is None:
            trouble = None if self._supervisor is None else self._supervisor.trouble()
            trouble = trouble or ("the robot's own e-stop" if self.pressed() else None)
            if trouble is not None:
                self._machine.latch(trouble)
        return self._machine.latched is not None

    def pressed(self) -> bool:
        """The robot has an emergency stop of its own, and it is pressed."""
        return isinstance(self._robot, HasEstop) and self._robot.estopped

    def stop(self) -> str | None:
        """Bring the robot to rest; returns what went wrong, in which case the supervisor is asked to do it.

        A Ctrl-C gets out of an attempt that hangs, and of nothing else: it cannot come between the attempts.
        """
        problem = None
        for _ in range(STOP_ATTEMPTS):
            self._tell(lambda supervisor: supervisor.beat())
            try:
                with self._interrupts.escape():
                    self._robot.stop()
            except (Exception, KeyboardInterrupt) as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                self._tell(lambda supervisor: supervisor.unwatch())
                return None
        self._tell(lambda supervisor: supervisor.estop())
        return problem

    def _tell(self, what: Callable[[Watchdog], None]) -> None:
        """No error of the supervisor's handle keeps the loop from stopping the robot itself."""
        if self._supervisor is not None:
            with contextlib.suppress(Exception):
                what(self._supervisor)
