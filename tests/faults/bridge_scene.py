"""A bridge with a fake robot behind it, and clients that say what ours never would."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np

from wm.envs.bridge import BridgeRobot, BridgeServer
from wm.envs.bridge.guard import Guard
from wm.errors import BadInputError
from wm.robot import ObservationSpec, RobotObservation
from wm.specs import ActionSpec, ProprioSpec

RATE = 20.0
DEADMAN_S = 0.15
SLACK_S = 0.25  # a busy machine's scheduling, on top of what is promised
FRAME_S = 0.3


class FakeRobot:
    """A robot that keeps what happened to it and fails when told to."""

    observation_spec = ObservationSpec(4, ProprioSpec(("x",), ("m",)))
    action_spec = ActionSpec(("a", "b"), "m/s", (-1.0, -1.0), (1.0, 1.0), RATE)
    kinematics = None

    def __init__(self) -> None:
        self.events: list[tuple[float, Any]] = []
        self.before_send: Callable[[], None] = lambda: None
        self.before_stop: Callable[[], None] = lambda: None
        self.before_observe: Callable[[], None] = lambda: None
        self.proprio, self.stamp_ahead, self.sequence = 0.0, 0.0, 0

    def connect(self) -> None:
        pass

    def get_observation(self) -> RobotObservation:
        self.before_observe()
        self.sequence += 1
        proprio = np.array([self.proprio], np.float32)
        stamp = time.monotonic() + self.stamp_ahead
        return RobotObservation(np.zeros((4, 4, 3), np.uint8), proprio, stamp, self.sequence)

    def send_action(self, action: np.ndarray) -> np.ndarray:
        if action.shape != (2,):
            raise BadInputError(f"action: expected 2 finite numbers, came {action.tolist()}.")
        self.before_send()
        self.events.append((time.monotonic(), action))
        return action

    def stop(self) -> None:
        self.before_stop()
        self.events.append((time.monotonic(), "stop"))

    def disconnect(self) -> None:
        self.events.append((time.monotonic(), "disconnect"))

    def moved(self) -> list[np.ndarray]:
        return [what for _, what in self.events if isinstance(what, np.ndarray)]

    def stops(self) -> list[float]:
        return [when for when, what in self.events if isinstance(what, str) and what == "stop"]


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


class Client:
    """A client of a socket and msgpack, for saying what ours never would."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, 3.0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.sock.sendall(frame(msgpack.packb({"version": 1, "type": kind, "id": 5, **fields})))
        return self.reply()

    def reply(self) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._exactly(4))
        return msgpack.unpackb(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return data

    def is_dropped(self) -> bool:
        """Whether the server closes the connection, after whatever it has to say."""
        try:
            while self.sock.recv(4096):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.close()


class Scene:
    def __init__(self, **options: Any) -> None:
        self.robot = FakeRobot()
        given = {"deadman_periods": DEADMAN_S * RATE, "frame_timeout_s": FRAME_S, **options}
        self.server = BridgeServer(self.robot, **given)

    @property
    def guard(self) -> Guard:
        return self.server.guard

    def client(self) -> Client:
        return Client(self.server.address)

    def commander(self) -> Client:
        client = self.client()
        assert client.ask("command")["type"] == "done"
        return client

    def ours(self, **options: Any) -> BridgeRobot:
        robot = BridgeRobot.at(*self.server.address, **{"timeout_s": 3.0, **options})
        robot.connect()
        return robot


@contextmanager
def playing(**options: Any) -> Iterator[Scene]:
    scene = Scene(**options)
    with scene.server:
        yield scene


def act(*numbers: Any, **changed: Any) -> dict[Any, Any]:
    return {"version": 1, "type": "act", "id": 5, "action": list(numbers), **changed}


def packed(value: Any) -> bytes:
    return msgpack.packb(value)


def void(_: object) -> None:
    return None


def datagram(scene: Scene, data: bytes, wait_s: float = 2.0) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(scene.server.address)
        sock.settimeout(wait_s)
        sock.send(data)
        try:
            return sock.recv(512)
        except TimeoutError:
            return None
