"""The bridge's server: one robot of this process, for clients in other processes or on other computers.

TCP: frames (`wm.envs.bridge.frames`) of messages (`wm.envs.bridge.messages`), one reply to each request, in order.
UDP, same port: one `stop` message as one datagram, without a frame; answered by `done`.

Loopback by default. There is no authentication and no encryption: whoever reaches the port can drive the robot, so
another address has to be allowed explicitly, on a network that is trusted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wm.envs.bridge.frames import receive_frame, send_frame
from wm.envs.bridge.guard import LOG, Guard
from wm.envs.bridge.messages import (
    FIRST_REQUESTS,
    MAX_REQUEST_BYTES,
    REQUESTS,
    STOPPER_REQUESTS,
    Act,
    Command,
    Describe,
    Described,
    Done,
    Message,
    Observe,
    Reading,
    Release,
    Reset,
    Sent,
    Standby,
    Stop,
    pack,
    refusal,
    unpack,
)
from wm.envs.bridge.roster import Roster
from wm.errors import BadInputError, RobotError
from wm.robot import Robot

_PORT_TRIES = 16


class BridgeServer:
    """Serves a robot until it is closed; also a context manager.

    A client that sends anything but well-formed requests is told why, dropped, and logged (logger ``wm.envs.bridge``);
    if it was commanding, the robot is stopped and latched first. The server goes on. See `Guard` for who may move the
    robot and when it is stopped.

    Args:
        robot: It is connected by `start` and disconnected by `close`.
        host: Address to listen on.
        port: 0 picks a free one.
        allow_remote: Listen on an address that other computers reach.
        deadman_periods: Control periods without a valid action after which the robot is stopped.
        frame_timeout_s: Longest time for a frame to come whole or to be taken, and for a connection's first one. [s]
        max_clients: Clients at a time; one more is told so and dropped. A stop is taken from anyone all the same.
        max_stoppers: Connections at a time that stand by to stop, besides; see `Standby` and `Roster`.
        idle_timeout_s: A client that asks for nothing for so long is dropped, unless it commands or stands by. [s]
        clock: Monotonic seconds, the same that stamps the robot's readings.

    Raises:
        BadInputError: an address that other computers reach and ``allow_remote`` is not set, or a bad number.
    """

    def __init__(
        self,
        robot: Robot,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        allow_remote: bool = False,
        deadman_periods: float = 3.0,
        frame_timeout_s: float = 1.0,
        max_clients: int = 8,
        max_stoppers: int = 4,
        idle_timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            raise BadInputError(
                f"bridge host '{host}': other computers reach it, and there is no authentication; expected a loopback "
                "address, or remote clients explicitly allowed."
            )
        if min(deadman_periods, frame_timeout_s, max_clients, max_stoppers, idle_timeout_s) <= 0:
            raise BadInputError("bridge: expected every time and every number of connections to be > 0.")
        if not 0 <= port <= 65535:
            raise BadInputError(f"bridge: expected a port from 0 to 65535, came {port}.")
        self.robot, self._asked = robot, (host, port)
        self._deadman_s = deadman_periods / robot.action_spec.control_hz
        self._frame_timeout_s, self._idle_timeout_s, self._clock = frame_timeout_s, idle_timeout_s, clock
        self._limits = max_clients, max_stoppers
        self._front: threading.Thread | None = None
        self._next_log = 0.0

    def start(self) -> BridgeServer:
        """Connect the robot and begin to listen.

        Raises:
            RobotError: the robot cannot be connected, or the address not be taken.
        """
        self._tcp, self._udp = _bind(*self._asked)
        try:
            self.robot.connect()
        except BaseException:
            self._tcp.close()
            self._udp.close()
            raise
        self.guard = Guard(self.robot, self._deadman_s, self._clock)
        self._roster = Roster(*self._limits)
        self._waker, self._wake = socket.socketpair()
        self._front = threading.Thread(target=self._listen, name="bridge-front", daemon=True)
        self._front.start()
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, port = self._tcp.getsockname()[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Drop every client, stop and disconnect the robot; nothing when it was not started."""
        if self._front is None:
            return
        self._waker.close()
        self._front.join()
        self._front = None
        self._roster.close()
        self.guard.close()
        for sock in (self._tcp, self._udp, self._wake):
            sock.close()
        self.robot.disconnect()

    def __enter__(self) -> BridgeServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _listen(self) -> None:
        """Accepts connections and datagrams."""
        while True:
            ready, _, _ = select.select([self._tcp, self._udp, self._wake], [], [])
            if self._wake in ready:
                return
            if self._udp in ready:
                self._datagram()
            if self._tcp in ready:
                try:
                    sock, peer = self._tcp.accept()
                except OSError:  # gone again before it was accepted
                    continue
                self._admit(sock, f"{peer[0]}:{peer[1]}")

    def _admit(self, sock: socket.socket, peer: str) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._roster.admit(sock, lambda who: self._converse(sock, who, peer)):
            sock.close()
            self._complain(f"{peer} turned away: too many connections that have not asked for anything")

    def _datagram(self) -> None:
        """One stop from anyone."""
        try:
            data, peer = self._udp.recvfrom(MAX_REQUEST_BYTES + 1)
            request = unpack(data[:MAX_REQUEST_BYTES], (Stop,))
            self.guard.stop(f"datagram from {peer[0]}:{peer[1]}", owner=request.owner)
            self._udp.sendto(pack(Done(request.id)), peer)
        except (BadInputError, RobotError, OSError) as error:
            self._complain(f"datagram ignored: {error}")

    def _complain(self, text: str) -> None:
        """A log line that a flood of connections or datagrams cannot multiply: at most one a second."""
        if time.monotonic() >= self._next_log:
            self._next_log = time.monotonic() + 1.0
            LOG.warning("%s", text)

    def _converse(self, sock: socket.socket, who: int, peer: str) -> None:
        """One client's connection from its first byte to its last."""
        reason, malformed = "the server failed", None
        try:
            self._exchange(sock, who, peer)
            reason = "closed the connection"
        except BadInputError as error:
            reason, malformed = str(error), error
        except OSError as error:
            reason = f"{type(error).__name__}: {error}"
        finally:
            self.guard.lost(who, f"client {peer} lost: {reason}")
            if malformed is not None:
                LOG.warning("client %s dropped: %s", peer, malformed)
                self._tell(sock, malformed)
            self._roster.remove(who)
            sock.close()

    def _exchange(self, sock: socket.socket, who: int, peer: str) -> None:
        """Answers requests until the client closes the connection between two of them.

        Raises:
            BadInputError: something else than a request, or an action that this robot does not have.
            OSError: the connection broke, or a frame did not begin, come whole or was not taken in time.
        """
        request = self._request(sock, FIRST_REQUESTS, self._frame_timeout_s)
        if request is None:
            return
        stopper = isinstance(request, Standby)
        full = self._roster.enrol(who, stopper)
        if full is not None:
            self._complain(f"{peer} turned away: {full}")
            turned_away = pack(refusal(request.id, full))
            reply = self._reply(request, who, peer) if isinstance(request, Stop) else turned_away
            send_frame(sock, reply, self._frame_timeout_s)
            return
        while request is not None:
            send_frame(sock, self._reply(request, who, peer), self._frame_timeout_s)
            wait_s = None if stopper or self.guard.commander == who else self._idle_timeout_s
            request = self._request(sock, STOPPER_REQUESTS if stopper else REQUESTS, wait_s)

    def _request(self, sock: socket.socket, kinds: Sequence[type[Message]], wait_s: float | None) -> Message | None:
        """The next request; None when the client closed the connection before it."""
        data = receive_frame(sock, MAX_REQUEST_BYTES, wait_s=wait_s, timeout_s=self._frame_timeout_s)
        return None if data is None else unpack(data, kinds)

    def _reply(self, request: Message, who: int, peer: str) -> bytes:
        try:
            return _fit(self._answer(request, who, peer))
        except RobotError as error:
            return pack(refusal(request.id, error))

    def _tell(self, sock: socket.socket, error: BadInputError) -> None:
        """Why it is dropped, if it still listens."""
        with contextlib.suppress(OSError):
            send_frame(sock, pack(refusal(0, error)), self._frame_timeout_s)
            sock.shutdown(socket.SHUT_WR)

    def _answer(self, request: Message, who: int, peer: str) -> Message:
        match request:
            case Describe():
                return describe(self.robot, request.id, self._deadman_s)
            case Observe():
                return self._reading(request.id)
            case Act():
                sent = self.guard.act(who, np.array(request.action))
                return Sent(request.id, tuple(float(number) for number in sent))
            case Stop():
                self.guard.stop(f"client {peer}", who, request.owner)
            case Command():
                self.guard.command(who, request.owner)
            case Reset():
                self.guard.reset(who, request.force)
            case Release():
                self.guard.release(who)
        return Done(request.id)

    def _reading(self, request_id: int) -> Message:
        seen = self.guard.observe()
        proprio = None if seen.proprio is None else tuple(float(number) for number in seen.proprio)
        image = np.ascontiguousarray(seen.image, np.uint8)
        side, stamp = image.shape[0], float(seen.stamp)
        return Reading(request_id, self._clock(), stamp, int(seen.sequence), side, image.tobytes(), proprio)


def serve(robot: Robot, host: str = "127.0.0.1", port: int = 0, **options: Any) -> BridgeServer:
    """A started `BridgeServer`; the caller closes it. Options and errors as there."""
    return BridgeServer(robot, host, port, **options).start()


def describe(robot: Robot, request_id: int, deadman_s: float) -> Described:
    """A robot's specifications as a message."""
    observation, action = robot.observation_spec.to_json(), robot.action_spec.to_json()
    kinematics = None if robot.kinematics is None else dataclasses.asdict(robot.kinematics)
    return Described(request_id, observation, action, kinematics, deadman_s)


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise BadInputError(f"bridge host '{host}': there is no such IPv4 address.") from None
    return all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def _bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket, and a UDP one on the same port."""
    error: OSError | None = None
    for _ in range(1 if port else _PORT_TRIES):
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind((host, tcp.getsockname()[1]))
            tcp.listen()
            tcp.setblocking(False)
            udp.setblocking(False)
            return tcp, udp
        except OSError as came:
            tcp.close()
            udp.close()
            error = came
    raise RobotError(f"bridge: cannot listen on {host}:{port} ({error}).")


def _fit(reply: Message) -> bytes:
    """A reply as bytes; numbers that are not fit to send are the robot's fault, never the client's."""
    try:
        return pack(reply)
    except BadInputError as error:
        raise RobotError(f"the robot reports nonsense: {error}") from error
