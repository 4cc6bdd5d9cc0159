"""A point robot that is really driven, and writes down when it was moved and when it was stopped: for `stop_time`.

`LineRobot` lives in the loop's process and tells `measuring_robot` of every motion; `ServedRobot` is the robot itself,
behind a bridge in a process of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from wm.envs.bridge import BridgeServer
from wm.errors import RobotError
from wm.experiments.studies.measuring_robot import Line, Slot, moved, stopped
from wm.experiments.studies.point_robot import PUSHER, PUSHER_ACTION, PointRobot, Troubles
from wm.kinematics import PointKinematics
from wm.planners.control.shield import ShieldLimits
from wm.robot import ObservationSpec, RobotObservation
from wm.specs import ActionSpec, ProprioSpec
from wm.watchdog import Board

OBSERVATION = ObservationSpec(8, ProprioSpec(("x", "y", "vx", "vy"), ("px", "px", "px/s", "px/s")))
CENTRE = (256.0, 256.0)
BRAKE_STEPS = 10
"""Control steps after which the pusher stands still, from any speed."""


class MovingRobot:
    """Push-T's pusher without a world: each action is one control step of its kinematics; nothing is ever in its way.

    A subclass says what happens when it is moved or stopped.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._sequence, self._lock = clock, 0, threading.Lock()
        self._point = PointRobot(np.array(CENTRE), np.zeros((1, 2)), Troubles(ShieldLimits()), np.random.default_rng(0))
        self.observation_spec: ObservationSpec = OBSERVATION
        self.action_spec: ActionSpec = PUSHER_ACTION
        self.kinematics: PointKinematics | None = PUSHER

    def connect(self) -> None:
        """Nothing: it is always there."""

    def get_observation(self) -> RobotObservation:
        """A new one each time."""
        with self._lock:
            self._sequence += 1
            image = np.full((8, 8, 3), self._sequence % 256, np.uint8)
            return RobotObservation(image, self._point.reading(), self._clock(), self._sequence)

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """One control step; a motion unless the action is the stop."""
        with self._lock:
            if action.any():
                self.when_moved()
            self._point.step(action)
        return action.copy()

    def stop(self) -> None:
        """Brake to rest.

        Raises:
            RobotError: not confirmed.
        """
        self.when_stopped()
        with self._lock:
            for _ in range(BRAKE_STEPS):
                self._point.step(np.zeros(PUSHER_ACTION.width))

    def disconnect(self) -> None:
        """Stop."""
        self.stop()

    def when_moved(self) -> None:
        """It is told to move."""

    def when_stopped(self) -> None:
        """It is told to stop.

        Raises:
            RobotError: that was not confirmed.
        """


class LineRobot(MovingRobot):
    """Tells the measuring robot, in another process, what it is told.

    Args:
        port: The measuring robot's.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._line = Line(port)

    def when_moved(self) -> None:
        """Tell it."""
        self._line.move()

    def when_stopped(self) -> None:
        """Tell it, and wait for its confirmation."""
        try:
            self._line()
        except OSError as error:
            raise RobotError(f"no confirmation of the stop: {error}") from error


class ServedRobot(MovingRobot):
    """Writes down what it is told.

    Args:
        board: Shared numbers, `Slot`.
    """

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board

    def when_moved(self) -> None:
        """Write it down."""
        moved(self._board, time.monotonic_ns())

    def when_stopped(self) -> None:
        """Write it down."""
        stopped(self._board, time.monotonic_ns())


def serve_bridge(board: Board, ready: Connection) -> None:
    """Body of the process of a robot behind a bridge: sends its port, then serves until it is killed."""
    with BridgeServer(ServedRobot(board)) as server:
        ready.send(server.address[1])
        threading.Event().wait()


def hanging(observe: Callable[[], RobotObservation], board: Board) -> Callable[[], RobotObservation]:
    """A robot's ``get_observation`` that deadlocks once `Slot.HANG` asks for it."""

    def call() -> RobotObservation:
        if board[Slot.HANG]:
            lock = threading.Lock()
            lock.acquire()
            board[Slot.HUNG] = time.monotonic_ns()
            lock.acquire()
        return observe()

    return call
