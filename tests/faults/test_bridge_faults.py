"""What the bridge promises when a client leaves, hangs or dies, or the robot fails; one test for each promise."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest

from tests.contracts.robot_suite import eventually
from tests.faults.bridge_scene import (
    DEADMAN_S,
    RATE,
    SLACK_S,
    Scene,
    act,
    datagram,
    frame,
    packed,
    playing,
    void,
)
from wm.envs.bridge import BridgeStopper
from wm.errors import BadInputError, RobotError
from wm.robot import ObservationSpec, RobotObservation

pytestmark = pytest.mark.real_time


@pytest.fixture
def scene() -> Iterator[Scene]:
    with playing() as scene:
        yield scene


@pytest.fixture
def patient() -> Iterator[Scene]:
    """Without a deadman to speak of."""
    with playing(deadman_periods=1e6) as scene:
        yield scene


def test_a_client_that_does_not_read_is_dropped() -> None:
    with playing(deadman_periods=1e6) as scene:
        scene.robot.observation_spec = ObservationSpec(512, None)
        picture = np.zeros((512, 512, 3), np.uint8)
        scene.robot.get_observation = lambda: RobotObservation(picture, None, time.monotonic(), 1)  # type: ignore[method-assign]
        with scene.commander() as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sock.sendall(frame(packed({"version": 1, "type": "observe", "id": 1})) * 40)
            assert eventually(lambda: scene.guard.commander is None)
    assert scene.robot.stops()


def test_one_datagram_from_anyone_stops_and_latches(patient: Scene) -> None:
    with patient.commander() as client:
        client.ask("act", action=[0.5, 0.5])
        reply = datagram(patient, packed({"version": 1, "type": "stop", "id": 9}))
        assert reply is not None and msgpack.unpackb(reply) == {"version": 1, "type": "done", "id": 9}
        assert patient.robot.stops()
        assert "datagram from 127.0.0.1" in client.ask("act", action=[0.5, 0.5])["reason"]


def test_only_the_commander_moves_or_resets_and_anyone_stops(patient: Scene) -> None:
    with patient.commander() as client, patient.client() as watcher:
        for kind, fields in (("act", {"action": [0.5, 0.5]}), ("reset", {}), ("release", {})):
            assert "does not command" in watcher.ask(kind, **fields)["reason"]
        assert "another client commands" in watcher.ask("command")["reason"]
        assert patient.robot.events == []
        assert watcher.ask("stop")["type"] == "done"
        assert len(patient.robot.stops()) == 1
        assert "reset it first" in client.ask("act", action=[0.5, 0.5])["reason"]
        assert patient.robot.moved() == []


def test_a_stop_latches_until_the_commander_resets_it(patient: Scene) -> None:
    robot = patient.ours()
    robot.send_action(np.array([0.1, 0.1]))
    robot.stop()
    for _ in range(3):
        with pytest.raises(RobotError, match="refused: stopped .* reset it first"):
            robot.send_action(np.array([0.2, 0.2]))
    robot.get_observation()
    robot.reset()
    robot.send_action(np.array([0.3, 0.3]))
    assert [move[0] for move in patient.robot.moved()] == [0.1, 0.3]
    robot.disconnect()


def test_actions_that_were_queued_before_a_stop_never_reach_the_robot(patient: Scene) -> None:
    patient.robot.before_send = lambda: time.sleep(0.01)
    with patient.commander() as client:
        client.sock.sendall(frame(packed(act(0.5, 0.5))) * 30)
        assert eventually(lambda: len(patient.robot.moved()) >= 3)
        BridgeStopper(*patient.server.address, timeout_s=3.0)()
        replies = [client.reply()["type"] for _ in range(30)]
    assert 3 <= replies.count("sent") < 25
    kinds = ["act" if isinstance(what, np.ndarray) else what for _, what in patient.robot.events]
    assert kinds[-1] == "stop" and kinds.count("act") - replies.count("sent") in (0, 1)


def test_an_action_on_its_way_during_a_stop_is_braked_again(patient: Scene) -> None:
    on_its_way, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        on_its_way.set()
        go_on.wait(3.0)

    patient.robot.before_send = slow
    with patient.commander() as client, patient.client() as other:
        client.sock.sendall(frame(packed(act(0.5, 0.5))))
        assert on_its_way.wait(3.0)
        assert other.ask("stop")["type"] == "done"  # without waiting for the action
        go_on.set()
        assert client.reply()["type"] == "refused"
    kinds = [what if isinstance(what, str) else "act" for _, what in patient.robot.events]
    assert kinds[:3] == ["stop", "act", "stop"]


def test_a_silent_commander_stops_the_robot_within_the_deadman_time(scene: Scene) -> None:
    with scene.commander() as client:
        client.ask("act", action=[0.5, 0.5])
        sent = time.monotonic()
        assert eventually(lambda: len(scene.robot.stops()) == 1)
        assert DEADMAN_S - 0.05 < scene.robot.stops()[0] - sent < DEADMAN_S + SLACK_S
        assert "deadman" in client.ask("act", action=[0.5, 0.5])["reason"]
        assert len(scene.robot.moved()) == 1


@pytest.mark.parametrize("kind", ["observe", "describe", "command"])
def test_only_actions_keep_the_deadman_quiet(scene: Scene, kind: str) -> None:
    with scene.commander() as client:
        client.ask("act", action=[0.5, 0.5])
        end = time.monotonic() + DEADMAN_S + SLACK_S
        while time.monotonic() < end and not scene.robot.stops():
            client.ask(kind)
            time.sleep(0.01)
        assert len(scene.robot.stops()) == 1


def test_refused_actions_do_not_feed_the_deadman(scene: Scene) -> None:
    robot = scene.ours()
    robot.send_action(np.zeros(2))
    end = time.monotonic() + DEADMAN_S + SLACK_S
    while time.monotonic() < end and not scene.robot.stops():
        with pytest.raises(BadInputError):
            robot.send_action(np.full(2, np.nan))
        time.sleep(0.01)
    assert len(scene.robot.stops()) == 1
    robot.disconnect()


def test_the_deadman_rests_before_the_first_action_and_while_actions_come() -> None:
    with playing(deadman_periods=0.3 * RATE) as scene, scene.commander() as client:
        time.sleep(0.35)
        for _ in range(18):
            assert client.ask("act", action=[0.1, 0.1])["type"] == "sent"
            time.sleep(0.02)
        assert scene.robot.stops() == []


KILLED = """
import msgpack, socket, struct, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def frame(**fields):
    body = msgpack.packb({"version": 1, "id": 1, **fields})
    return struct.pack(">I", len(body)) + body
sock.sendall(frame(type="command"))
sock.recv(4096)
for _ in range(3):
    sock.sendall(frame(type="act", action=[0.5, 0.5]))
    sock.recv(4096)
sock.sendall(frame(type="act", action=[0.5, 0.5])[:-3])
print("now", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_client_killed_or_frozen_inside_a_frame_stops_the_robot_within_the_deadman_time(how: signal.Signals) -> None:
    deadman_s = 0.4
    with playing(frame_timeout_s=5.0, deadman_periods=deadman_s * RATE) as scene:
        command = [sys.executable, "-S", "-c", KILLED, str(scene.server.address[1])]
        path = {"PYTHONPATH": str(Path(msgpack.__file__).parents[1])}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=path) as process:
            assert process.stdout is not None and process.stdout.readline() == b"now\n"
            process.send_signal(how)
            at = time.monotonic()
            assert eventually(lambda: len(scene.robot.stops()) >= 1)
            assert scene.robot.stops()[0] - at < deadman_s + SLACK_S
            process.kill()
        assert len(scene.robot.moved()) == 3 and scene.guard.latched is not None


def test_leaving_in_order_brakes_without_a_latch(patient: Scene) -> None:
    robot = patient.ours()
    robot.send_action(np.zeros(2))
    robot.disconnect()
    assert len(patient.robot.stops()) == 1 and patient.guard.latched is None
    robot.connect()
    robot.send_action(np.zeros(2))
    robot.disconnect()


def test_leaving_without_a_word_brakes_and_latches(patient: Scene) -> None:
    with patient.commander() as client:
        client.ask("act", action=[0.5, 0.5])
    assert eventually(lambda: "closed the connection" in str(patient.guard.latched))
    assert patient.robot.stops()


def test_a_robot_that_raises_is_stopped_and_its_error_told(patient: Scene) -> None:
    robot = patient.ours()

    def broken() -> None:
        raise ZeroDivisionError("joint 3")

    patient.robot.before_send = broken
    with pytest.raises(RobotError, match="the robot failed: joint 3"):
        robot.send_action(np.zeros(2))
    assert patient.robot.stops() and "joint 3" in str(patient.guard.latched)
    patient.robot.before_observe = broken
    with pytest.raises(RobotError, match="the robot failed: joint 3"):
        robot.get_observation()
    robot.disconnect()


def test_a_robot_that_hangs_in_an_action_is_stopped_by_the_deadman(scene: Scene) -> None:
    go_on = threading.Event()
    scene.robot.before_send = lambda: void(go_on.wait(3.0))
    with scene.commander() as client:
        client.sock.sendall(frame(packed(act(0.5, 0.5))))
        at = time.monotonic()
        assert eventually(lambda: len(scene.robot.stops()) >= 1)
        assert scene.robot.stops()[0] - at < DEADMAN_S + SLACK_S
        go_on.set()
        assert client.reply()["type"] == "refused"


def test_a_stop_that_fails_is_tried_again_until_it_works_and_cannot_be_reset_before(patient: Scene) -> None:
    failing = threading.Event()
    tries: list[float] = []

    def stuck() -> None:
        tries.append(time.monotonic())
        if not failing.is_set():
            raise OSError("bus is busy")

    patient.robot.before_stop = stuck
    with patient.commander() as client:
        assert "bus is busy" in client.ask("stop")["reason"]
        assert "has not worked yet" in client.ask("reset")["reason"]
        assert eventually(lambda: len(tries) >= 3)
        failing.set()
        assert eventually(lambda: len(patient.robot.stops()) == 1)
        assert eventually(lambda: client.ask("reset")["type"] == "done")


def test_a_stop_that_is_under_way_cannot_be_reset(patient: Scene) -> None:
    braking, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        braking.set()
        go_on.wait(3.0)

    with patient.commander() as client, patient.client() as other:
        patient.robot.before_stop = slow
        other.sock.sendall(frame(packed({"version": 1, "type": "stop", "id": 1})))
        assert braking.wait(3.0)
        assert "has not worked yet" in client.ask("reset")["reason"]
        go_on.set()
        assert other.reply()["type"] == "done"
        assert client.ask("reset", force=True)["type"] == "done"


def test_a_robot_that_reports_nonsense_is_refused_and_the_server_goes_on(patient: Scene) -> None:
    robot = patient.ours()
    patient.robot.proprio = float("nan")
    with pytest.raises(RobotError, match="the robot reports nonsense: .*expected a finite number"):
        robot.get_observation()
    patient.robot.proprio = 1.0
    assert robot.get_observation().proprio == [1.0]
    robot.disconnect()


def test_a_stop_does_not_wait_for_a_call_that_hangs(patient: Scene) -> None:
    go_on, errors = threading.Event(), []
    patient.robot.before_observe = lambda: void(go_on.wait(5.0))
    robot = patient.ours(timeout_s=2.0)

    def look() -> None:
        try:
            robot.get_observation()
        except RobotError as error:
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    time.sleep(0.05)
    began = time.monotonic()
    robot.stop()
    assert time.monotonic() - began < SLACK_S and patient.robot.stops()
    go_on.set()
    thread.join()
    assert errors == []
    robot.disconnect()


def test_closing_the_server_stops_the_robot_before_it_lets_go() -> None:
    with playing(deadman_periods=1e6) as scene:
        robot = scene.ours()
        robot.send_action(np.zeros(2))
    kinds = [what if isinstance(what, str) else "act" for _, what in scene.robot.events]
    assert kinds[:2] == ["act", "stop"] and kinds[-1] == "disconnect"
    with pytest.raises(RobotError):
        robot.get_observation()
    robot.disconnect()


def test_a_stop_does_not_wait_for_a_connection_that_is_silent(patient: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = BridgeStopper(*patient.server.address, timeout_s=3.0)
    never = threading.Event()
    monkeypatch.setattr(patient.server, "_reply", lambda *_: never.wait(5.0) and b"")
    began = time.monotonic()
    calling = threading.Thread(target=stop)
    calling.start()
    assert eventually(lambda: bool(patient.robot.stops()))
    assert patient.robot.stops()[0] - began < 1.5 and "datagram" in str(patient.guard.latched)
    calling.join()  # confirmed, so it raises nothing
    never.set()


def test_a_stop_that_takes_long_returns_when_no_other_can_come_in_later(patient: Scene) -> None:
    robot, takes_s = patient.ours(timeout_s=5.0), [0.2, 1.0]  # by the connection, and by the datagram beside it
    patient.robot.before_stop = lambda: time.sleep(takes_s.pop(0) if takes_s else 0.0)
    robot.stop()
    robot.reset()  # refused while a stop is under way
    robot.send_action(np.zeros(2))
    robot.disconnect()


def test_a_stop_needs_no_thread_of_its_own(patient: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stop = BridgeStopper(*patient.server.address, timeout_s=2.0)
    monkeypatch.setattr(threading.Thread, "start", exhausted)
    stop()
    assert patient.robot.stops()


def test_a_stop_falls_back_to_the_datagram_when_its_connection_is_dead(patient: Scene) -> None:
    stop = BridgeStopper(*patient.server.address, timeout_s=2.0)
    for connection in list(patient.server._roster._connections.values()):
        connection.sock.shutdown(socket.SHUT_RDWR)
    stop()
    assert patient.robot.stops() and "datagram" in str(patient.guard.latched)
