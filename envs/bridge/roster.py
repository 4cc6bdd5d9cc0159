"""Which connections a bridge's server holds: a limit for each kind, and room for those that are there to stop."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["new", "client", "stopper", "leaving"]
"""Of a connection: nothing has been asked yet; a client; one that stands by to stop; one that was hung up on."""


@dataclass
class _Connection:
    sock: socket.socket
    thread: threading.Thread
    kind: Kind = "new"


class Roster:
    """The connections, each with a thread of its own. Clients never take the room of stoppers, nor the reverse.

    Args:
        most_clients: Clients at a time; besides, as many connections that have not asked for anything yet, for which
            the server does not wait long.
        most_stoppers: Stoppers at a time; where there are as many, the one that has been there longest makes room.
    """

    def __init__(self, most_clients: int, most_stoppers: int) -> None:
        self._most_clients, self._most_stoppers = most_clients, most_stoppers
        self._connections: dict[int, _Connection] = {}  # in the order in which they came
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False

    def count(self, *kinds: Kind) -> int:
        """How many there are of these kinds."""
        return sum(each.kind in kinds for each in list(self._connections.values()))

    def admit(self, sock: socket.socket, converse: Callable[[int], None]) -> bool:
        """Start ``converse(who)`` in a thread, with a new number; False when there is no room."""
        with self._lock:
            if self._closed or self.count("new", "leaving") >= self._most_clients:
                return False
            who = next(self._numbers)
            thread = threading.Thread(target=converse, args=(who,), name="bridge-client", daemon=True)
            self._connections[who] = _Connection(sock, thread)
            thread.start()
            return True

    def enrol(self, who: int, stopper: bool) -> str | None:
        """Say what a new connection is; returns why there is no room for it, or None."""
        with self._lock:
            if not stopper and self.count("client") >= self._most_clients:
                return f"{self._most_clients} clients are connected; try again later."
            stoppers = [each for each in self._connections.values() if each.kind == "stopper"]
            if stopper and len(stoppers) >= self._most_stoppers:
                stoppers[0].kind = "leaving"
                _hang_up(stoppers[0].sock)
            self._connections[who].kind = "stopper" if stopper else "client"
            return None

    def remove(self, who: int) -> None:
        """A connection is gone."""
        with self._lock:
            del self._connections[who]

    def close(self) -> None:
        """Hang up on everyone, admit nobody any more, and wait until all threads have ended."""
        with self._lock:
            self._closed = True
            connections = list(self._connections.values())
        for each in connections:
            _hang_up(each.sock)
        for each in connections:
            each.thread.join()


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
