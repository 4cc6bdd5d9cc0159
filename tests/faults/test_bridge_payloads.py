"""What the bridge promises about malformed and hostile payloads; one test for each promise."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.contracts.robot_suite import eventually
from tests.faults.bridge_scene import (
    FRAME_S,
    SLACK_S,
    Scene,
    act,
    datagram,
    frame,
    packed,
    playing,
)
from wm.envs.bridge import messages as m
from wm.envs.bridge.frames import receive_frame
from wm.errors import BadInputError

pytestmark = pytest.mark.real_time


@pytest.fixture
def patient() -> Iterator[Scene]:
    """Without a deadman to speak of."""
    with playing(deadman_periods=1e6) as scene:
        yield scene


class Attack:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


MALFORMED = {
    "not msgpack": b"\xc1",
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "pickle": pickle.dumps({"version": 1, "type": "stop", "id": 1}),
    "trailing bytes": packed(act(0.0, 0.0)) + b"\x00",
    "truncated msgpack": packed(act(0.0, 0.0))[:-1],
    "no map": packed([1, "act", 5, [0.0, 0.0]]),
    "nested 4000 deep": b"\x91" * 4000 + b"\x00",
    "maps nested 1300 deep": b"\x81\xa1a" * 1300 + b"\x00",
    "an array said to be 4 billion long": b"\xdd\xff\xff\xff\xff",
    "a map said to be 4 billion long": b"\xdf\xff\xff\xff\xff",
    "a text said to be 4 GB long": b"\xdb\xff\xff\xff\xff",
    "bytes said to be 4 GB long": b"\xc6\xff\xff\xff\xff",
    "an extension": packed({**act(0.0), "action": msgpack.ExtType(5, b"abc")}),
    "a time stamp": packed(msgpack.Timestamp(1, 2)),
    "other version": packed(act(0.0, 0.0, version=2)),
    "no version": packed({"type": "stop", "id": 1}),
    "version true": packed(act(0.0, 0.0, version=True)),
    "unknown type": packed(act(0.0, 0.0, type="exec")),
    "a reply": packed({"version": 1, "type": "sent", "id": 5, "action": []}),
    "unknown key": packed(act(0.0, 0.0, force=1.0)),
    "missing key": packed({"version": 1, "type": "act", "id": 5}),
    "key that is no text": packed({**act(0.0, 0.0), 7: 1}),
    "repeated key": b"\x84"
    + packed("version")
    + b"\x01"
    + (packed("type") + packed("stop")) * 2
    + packed("id")
    + b"\x01",
    "id that is no number": packed(act(0.0, 0.0, id="5")),
    "negative id": packed(act(0.0, 0.0, id=-1)),
    "id true": packed(act(0.0, 0.0, id=True)),
    "NaN": packed(act(0.0, float("nan"))),
    "infinity": packed(act(float("inf"), 0.0)),
    "enormous number": packed(act(1e300, 0.0)),
    "text for a number": packed(act("0.0", 0.0)),
    "truth for a number": packed(act(True, 0.0)),
    "nothing for a number": packed(act(None, 0.0)),
    "too few numbers": packed(act(0.5)),
    "too many numbers": packed(act(0.5, 0.5, 0.5)),
    "no numbers": packed(act()),
    "thousand numbers": packed(act(*[0.0] * 400)),
    "numbers in numbers": packed(act([0.0], [0.0])),
    "one number": packed({**act(), "action": 0.5}),
    "force that is no truth": packed({"version": 1, "type": "reset", "id": 5, "force": 1}),
    "force in another message": packed({"version": 1, "type": "stop", "id": 5, "force": True}),
    "an owner that is no number": packed({"version": 1, "type": "stop", "id": 5, "owner": "me"}),
    "owner nought": packed({"version": 1, "type": "command", "id": 5, "owner": 0}),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    with playing(deadman_periods=1e6) as scene:
        yield scene


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_commander_is_dropped_and_the_robot_stopped_and_the_server_goes_on(shared: Scene, what: str) -> None:
    robot = shared.robot
    robot.events.clear()
    assert eventually(lambda: shared.guard.commander is None)
    with shared.commander() as client:
        client.ask("reset")
        client.sock.sendall(frame(MALFORMED[what]))
        assert client.is_dropped()
    assert eventually(lambda: shared.guard.commander is None)
    assert robot.moved() == [] and len(robot.stops()) >= 1
    assert "lost" in str(shared.guard.latched)
    with shared.commander() as client:
        assert client.ask("act", action=[0.5, 0.5])["type"] == "refused"
        assert client.ask("reset")["type"] == "done"
        assert client.ask("act", action=[0.5, 0.5])["type"] == "sent"


@settings(max_examples=200)
@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes_are_refused_by_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(BadInputError, match="bridge message"):
        m.unpack(data, m.REQUESTS)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100)
@given(key=st.sampled_from(["version", "type", "id", "action", "more"]), value=ANYTHING)
def test_any_value_in_any_place_is_either_the_message_or_refused(key: str, value: Any) -> None:
    try:
        message = m.unpack(packed(act(0.25, -0.5, **{key: value})), m.REQUESTS)
    except BadInputError:
        return
    assert isinstance(message, m.Act) and message.id >= 0
    assert all(type(number) is float and np.isfinite(number) and abs(number) <= 1e9 for number in message.action)


@settings(max_examples=200)
@given(st.data())
def test_a_flipped_byte_is_either_a_valid_message_or_refused(data: st.DataObject) -> None:
    body = bytearray(packed(act(0.25, -0.5)))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = m.unpack(bytes(body), m.REQUESTS)
    except BadInputError:
        return
    assert isinstance(message, m.Act) and np.isfinite(message.action).all()


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=64))
def test_random_bytes_on_the_wire_move_nothing_and_the_server_goes_on(shared: Scene, data: bytes) -> None:
    before = len(shared.robot.moved())
    with shared.client() as client:
        with contextlib.suppress(OSError):  # it may have been dropped before the end
            client.sock.sendall(data)
            client.sock.shutdown(socket.SHUT_WR)
        assert client.is_dropped()
    with shared.client() as client:
        assert client.ask("describe")["type"] == "described"
    assert len(shared.robot.moved()) == before


def test_a_pickle_is_never_loaded(patient: Scene, tmp_path: Path) -> None:
    body = pickle.dumps(Attack(tmp_path / "pwned"))
    for payload in (body, packed({**act(), "action": body})):
        with patient.client() as client:
            client.sock.sendall(frame(payload))
            assert client.is_dropped()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("length", [0, m.MAX_REQUEST_BYTES + 1, 2**31, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_without_taking_memory(patient: Scene, length: int) -> None:
    tracemalloc.start()
    try:
        with patient.client() as client:
            client.sock.sendall(struct.pack(">I", length))
            assert f"came a length of {length}" in client.reply()["reason"]
            assert client.is_dropped()
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def nested(depth: int) -> bytes:
    """Arrays of 64, ``depth`` deep."""
    return b"\xdc\x00\x40" + nested(depth - 1) * 64 if depth else b"\x90"


def test_a_bomb_of_sizes_takes_no_memory_to_refuse() -> None:
    bombs = [body for what, body in MALFORMED.items() if what not in ("too few numbers", "too many numbers")]
    bombs += [nested(3), b"\xdd\x00\x10\x00\x00" + b"\xc0" * 2**20]
    tracemalloc.start()
    try:
        for body in bombs:
            with pytest.raises(BadInputError):
                m.unpack(body, m.REQUESTS + m.REPLIES)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_frame_that_trickles_in_is_dropped_in_time_and_holds_up_nobody(patient: Scene) -> None:
    with patient.commander() as slow, patient.client() as other:
        began = time.monotonic()
        for byte in frame(packed(act(0.5, 0.5))):
            try:
                slow.sock.sendall(bytes([byte]))
            except ConnectionError:
                break
            asked = time.monotonic()
            assert other.ask("observe")["type"] == "reading"
            assert time.monotonic() - asked < SLACK_S
            time.sleep(0.05)
        assert slow.is_dropped()
        assert time.monotonic() - began < FRAME_S + 2 * SLACK_S
    assert patient.robot.moved() == [] and patient.robot.stops()
    assert "TimeoutError" in str(patient.guard.latched)


def test_a_frame_whose_bytes_keep_coming_too_slowly_ends_in_time() -> None:
    class Trickle(socket.socket):
        def recv(self, bufsize: int, flags: int = 0) -> bytes:
            time.sleep(0.02)
            return b"\x00"

    with Trickle() as sock:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="bytes came in time"):
            receive_frame(sock, 100, wait_s=None, timeout_s=0.025)
        assert time.monotonic() - began < SLACK_S


def test_a_connection_that_says_nothing_is_dropped_in_time(patient: Scene) -> None:
    with patient.client() as client:
        began = time.monotonic()
        assert client.is_dropped()
        assert time.monotonic() - began < FRAME_S + SLACK_S


@pytest.mark.parametrize("what", ["not msgpack", "pickle", "nested 4000 deep", "NaN", "unknown key"])
def test_a_malformed_datagram_is_ignored(shared: Scene, what: str) -> None:
    before = len(shared.robot.events)
    assert datagram(shared, MALFORMED[what], 0.05) is None
    assert datagram(shared, packed(act(0.5, 0.5)), 0.05) is None  # a datagram can only stop
    assert len(shared.robot.events) == before


def test_a_malformed_watcher_does_not_stop_the_commanders_robot(patient: Scene) -> None:
    with patient.commander() as client, patient.client() as watcher:
        watcher.sock.sendall(frame(b"\xc1"))
        assert watcher.is_dropped()
        assert client.ask("act", action=[0.5, 0.5])["type"] == "sent"
        assert patient.robot.stops() == []


def test_a_dropped_client_is_told_and_the_reason_is_logged(patient: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with patient.commander() as client:
        client.sock.sendall(frame(packed(act(0.5, 0.5, force=3))))
        assert "unknown ['force']" in client.reply()["reason"]
        assert client.is_dropped()
    assert any("dropped" in text and "unknown ['force']" in text for text in caplog.messages)
