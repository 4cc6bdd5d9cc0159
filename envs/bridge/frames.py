"""Frames on a stream: four bytes of length, big-endian, then that many bytes. Every wait ends."""

from __future__ import annotations

import math
import socket
import struct
import time

from wm.errors import BadInputError

_LENGTH = struct.Struct(">I")


def send_frame(sock: socket.socket, payload: bytes, timeout_s: float) -> None:
    """Send one frame whole.

    Raises:
        OSError: the connection broke, or the other side does not take it within ``timeout_s`` (`TimeoutError`).
    """
    sock.settimeout(timeout_s)
    sock.sendall(_LENGTH.pack(len(payload)) + payload)


def receive_frame(
    sock: socket.socket, most: int, *, wait_s: float | None, timeout_s: float, deadline: float = math.inf
) -> bytes | None:
    """Receive one frame, or None when the other side closed the connection between two frames.

    Args:
        sock: A connected stream.
        most: Largest payload, bytes; nothing longer is read, nor is memory taken for it.
        wait_s: Longest wait for a frame to begin; None waits for ever.
        timeout_s: Longest time from a frame's first byte to its last, however they trickle in.
        deadline: `time.monotonic` seconds at which the frame has to be whole in any case.

    Raises:
        BadInputError: an empty frame, or a longer one than ``most``.
        OSError: the connection broke (inside a frame: `ConnectionError`) or a wait ran out (`TimeoutError`).
    """
    sock.settimeout(wait_s)
    first = sock.recv(1)
    if not first:
        return None
    deadline = min(deadline, time.monotonic() + timeout_s)
    head = first + _exactly(sock, _LENGTH.size - 1, deadline)
    (length,) = _LENGTH.unpack(head)
    if not 1 <= length <= most:
        raise BadInputError(f"bridge frame: expected 1 to {most} bytes, came a length of {length}.")
    return _exactly(sock, length, deadline)


def _exactly(sock: socket.socket, count: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"bridge frame: {len(parts)} of {count} bytes came in time")
        sock.settimeout(left)
        part = sock.recv(min(count - len(parts), 65536))
        if not part:
            raise ConnectionError(f"bridge frame: closed after {len(parts)} of {count} bytes")
        parts += part
    return bytes(parts)
