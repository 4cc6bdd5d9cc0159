"""Stop a robot behind a bridge from anywhere: its own warm connection, and a datagram when that fails."""

from __future__ import annotations

import socket
import threading
import time

from wm.envs.bridge.link import Link
from wm.envs.bridge.messages import Describe, Described, Done, Stop, pack, unpack
from wm.errors import BadInputError, RobotError


class BridgeStopper:
    """Call it to stop the robot, latched, as often as wanted and from any thread.

    It needs no commanding connection, so that a supervisor in a process of its own can hold one:
    ``functools.partial(BridgeStopper, host, port)`` is a factory that another process can build it from.

    Args:
        host: Server's address.
        port: Server's port, TCP and UDP.
        timeout_s: Longest time for each of the two ways. [s]

    Raises:
        RobotError: no server answers there.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 0.1) -> None:
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._lock = threading.Lock()
        self._link = Link(host, port, max(timeout_s, 1.0))
        self._link.ask(Describe, Described, max(timeout_s, 1.0))

    def __call__(self) -> None:
        """Stop, and wait for the confirmation.

        Raises:
            RobotError: neither way was confirmed; the server's deadman is what remains.
        """
        with self._lock:
            try:
                self._link.ask(Stop, Done, self._timeout_s)
                return
            except RobotError as error:
                failed = error
            if not self._by_datagram():
                raise RobotError(f"stop was not confirmed: {failed}")

    def close(self) -> None:
        """Close its connection; a later call uses the datagram."""
        self._link.close()

    def _by_datagram(self) -> bool:
        deadline = time.monotonic() + self._timeout_s
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((self._host, self._port))
                sock.send(pack(Stop(0)))
                sock.settimeout(max(1e-3, deadline - time.monotonic()))
                return isinstance(unpack(sock.recv(512), (Done,)), Done)
        except (OSError, BadInputError):
            return False
