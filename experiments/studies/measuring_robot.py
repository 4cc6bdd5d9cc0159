"""A robot in a process of its own that writes down, on the monotonic clock, when it was moved and when it was stopped.

Standard library (and `wm.watchdog`) only, so that the processes that need nothing else start in a tenth of a second. It
speaks datagrams on the loopback interface: one byte, `MOVE` or `STOP`; a stop is confirmed. The same robot behind a
bridge is `wm.experiments.studies.moving_robots`.
"""

from __future__ import annotations

import socket
import time
from enum import IntEnum
from multiprocessing.connection import Connection

from wm.watchdog import Board

MOVE, STOP = b"M", b"S"
HOST = "127.0.0.1"


class Slot(IntEnum):
    """What is written down, in numbers shared with whoever started the robot; times in ns, 0 for never."""

    MOVES = 0
    LAST_MOVE = 1
    FIRST_STOP = 2
    LAST_STOP = 3
    MOVES_AFTER_STOP = 4  # after the first stop
    HANG = 5  # 1 asks the loop to deadlock
    HUNG = 6  # when it did
    RUNNING = 7  # loop: 1 while its last control step was one of the state running


def serve(board: Board, ready: Connection) -> None:
    """Body of the robot's process: sends its port, then writes down what it is told, until it is killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        ready.send(sock.getsockname()[1])
        while True:
            data, sender = sock.recvfrom(16)
            now = time.monotonic_ns()
            if data == STOP:
                stopped(board, now)
                sock.sendto(STOP, sender)
            elif data == MOVE:
                moved(board, now)


def stopped(board: Board, now: int) -> None:
    """Write down a stop at ``now`` [ns]."""
    board[Slot.LAST_STOP] = now
    board[Slot.FIRST_STOP] = board[Slot.FIRST_STOP] or now


def moved(board: Board, now: int) -> None:
    """Write down a control step of motion at ``now`` [ns]."""
    board[Slot.MOVES] += 1
    board[Slot.LAST_MOVE] = now
    board[Slot.MOVES_AFTER_STOP] += board[Slot.FIRST_STOP] != 0


class Line:
    """A connection to the robot; called, it stops the robot.

    Args:
        port: The robot's.
        timeout_s: For the confirmation of a stop [s].
    """

    def __init__(self, port: int, timeout_s: float = 0.02) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((HOST, port))
        self._socket.settimeout(timeout_s)

    def move(self) -> None:
        """One control step of motion."""
        self._socket.send(MOVE)

    def __call__(self) -> None:
        """Stop.

        Raises:
            OSError: not confirmed in time.
        """
        self._socket.send(STOP)
        self._socket.recv(16)
