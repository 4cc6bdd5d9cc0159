"""Stop a robot behind a bridge from anywhere: its own warm connection, and a datagram when that fails or takes long."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from wm.envs.bridge.link import Link
from wm.envs.bridge.messages import Done, Standby, Stop, pack, unpack
from wm.errors import BadInputError, RobotError

FIRST_S = 0.02
"""Time in which the connection has to confirm a stop before the datagram is sent beside it."""


class BridgeStopper:
    """Call it to stop the robot, latched, as often as wanted and from any thread.

    It needs no commanding connection, so that a supervisor in a process of its own can hold one:
    ``functools.partial(BridgeStopper, host, port)`` is a factory that another process can build it from. The server
    keeps room for it (`Standby`).

    Args:
        host: Server's address.
        port: Server's port, TCP and UDP.
        timeout_s: Longest time for each of the two ways; the second begins `FIRST_S` after the first, or when that has
            failed. [s]
        owner: The commander's own number: its stops are ordinary ones. None: somebody else's, as a supervisor's, which
            only a forced reset releases.

    Raises:
        RobotError: no server answers there.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 0.1, owner: int | None = None) -> None:
        self._host, self._port, self._timeout_s, self._owner = host, port, timeout_s, owner
        self._lock = threading.Lock()
        self._link = Link(host, port, max(timeout_s, 1.0))
        try:
            self._link.ask(Standby, Done, max(timeout_s, 1.0))
        except RobotError:
            self._link.close()
            raise

    def __call__(self) -> None:
        """Stop, and wait for the confirmation, of both ways where both were gone, so that no stop comes in later.

        A way that is not confirmed within its time is given up, and its stop may still come in.

        Raises:
            RobotError: neither way was confirmed; the server's deadman is what remains.
        """
        with self._lock:
            ended, confirmed = threading.Event(), list[bool]()

            def second() -> None:
                ended.wait(FIRST_S)
                if not confirmed and self._by_datagram():
                    confirmed.append(True)

            beside, failed = threading.Thread(target=second, name="bridge-stop", daemon=True), ""
            with contextlib.suppress(RuntimeError):  # no thread to be had: one way after the other
                beside.start()
            try:
                self._link.ask(Stop, Done, self._timeout_s, owner=self._owner)
                confirmed.append(True)
            except RobotError as error:
                failed = str(error)
            finally:
                ended.set()
                second() if beside.ident is None else beside.join()
            if not confirmed:
                raise RobotError(f"stop was not confirmed: {failed}")

    def close(self) -> None:
        """Close its connection; a later call uses the datagram."""
        self._link.close()

    def _by_datagram(self) -> bool:
        deadline = time.monotonic() + self._timeout_s
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((self._host, self._port))
                sock.send(pack(Stop(0, self._owner)))
                sock.settimeout(max(1e-3, deadline - time.monotonic()))
                return isinstance(unpack(sock.recv(512), (Done,)), Done)
        except (OSError, BadInputError):
            return False
