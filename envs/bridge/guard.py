"""Who may move the robot behind a bridge, and for how long: one commander, a latching stop, a deadman."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wm.errors import BadInputError, RobotError
from wm.robot import Robot, RobotObservation

LOG = logging.getLogger("wm.envs.bridge")
_RETRY_S = 0.05


@dataclass(frozen=True)
class Latch:
    """Why actions are refused.

    Attributes:
        reason: Who stopped the robot, or what did.
        ordinary: It was the commander's own stop, or that the commander left.
    """

    reason: str
    ordinary: bool


class Guard:
    """A connected robot that several connections share.

    - One connection commands at a time.
    - `stop`, from anyone, latches before it brakes; no action reaches the robot until the commander's `reset`, and one
      that was on its way is braked again.
    - An ordinary latch, a commander's own stop or its leaving, is released by any commander's reset. All others (a stop
      by anyone else, the deadman, a robot that failed) stand until a reset with ``force``, whatever ordinary stops or
      commanders come in between: whoever resets then knows that it was not for the commander to end.
    - Deadman: once an action has been accepted, the robot is stopped, latched, as soon as no valid one has come for
      ``deadman_s``. A stop that fails is tried again every 50 ms until it works.
    - A commander that leaves without `release` stops the robot, latched.

    Args:
        robot: Connected; its `stop` may be called from any thread. Its other calls are made one at a time.
        deadman_s: Longest time between two actions. [s]
        clock: Monotonic seconds.
    """

    def __init__(self, robot: Robot, deadman_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.robot, self.deadman_s, self._clock = robot, deadman_s, clock
        self._calling = threading.Lock()
        self._changed = threading.Condition()
        self._commander: int | None = None
        self._owner: int | None = None  # who the commander said it is; also after it left, until the next one comes
        self._latch: Latch | None = None
        self._stops = self._stopping = 0  # stops so far, and those that have not returned yet
        self._braked = True
        self._last: float | None = None  # when the last valid action came; None: the deadman rests
        self._closed = False
        self._watcher = threading.Thread(target=self._watch, name="bridge-deadman", daemon=True)
        self._watcher.start()

    @property
    def latched(self) -> str | None:
        """Why actions are refused until a reset, or None."""
        latch = self._latch
        return None if latch is None else latch.reason

    @property
    def commander(self) -> int | None:
        """The commanding connection, or None."""
        return self._commander

    def command(self, who: int, owner: int | None = None) -> None:
        """Make a connection the commander; stops by the same ``owner`` will be its own.

        Raises:
            RobotError: another one commands.
        """
        with self._changed:
            if self._commander not in (None, who):
                raise RobotError("another client commands this robot.")
            self._commander, self._owner = who, owner

    def observe(self) -> RobotObservation:
        """The robot's newest reading.

        Raises:
            RobotError: the robot failed.
        """
        with self._calling:
            try:
                return self.robot.get_observation()
            except Exception as error:
                raise RobotError(f"the robot failed: {error}") from error

    def act(self, who: int, action: np.ndarray) -> np.ndarray:
        """Send an action ``(A / F,)`` raw units; returns what the robot received.

        Raises:
            BadInputError: another shape, NaN or infinity; nothing was sent.
            RobotError: not the commander, stopped, or the robot failed (then it is stopped).
        """
        with self._calling:
            with self._changed:
                self._require_commander(who)
                if self._latch is not None:
                    raise RobotError(f"stopped ({self._latch.reason}); reset it first.")
                stops = self._stops
                if self._last is None:  # a first action that hangs has to be noticed as well
                    self._last = self._clock()
                    self._changed.notify_all()
            try:
                sent = self.robot.send_action(action)
            except BadInputError:
                raise
            except Exception as error:
                self._stop(Latch(f"the robot failed: {error}", ordinary=False))
                raise RobotError(f"the robot failed: {error}") from error
            with self._changed:
                stopped = stops != self._stops
                if not stopped:
                    self._last = self._clock()
                    self._changed.notify_all()
        if stopped:  # while the action was on its way: it may have undone the braking
            self._brake()
            raise RobotError("stopped while the action was on its way; reset it first.")
        return sent

    def stop(self, reason: str, who: int | None = None, owner: int | None = None) -> None:
        """Latch and brake. Never waits for an action that is on its way.

        Args:
            reason: Who asks for it.
            who: The connection it came by, None for none.
            owner: Who it said it is, if it did.

        Raises:
            RobotError: the robot's stop failed; it is tried again until it works.
        """
        with self._changed:
            ordinary = who is not None and who == self._commander or owner is not None and owner == self._owner
        self._stop(Latch(reason, ordinary))

    def _stop(self, latch: Latch) -> None:
        with self._changed:
            if self._latch is None or (self._latch.ordinary and not latch.ordinary):
                LOG.warning("robot stopped: %s", latch.reason)
                self._latch = latch
            self._last = None
            self._stops += 1
            self._stopping += 1
        try:
            self._brake()
        finally:
            with self._changed:
                self._stopping -= 1

    def reset(self, who: int, force: bool = False) -> None:
        """Allow actions again.

        Raises:
            RobotError: not the commander, the robot has not been braked, or not an ordinary latch and no ``force``.
        """
        with self._changed:
            self._require_commander(who)
            if self._stopping or not self._braked:
                raise RobotError("the robot's stop has not worked yet; it cannot be reset.")
            if self._latch is not None and not (self._latch.ordinary or force):
                reason = self._latch.reason
                raise RobotError(f"not reset without force: not its commander stopped it, but this: {reason}")
            self._latch = None

    def release(self, who: int) -> None:
        """The commander leaves in order: brake, without a latch.

        Raises:
            RobotError: not the commander, or the robot's stop failed.
        """
        with self._changed:
            self._require_commander(who)
            self._commander, self._last = None, None
            self._stops += 1
        self._brake()

    def lost(self, who: int, reason: str) -> None:
        """A connection is gone; stops the robot if it was the commander's."""
        with self._changed:
            if self._commander != who:
                return
        try:
            self._stop(Latch(reason, ordinary=True))
        except RobotError as error:
            LOG.error("%s", error)
        with self._changed:
            self._commander = None

    def close(self) -> None:
        """End the deadman; the robot is the caller's again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._watcher.join()

    def _require_commander(self, who: int) -> None:
        if self._commander != who:
            raise RobotError("this connection does not command the robot; send 'command' first.")

    def _brake(self) -> None:
        try:
            self.robot.stop()
        except Exception as error:
            with self._changed:
                self._braked = False
                self._changed.notify_all()
            raise RobotError(f"the robot's stop failed: {error}") from error
        self._braked = True

    def _watch(self) -> None:
        """The deadman's thread."""
        while True:
            with self._changed:
                if self._closed:
                    return
                left = None if self._last is None else self._last + self.deadman_s - self._clock()
                if self._braked and (left is None or left > 0):
                    self._changed.wait(left)
                    continue
            try:
                if self._braked:
                    self._stop(Latch(f"deadman: no valid action for {self.deadman_s:g} s", ordinary=False))
                else:
                    self._brake()
            except RobotError as error:
                LOG.error("%s", error)
                time.sleep(_RETRY_S)
