"""The supervisor: a process of its own that stops the robot when the control loop cannot."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Callable

from wm import watchdog
from wm.errors import BadInputError, RobotError
from wm.watchdog import Slot, Stopper, Trip

HANGS_AFTER_S = 0.5
"""A supervisor whose own beat is older than this counts as hanging."""


class Supervisor:
    """Handle of the watchdog process, on the loop's side.

    While the loop is watched, the process calls its own stopper and latches when the last heartbeat is older than
    ``timeout_s``, when a stop is asked for, and when the loop's process dies, whatever killed it. It retries until the
    stopper returns. `beat`, `estop` and `trouble` never block.

    Args:
        make_stopper: Picklable factory, called in the supervisor's process; the stopper it returns brings the robot to
            rest and raises when it could not. It may be called again, from another thread, while a call hangs.
        timeout_s: Age of the last heartbeat that counts as death [s].
        poll_s: Time between two looks at the heartbeat [s], at most 0.01.

    Raises:
        BadInputError: a time is out of its range.
    """

    def __init__(
        self, make_stopper: Callable[[], Stopper], *, timeout_s: float | int = 0.1, poll_s: float | int = 0.005
    ) -> None:
        if not 0 < poll_s <= 0.01:
            raise BadInputError(f"Supervisor: poll_s must be in (0, 0.01] s, came {poll_s}.")
        if not timeout_s >= 2 * poll_s:
            raise BadInputError(f"Supervisor: timeout_s must be >= 2 * poll_s = {2 * poll_s} s, came {timeout_s}.")
        self.timeout_s, self.poll_s = float(timeout_s), float(poll_s)
        self._make_stopper = make_stopper
        self._context = multiprocessing.get_context("spawn")
        self._board = self._context.RawArray(ctypes.c_int64, len(Slot))
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self, timeout: float | int = 10.0) -> None:
        """Spawn the process and wait until its stopper is built; again after it died, with the latch cleared.

        Raises:
            BadInputError: it is running.
            RobotError: the stopper could not be built, or not within ``timeout`` seconds.
        """
        if self._process is not None and self._process.is_alive():
            raise BadInputError("the supervisor is running.")
        for slot in Slot:
            self._board[slot] = 0
        receiver, sender = self._context.Pipe(duplex=False)
        arguments = (self._board, sender, self._make_stopper, os.getpid(), int(self.timeout_s * 1e9), self.poll_s)
        process = self._context.Process(target=watchdog.watch, args=arguments, name="wm-supervisor", daemon=True)
        process.start()
        sender.close()
        try:
            problem = receiver.recv() if receiver.poll(timeout) else f"no answer within {timeout} s"
        except EOFError:
            problem = "the process died"
        receiver.close()
        if problem:
            process.kill()
            process.join(1.0)
            raise RobotError(f"the supervisor did not start: {problem}.")
        self._process = process

    def watch(self) -> None:
        """From now on a heartbeat that is late means that the loop is dead."""
        self.beat()
        self._board[Slot.WATCHED] = 1

    def unwatch(self) -> None:
        """The robot stands still and nothing drives it: heartbeats are no longer expected."""
        self._board[Slot.WATCHED] = 0

    def beat(self) -> None:
        """The loop lives; to be called from the loop's own thread only."""
        self._board[Slot.BEAT] = time.monotonic_ns()

    def estop(self) -> None:
        """Ask for a stop; it latches. From any thread or signal handler."""
        self._board[Slot.ESTOP] = 1

    @property
    def stopped_at(self) -> float | None:
        """When the stopper returned, `time.monotonic` seconds; None when it was not called or has not succeeded."""
        stamp = self._board[Slot.STOPPED_AT]
        return stamp / 1e9 if stamp else None

    @property
    def pid(self) -> int | None:
        """Id of the process, None before `start`."""
        return None if self._process is None else self._process.pid

    def trouble(self) -> str | None:
        """Why the loop must not drive the robot now, or None."""
        if self._process is None:
            return "the supervisor was not started"
        trip = self._board[Slot.TRIP]
        if trip:
            return {
                Trip.SILENT: f"supervisor: no heartbeat for {1000 * self.timeout_s:g} ms",
                Trip.ESTOP: "supervisor: e-stop",
                Trip.ORPHANED: "supervisor: the loop's process died",
                Trip.ENDED: "supervisor: it was told to end while the robot was driven",
            }[Trip(trip)]
        if not self._process.is_alive():
            return f"the supervisor process died (exit code {self._process.exitcode})"
        if time.monotonic_ns() - self._board[Slot.ALIVE] > HANGS_AFTER_S * 1e9:
            return f"the supervisor process hangs (silent for more than {1000 * HANGS_AFTER_S:g} ms)"
        return None

    def reset(self, timeout: float | int = 1.0) -> None:
        """Clear the latch.

        Raises:
            RobotError: the robot is not confirmed stopped yet, or the process is dead or hangs.
        """
        self._board[Slot.WATCHED] = 0
        end = time.monotonic() + timeout
        while (self._board[Slot.TRIP] or self._board[Slot.ESTOP]) and not self._board[Slot.STOPPED_AT]:
            if time.monotonic() > end:
                raise RobotError("the supervisor cannot be reset: the robot has not confirmed that it stands still.")
            time.sleep(0.002)
        self._board[Slot.ESTOP] = 0
        self._board[Slot.RESET] = 1
        while self._board[Slot.RESET] and time.monotonic() < end:
            time.sleep(0.002)
        if self._board[Slot.RESET]:
            raise RobotError(f"the supervisor cannot be reset: {self.trouble() or 'it does not answer'}.")

    def close(self) -> None:
        """End the process, which first stops a robot that is still being driven; harmless when repeated.

        It returns within about two seconds. A process that cannot reach the robot is not killed: it goes on trying, and
        the end of the program waits for it (a Ctrl-C then leaves it to try alone).
        """
        if self._process is None:
            return
        self._board[Slot.CLOSE] = 1
        self._process.join(1.0)
        if self._process.is_alive() and not (self._board[Slot.TRIP] and not self._board[Slot.STOPPED_AT]):
            self._process.kill()
            self._process.join(1.0)
        self._process = None
