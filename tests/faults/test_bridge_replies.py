"""What our client of the bridge promises when the server, or someone in its place, lies or falls silent."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from tests.contracts.robot_suite import eventually
from tests.faults.bridge_scene import (
    SLACK_S,
    FakeRobot,
    Scene,
    frame,
    packed,
    playing,
    void,
)
from wm.envs.bridge import BridgeRobot, BridgeStopper
from wm.errors import BadInputError, RobotError

pytestmark = pytest.mark.real_time


@pytest.fixture
def patient() -> Iterator[Scene]:
    """Without a deadman to speak of."""
    with playing(deadman_periods=1e6) as scene:
        yield scene


class Liar:
    """A server that answers as a script says."""

    def __init__(self, answers: Callable[[dict[str, Any]], bytes | None]) -> None:
        self.answers = answers
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.socks: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.socks.append(sock)
            threading.Thread(target=self.talk, args=(sock,), daemon=True).start()

    def talk(self, sock: socket.socket) -> None:
        try:
            while head := sock.recv(4, socket.MSG_WAITALL):
                body = sock.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL)
                answer = self.answers(msgpack.unpackb(body))
                if answer is None:
                    return
                sock.sendall(answer)
        except OSError:
            return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        for sock in [self.listener, *self.socks]:
            sock.close()


def honest(request: dict[str, Any]) -> dict[str, Any]:
    robot, base = FakeRobot, {"version": 1, "id": request["id"]}
    if request["type"] == "describe":
        specs = {"observation": robot.observation_spec.to_json(), "action": robot.action_spec.to_json()}
        return {**base, "type": "described", **specs, "kinematics": None, "deadman_s": 0.1}
    if request["type"] == "observe":
        reading = {"clock": 10.0, "stamp": 9.9, "sequence": 3, "side": 4, "image": bytes(48), "proprio": [0.5]}
        return {**base, "type": "reading", **reading}
    return {**base, "type": "done"}


READING_LIES: dict[str, tuple[Callable[[dict[str, Any]], bytes | None], str]] = {
    "stale": (lambda r: frame(packed({**r, "id": r["id"] - 1})), "stale or reordered reply"),
    "ahead": (lambda r: frame(packed({**r, "id": r["id"] + 1})), "stale or reordered reply"),
    "of another kind": (lambda r: frame(packed({"version": 1, "type": "done", "id": r["id"]})), "expected 'reading'"),
    "future-stamped": (lambda r: frame(packed({**r, "stamp": 10.1})), "in the future"),
    "not finite": (lambda r: frame(packed({**r, "proprio": [float("nan")]})), "expected a finite number"),
    "short picture": (lambda r: frame(packed({**r, "image": bytes(47)})), "reading.image: expected 48 bytes"),
    "other size": (lambda r: frame(packed({**r, "side": 2, "image": bytes(12)})), "expected a 4 px picture"),
    "too much proprio": (lambda r: frame(packed({**r, "proprio": [0.0, 0.0]})), "1 numbers of proprio"),
    "no proprio": (lambda r: frame(packed({**r, "proprio": None})), "1 numbers of proprio"),
    "pickle": (lambda r: frame(pickle.dumps(r)), "not the msgpack expected"),
    "too long": (lambda r: struct.pack(">I", 2**32 - 1) + b"x", "came a length of 4294967295"),
    "cut off": (lambda r: frame(packed(r))[:-5], "no reply to 'observe' within"),
    "nothing": (lambda r: b"", "no reply to 'observe' within"),
    "closed": (lambda r: None, "the connection broke|no reply"),
}


@pytest.mark.parametrize("lie", READING_LIES)
def test_a_reply_that_cannot_be_true_is_refused_in_time_and_nothing_is_believed_after_it(lie: str) -> None:
    answer, message = READING_LIES[lie]
    liar = Liar(lambda r: answer(honest(r)) if r["type"] == "observe" else frame(packed(honest(r))))
    try:
        robot = BridgeRobot.at(*liar.address, timeout_s=0.15)
        robot.connect()
        began = time.monotonic()
        with pytest.raises(RobotError, match=message):
            robot.get_observation()
        assert time.monotonic() - began < 0.15 + SLACK_S
        for call in (robot.get_observation, robot.reset, lambda: robot.send_action(np.zeros(2))):
            with pytest.raises(RobotError, match=message):
                call()
        robot.disconnect()
    finally:
        liar.close()


def test_readings_that_run_backwards_are_refused() -> None:
    sequence = iter([5, 4])
    liar = Liar(
        lambda r: frame(packed({**honest(r), "sequence": next(sequence)} if r["type"] == "observe" else honest(r)))
    )
    try:
        robot = BridgeRobot.at(*liar.address, timeout_s=1.0)
        robot.connect()
        robot.get_observation()
        with pytest.raises(RobotError, match="reading 4 .* came after 5"):
            robot.get_observation()
        robot.disconnect()
    finally:
        liar.close()


def test_a_doubt_closes_the_connection_so_that_the_robot_is_stopped(patient: Scene) -> None:
    go_on = threading.Event()
    patient.robot.before_observe = lambda: void(go_on.wait(3.0))
    robot = patient.ours(timeout_s=0.3)
    with pytest.raises(RobotError, match="no reply to 'observe' within 0.3 s"):
        robot.get_observation()
    go_on.set()
    assert eventually(lambda: patient.guard.latched is not None)
    assert patient.robot.stops()
    robot.disconnect()


def test_a_stop_that_is_not_confirmed_is_said() -> None:
    liar = Liar(lambda r: b"" if r["type"] == "stop" else frame(packed(honest(r))))
    try:
        stop = BridgeStopper(*liar.address, timeout_s=0.1)
        began = time.monotonic()
        with pytest.raises(RobotError, match="stop was not confirmed"):
            stop()
        assert time.monotonic() - began < 0.2 + SLACK_S
    finally:
        liar.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_our_client_sends_no_bad_action_at_all(patient: Scene, bad: float) -> None:
    robot = patient.ours()
    with pytest.raises(BadInputError, match="expected 2 finite numbers"):
        robot.send_action(np.array([0.0, bad]))
    assert robot.send_action(np.array([0.5, 0.5])).tolist() == [0.5, 0.5]  # it is still connected
    assert len(patient.robot.moved()) == 1
    robot.disconnect()
