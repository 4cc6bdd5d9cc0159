"""The watchdog process: it stops a robot whose control loop died, fell silent or asked for it.

Standard library only: it starts in a tenth of a second, and no numerics library or thread pool can hold it up. Its
handle on the loop's side is `wm.planners.control.supervisor.Supervisor`.

The two processes share a board of 64-bit numbers (`Slot`), each written by one side; an aligned 8-byte store is atomic.
Time is `time.monotonic_ns`, which all processes of a computer share and which setting the clock does not touch.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from multiprocessing.connection import Connection
from typing import Protocol, runtime_checkable

Stopper = Callable[[], None]
"""Brings the robot to rest; returns once the robot has confirmed it, raises otherwise."""

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 5.0
"""How long a call of the stopper may hang before another is made beside it; doubled each time up to the longest."""


@runtime_checkable
class Board(Protocol):
    """Shared numbers: an array of `ctypes.c_int64`."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class Slot(IntEnum):
    """Places on the board."""

    BEAT = 0  # loop: when it last lived [ns]
    WATCHED = 1  # loop: 1 while a late beat means that it is dead
    ESTOP = 2  # loop: 1 asks for a stop
    RESET = 3  # loop sets 1 to clear the latch; the watchdog sets 0 when it is done
    CLOSE = 4  # loop: 1 ends the watchdog
    ALIVE = 5  # watchdog: when it last lived [ns]
    TRIP = 6  # watchdog: `Trip` that latched, 0 for none
    STOPPED_AT = 7  # watchdog: when the stopper returned [ns], 0 for not yet
    ATTEMPTS = 8  # watchdog: calls of the stopper since the trip


class Trip(IntEnum):
    """Why the watchdog stopped the robot."""

    SILENT = 1
    ESTOP = 2
    ORPHANED = 3
    ENDED = 4


def watch(
    board: Board,
    ready: Connection,
    make_stopper: Callable[[], Stopper],
    parent: int,
    timeout_ns: int,
    poll_s: float,
) -> None:
    """Body of the watchdog process.

    Args:
        board: Shared numbers, `Slot`.
        ready: Gets "" once the stopper is built, or what went wrong; then the process watches, or ends.
        make_stopper: Builds the stopper; this process's own handle on the robot.
        parent: Process id of the control loop.
        timeout_ns: A watched beat older than this trips.
        poll_s: Time between two looks at the board.
    """
    ended = _detach()
    _prioritise()
    try:
        stopper = make_stopper()
    except Exception as error:
        ready.send(f"{type(error).__name__}: {error}")
        return
    board[Slot.ALIVE] = time.monotonic_ns()
    with contextlib.suppress(OSError):  # the parent may have died meanwhile, which the watch below will see
        ready.send("")
    ready.close()
    _watch(board, stopper, parent, timeout_ns, poll_s, ended)


def _detach() -> threading.Event:
    """Leave the terminal's process group, so that Ctrl-C and Ctrl-Z do not reach us; the event is set by SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTSTP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):
            os.setsid()
    return ended


def _prioritise() -> None:
    """Run before ordinary processes where the system allows it, so that a busy computer does not delay a stop."""
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))


def _watch(
    board: Board,
    stopper: Stopper,
    parent: int,
    timeout_ns: int,
    poll_s: float,
    ended: threading.Event,
) -> None:
    """Look at the board until told to end or orphaned; the latch is `Slot.TRIP`."""
    seen = 0  # the last beat before the robot was stopped
    while True:
        board[Slot.ALIVE] = time.monotonic_ns()
        leaving = bool(board[Slot.CLOSE]) or ended.is_set() or os.getppid() != parent
        if board[Slot.RESET]:
            board[Slot.TRIP] = board[Slot.STOPPED_AT] = board[Slot.ATTEMPTS] = board[Slot.RESET] = 0
        latched = bool(board[Slot.TRIP])
        cause = 0 if latched else _cause(board, parent, timeout_ns, ended)
        # While it is latched, a new beat means that a loop that was taken for dead goes on: it is stopped again.
        woken = latched and bool(board[Slot.WATCHED]) and board[Slot.BEAT] != seen
        if cause or woken:
            seen = board[Slot.BEAT]
            board[Slot.TRIP] = cause or board[Slot.TRIP]
            _stop(board, stopper, poll_s)
        if leaving:
            return
        time.sleep(poll_s)


def _cause(board: Board, parent: int, timeout_ns: int, ended: threading.Event) -> int:
    """Why the robot has to be stopped now, or 0."""
    if os.getppid() != parent:
        return Trip.ORPHANED
    if board[Slot.ESTOP]:
        return Trip.ESTOP
    if board[Slot.WATCHED]:
        if time.monotonic_ns() - board[Slot.BEAT] > timeout_ns:
            return Trip.SILENT
        if board[Slot.CLOSE] or ended.is_set():
            return Trip.ENDED
    return 0


def _stop(board: Board, stopper: Stopper, poll_s: float) -> None:
    """Call the stopper until a call returns; a call that hangs is left behind and another made beside it."""
    wait_s = FIRST_WAIT_S
    while True:
        board[Slot.ATTEMPTS] += 1
        outcome: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=_attempt, args=(stopper, outcome), daemon=True).start()
        try:
            if outcome.get(timeout=wait_s):
                board[Slot.STOPPED_AT] = time.monotonic_ns()
                return
        except queue.Empty:
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        board[Slot.ALIVE] = time.monotonic_ns()
        time.sleep(poll_s)


def _attempt(stopper: Stopper, outcome: queue.SimpleQueue[bool]) -> None:
    try:
        stopper()
    except Exception:
        outcome.put(False)
    else:
        outcome.put(True)
