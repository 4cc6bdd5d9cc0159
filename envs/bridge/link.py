"""A client's end of one connection to a bridge: a request, its reply, and nothing after a doubt."""

from __future__ import annotations

import socket
import time
from typing import Any, TypeVar

from wm.envs.bridge.frames import receive_frame, send_frame
from wm.envs.bridge.messages import MAX_REPLY_BYTES, REPLIES, Message, Refused, pack, unpack
from wm.errors import BadInputError, RobotError

ReplyT = TypeVar("ReplyT", bound=Message)


class Link:
    """One TCP connection. Whatever is not the whole, well-formed reply to the last request in time closes it.

    Args:
        host: Server's address.
        port: Server's port.
        timeout_s: Longest time to connect. [s]

    Raises:
        RobotError: nobody answers there.
    """

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.where = f"bridge {host}:{port}"
        try:
            self._sock = socket.create_connection((host, port), timeout_s)
        except (OSError, UnicodeError) as error:  # the latter: not a name that a computer may have
            raise RobotError(f"{self.where}: cannot be reached ({error}).") from error
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last_id = 0
        self.closed: str | None = None
        """Why it is closed, or None."""

    def ask(self, request: type[Message], expect: type[ReplyT], timeout_s: float, **fields: Any) -> ReplyT:
        """Send a request and wait for its reply.

        Raises:
            BadInputError: the request's own values are not fit to send; nothing was sent.
            RobotError: refused (the connection stays), or anything else went wrong (it is closed).
        """
        if self.closed is not None:
            raise RobotError(f"{self.where}: {self.closed}")
        self._last_id += 1
        payload = pack(request(self._last_id, **fields))
        deadline = time.monotonic() + timeout_s
        try:
            send_frame(self._sock, payload, timeout_s)
            left = max(1e-3, deadline - time.monotonic())
            data = receive_frame(self._sock, MAX_REPLY_BYTES, wait_s=left, timeout_s=left, deadline=deadline)
            if data is None:
                raise ConnectionError("closed by the server")
            reply = unpack(data, REPLIES)
        except TimeoutError:
            raise self.doubt(f"no reply to '{request.__name__.lower()}' within {timeout_s:g} s.") from None
        except (OSError, BadInputError) as error:
            raise self.doubt(f"the connection broke ({error}).") from error
        if isinstance(reply, Refused) and reply.id in (0, self._last_id):
            raise RobotError(f"{self.where}: refused: {reply.reason}")
        if reply.id != self._last_id:
            raise self.doubt(f"stale or reordered reply: number {reply.id}, expected {self._last_id}.")
        if not isinstance(reply, expect):
            raise self.doubt(f"expected '{expect.__name__.lower()}', came '{type(reply).__name__.lower()}'.")
        return reply

    def doubt(self, reason: str) -> RobotError:
        """Close for a reason; returns the error to raise."""
        self.closed = self.closed or reason
        self._sock.close()
        return RobotError(f"{self.where}: {reason}")

    def close(self) -> None:
        """Close in order."""
        self.doubt("closed.")
