"""A robot in another process or on another computer, as a `wm.robot.Robot` of this one."""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from wm.envs.actions import checked_action
from wm.envs.bridge.link import Link
from wm.envs.bridge.messages import (
    Act,
    Command,
    Describe,
    Described,
    Done,
    Observe,
    Reading,
    Release,
    Reset,
    Sent,
)
from wm.envs.bridge.stopper import BridgeStopper
from wm.errors import RobotError
from wm.kinematics import PointKinematics
from wm.robot import ObservationSpec, RobotObservation
from wm.specs import ActionSpec, ProprioSpec


class StampMap:
    """A server's stamps on this computer's clock, never newer than the truth.

    A reply says the server's time ``c`` and the reading's ``s <= c``. The server read ``c`` after the question left, at
    ``asked`` here, so the reading is at least ``c - s`` older than that instant: ``asked - (c - s)`` is no newer than
    the truth, and older by at most the round trip (interval arithmetic on one exchange, as in Cristian 1989,
    "Probabilistic clock synchronization"). Readings of one robot are in order, so the largest such bound so far holds
    for every later one too.
    """

    def __init__(self) -> None:
        self._clock = self._stamp = self._local = -math.inf
        self._sequence = -1

    def local(self, asked: float, reading: Reading) -> float:
        """When a reading was measured, monotonic seconds here, at latest.

        Args:
            asked: When the question was about to leave, monotonic seconds here.
            reading: The reply.

        Raises:
            RobotError: stamped in the future, or of an older clock, number or stamp than one before; or another stamp
                for the same number.
        """
        clock, stamp, sequence = reading.clock, reading.stamp, reading.sequence
        if stamp > clock:
            raise RobotError(f"reading {sequence} is stamped {stamp - clock:.6f} s in the future.")
        if clock < self._clock or sequence < self._sequence or stamp < self._stamp:
            raise RobotError(f"reading {sequence} of {stamp:.6f} s came after {self._sequence} of {self._stamp:.6f} s.")
        if sequence == self._sequence and stamp != self._stamp:
            raise RobotError(f"reading {sequence} came twice, stamped {self._stamp:.6f} and {stamp:.6f} s.")
        if sequence != self._sequence:
            self._local = max(self._local, asked - (clock - stamp))
        self._clock, self._stamp, self._sequence = clock, stamp, sequence
        return self._local


class BridgeRobot:
    """A robot behind a `wm.envs.bridge.server.BridgeServer`.

    `stop` latches in the server: no action is accepted until `reset`. So do a commander that was lost, the server's
    deadman and a stop by anyone else; the last two only a forced reset releases. Every call ends within its timeout;
    any doubt about a reply closes the connection, upon which the server stops the robot.

    Args:
        host: Server's address.
        port: Server's port.
        observation_spec: What the robot has to report; `at` asks the server.
        action_spec: The action it has to take.
        kinematics: The motion it has to declare.
        timeout_s: Longest time of a call; default one control period. [s]
        connect_timeout_s: Longest time to connect. [s]
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        observation_spec: ObservationSpec,
        action_spec: ActionSpec,
        kinematics: PointKinematics | None,
        timeout_s: float | None = None,
        connect_timeout_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host, self.port = host, port
        self._observation, self._action, self._kinematics = observation_spec, action_spec, kinematics
        self._timeout_s = 1.0 / action_spec.control_hz if timeout_s is None else timeout_s
        self._connect_timeout_s, self._clock = connect_timeout_s, clock
        self._owner = secrets.randbelow(2**63 - 1) + 1
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._stopper: BridgeStopper | None = None

    @classmethod
    def at(cls, host: str, port: int, **options: Any) -> BridgeRobot:
        """The robot that is served there, with the specifications that it tells; not connected yet.

        Raises:
            RobotError: nobody answers, or not with a robot.
        """
        patience = float(options.get("connect_timeout_s", 2.0))
        link = Link(host, port, patience)
        try:
            observation, action, kinematics = specs_of(link.ask(Describe, Described, patience))
        finally:
            link.close()
        return cls(host, port, observation_spec=observation, action_spec=action, kinematics=kinematics, **options)

    @property
    def observation_spec(self) -> ObservationSpec:
        """Picture size and proprioception."""
        return self._observation

    @property
    def action_spec(self) -> ActionSpec:
        """Names, unit, bounds and rate."""
        return self._action

    @property
    def kinematics(self) -> PointKinematics | None:
        """The robot's exact motion, or None."""
        return self._kinematics

    def connect(self) -> None:
        """Become the commanding client; nothing when connected. A latch stays: see `reset`.

        Raises:
            RobotError: not reached in time, another client commands, or another robot than expected.
        """
        with self._lock:
            if self._link is not None and self._link.closed is None:
                return
            link = Link(self.host, self.port, self._connect_timeout_s)
            try:
                came = specs_of(link.ask(Describe, Described, self._connect_timeout_s))
                for expected, value in zip((self._observation, self._action, self._kinematics), came, strict=True):
                    if expected != value:
                        raise RobotError(f"{link.where}: another robot: expected {expected}, came {value}.")
                link.ask(Command, Done, self._connect_timeout_s, owner=self._owner)
                stopper = BridgeStopper(self.host, self.port, self._timeout_s, self._owner)
            except BaseException:
                link.close()
                raise
            if self._stopper is not None:
                self._stopper.close()
            self._link, self._stopper, self._stamps = link, stopper, StampMap()

    def get_observation(self) -> RobotObservation:
        """The newest reading, its stamp on this computer's clock (`StampMap`: at latest).

        Raises:
            RobotError: not connected, not answered in time, or an answer that cannot be true.
        """
        with self._lock:
            link, asked = self._connected(), self._clock()
            reading = link.ask(Observe, Reading, self._timeout_s)
            width = None if self._observation.proprio is None else self._observation.proprio.width
            came = None if reading.proprio is None else len(reading.proprio)
            if reading.side != self._observation.image_size or came != width:
                raise link.doubt(f"expected a {self._observation.image_size} px picture and {width} numbers of proprio")
            try:
                stamp = self._stamps.local(asked, reading)
            except RobotError as error:
                raise link.doubt(str(error)) from None
        image = np.frombuffer(reading.image, np.uint8).reshape(reading.side, reading.side, 3).copy()
        proprio = None if reading.proprio is None else np.array(reading.proprio, np.float32)
        return RobotObservation(image, proprio, stamp, reading.sequence)

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """Hold an action ``(A / F,)`` raw units for one control period; returns what the robot received.

        Raises:
            BadInputError: another shape, NaN or infinity; nothing was sent.
            RobotError: not connected, not answered in time, or stopped and not reset.
        """
        numbers = checked_action(action, self._action)
        with self._lock:
            link = self._connected()
            sent = link.ask(Act, Sent, self._timeout_s, action=tuple(numbers.tolist()))
            if len(sent.action) != self._action.width:
                raise link.doubt(f"expected {self._action.width} numbers sent, came {len(sent.action)}.")
        return np.array(sent.action)

    def reset(self, force: bool = False) -> None:
        """Allow actions again after a stop.

        Args:
            force: Also after one that was not a commander's own: by anyone else, the deadman, or because the robot
                failed. It is for an operator to say, who knows that the cause is gone.

        Raises:
            RobotError: not connected, not answered in time, the robot could not be braked; or it was stopped by someone
                or something else, which is named, and there is no ``force``.
        """
        with self._lock:
            self._connected().ask(Reset, Done, self._timeout_s, force=force)

    def stop(self) -> None:
        """Brake and latch, by a connection of its own; nothing when never connected or disconnected.

        Raises:
            RobotError: the stop was not confirmed in time.
        """
        stopper = self._stopper
        if stopper is not None:
            stopper()

    def disconnect(self) -> None:
        """Brake and close; nothing when not connected."""
        with self._lock:
            link, stopper, self._link, self._stopper = self._link, self._stopper, None, None
        if link is not None and link.closed is None:
            with contextlib.suppress(RobotError):  # closing it without a release stops the robot as well, latched
                link.ask(Release, Done, self._timeout_s)
            link.close()
        if stopper is not None:
            stopper.close()

    def _connected(self) -> Link:
        if self._link is None:
            raise RobotError(f"bridge {self.host}:{self.port}: not connected; call connect() first.")
        return self._link


def specs_of(described: Described) -> tuple[ObservationSpec, ActionSpec, PointKinematics | None]:
    """The specifications that a server told.

    Raises:
        RobotError: they do not fit together.
    """
    told = described.observation["proprio"]
    proprio = None if told is None else ProprioSpec(**told)
    observation = ObservationSpec(described.observation["image_size"], proprio)
    action = ActionSpec(**described.action)
    if not len(action.low) == len(action.high) == action.width:
        raise RobotError(f"bridge: bounds of {len(action.low)} and {len(action.high)} for {action.width} actions.")
    if proprio is not None and len(proprio.units) != proprio.width:
        raise RobotError(f"bridge: {len(proprio.units)} units for {proprio.width} numbers of proprioception.")
    kinematics = None if described.kinematics is None else PointKinematics(**described.kinematics)
    return observation, action, kinematics
