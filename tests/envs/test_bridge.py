from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.robot_suite import START, Driven, RecordedWorld, RobotContract
from wm.envs.bridge import BridgeRobot, BridgeServer, BridgeStopper, serve
from wm.envs.bridge import messages as m
from wm.envs.bridge.__main__ import main
from wm.envs.bridge.client import StampMap
from wm.envs.bridge.server import describe
from wm.envs.gym_robot import GymRobot
from wm.errors import BadInputError, RobotError

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"timeout_s": 5.0}  # a busy machine


@contextmanager
def served(world: RecordedWorld | None = None, **options: Any) -> Iterator[BridgeServer]:
    robot = GymRobot(world or RecordedWorld(), reset_options={"state": START})
    with BridgeServer(robot, **{"deadman_periods": 1e4, **options}) as server:
        yield server


class TestBridgeRobot(RobotContract):
    @contextmanager
    def build(self) -> Iterator[Driven]:
        world = RecordedWorld()
        with served(world) as server:
            yield Driven(BridgeRobot.at(*server.address, **SLOW), lambda: list(world.received))

    def resume(self, robot: Any) -> None:
        robot.reset()


@pytest.fixture
def server() -> Iterator[BridgeServer]:
    with served() as server:
        yield server


def test_the_specifications_come_over_whole(server: BridgeServer) -> None:
    robot = BridgeRobot.at(*server.address, **SLOW)
    assert robot.observation_spec == server.robot.observation_spec
    assert robot.action_spec == server.robot.action_spec
    assert robot.kinematics == server.robot.kinematics


def test_an_action_s_optional_field_comes_over_and_is_left_out_where_there_is_none() -> None:
    world = RecordedWorld()
    with served(world) as server:
        plain = m.pack(describe(server.robot, 1, 0.5))
        assert b"segment" not in plain and "segment" not in m.unpack(plain, m.REPLIES).action  # as in older programs
    world.unwrapped.spec_ = replace(world.unwrapped.spec_, action=replace(world.unwrapped.spec_.action, segment=2.5))
    with served(world) as server:
        assert BridgeRobot.at(*server.address, **SLOW).action_spec.segment == 2.5
        told = describe(server.robot, 1, 0.5)
    for action, message in (
        (told.action | {"segment": -1.0}, r"described\.action\.segment: expected a finite number"),
        (told.action | {"other": 1.0}, r"described\.action: missing \[\], unknown \['other'\]"),
        (told.action | {"unit": None}, r"described\.action\.unit: expected a text"),
    ):
        with pytest.raises(BadInputError, match=message):
            m.pack(replace(told, action=action))


def test_another_robot_than_expected_is_refused(server: BridgeServer) -> None:
    told = BridgeRobot.at(*server.address, **SLOW)
    action = replace(told.action_spec, unit="mm")
    other = BridgeRobot(
        *server.address, observation_spec=told.observation_spec, action_spec=action, kinematics=told.kinematics
    )
    with pytest.raises(RobotError, match="another robot: expected .*unit='mm'.*came .*unit='100 px'"):
        other.connect()
    assert server.guard.commander is None


def test_readings_come_over_bit_for_bit(server: BridgeServer) -> None:
    robot = BridgeRobot.at(*server.address, **SLOW)
    robot.connect()
    robot.send_action(np.array([0.3, -0.7]))
    here, there = robot.get_observation(), server.robot.get_observation()
    np.testing.assert_array_equal(here.image, there.image)
    np.testing.assert_array_equal(here.proprio, there.proprio)
    robot.disconnect()


def test_only_one_client_commands_and_the_next_one_after_it(server: BridgeServer) -> None:
    first, second = (BridgeRobot.at(*server.address, **SLOW) for _ in range(2))
    first.connect()
    with pytest.raises(RobotError, match="another client commands this robot"):
        second.connect()
    first.disconnect()
    second.connect()
    second.send_action(np.zeros(2))
    second.disconnect()


def test_nobody_there_is_said() -> None:
    with served() as server:
        robot = BridgeRobot.at(*server.address)
        address = server.address
    with pytest.raises(RobotError, match="cannot be reached"):
        robot.connect()
    with pytest.raises(RobotError, match="cannot be reached"):
        BridgeStopper(*address)


@pytest.mark.parametrize("host", [".", "a..b", "a" * 70, "\udcff"])
def test_an_address_that_none_can_have_is_said(host: str) -> None:
    for call in (BridgeRobot.at, BridgeStopper):
        with pytest.raises(RobotError, match="cannot be reached"):
            call(host, 5555)
    with pytest.raises(BadInputError, match="there is no such IPv4 address"):
        BridgeServer(GymRobot(RecordedWorld()), host)


def test_the_command_line_serves_a_robot_to_a_client_without_our_package() -> None:
    arguments = ["--env", "pusht", "--port", "0", "--seed", "3", "--image-size", "32"]
    command = [sys.executable, "-m", "wm.envs.bridge", *arguments, "--deadman-periods", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on 127.0.0.1:")
            client, port = ROOT / "docs" / "robot_client.py", line.strip().split(":")[1]
            shown = subprocess.run(
                [sys.executable, "-I", str(client), port, "10"], capture_output=True, text=True, check=True, timeout=30
            )
        finally:
            process.terminate()
            assert process.wait(10) == 0
    assert shown.stdout.splitlines()[0] == "robot: ['dx', 'dy'] in units of 100 px"
    at = np.array(shown.stdout.splitlines()[1].split()[-2:], float)
    assert np.abs(at - 256.0).max() < 20.0


def test_the_example_client_is_short_and_plain() -> None:
    text = (ROOT / "docs" / "robot_client.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"msgpack", "socket", "struct", "sys", "time"}


def test_the_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "0.0.0.0", "--port", "0"]) == 2
    assert "other computers reach it" in capsys.readouterr().err


def test_other_computers_are_served_only_when_allowed() -> None:
    robot = GymRobot(RecordedWorld())
    with pytest.raises(BadInputError, match="expected a loopback address"):
        serve(robot, "0.0.0.0")
    with BridgeServer(robot, "0.0.0.0", allow_remote=True) as server:
        BridgeRobot.at("127.0.0.1", server.address[1], **SLOW)


def test_a_port_that_is_taken_is_said(server: BridgeServer) -> None:
    with pytest.raises(RobotError, match="cannot listen on 127.0.0.1"):
        serve(GymRobot(RecordedWorld()), port=server.address[1])


def test_closing_twice_or_unstarted_is_no_error() -> None:
    server = BridgeServer(GymRobot(RecordedWorld()))
    server.close()
    server.start()
    server.close()
    server.close()


def test_a_stopper_can_be_made_by_another_process_and_stops_again_and_again(server: BridgeServer) -> None:
    make = partial(BridgeStopper, *server.address, timeout_s=5.0)
    stop = make()
    for _ in range(3):
        stop()
    assert "client 127.0.0.1" in str(server.guard.latched)
    stop.close()
    stop()  # by datagram


def reading(clock: float, stamp: float, sequence: int) -> m.Reading:
    return m.Reading(0, clock, stamp, sequence, 1, b"rgb", None)


@given(
    offset=st.floats(-1e6, 1e6),
    trips=st.lists(st.tuples(*[st.floats(0.0, 0.3)] * 4), min_size=1, max_size=20),
)
def test_a_stamp_is_never_newer_than_the_truth_and_older_by_at_most_the_round_trip(
    offset: float, trips: list[tuple[float, float, float, float]]
) -> None:
    stamps, now, last, previous = StampMap(), 50.0, -np.inf, -np.inf
    for sequence, (age, there, back, pause) in enumerate(trips):
        asked = now
        answered = asked + there
        measured = max(last, answered - age)
        local = stamps.local(asked, reading(answered + offset, measured + offset, sequence))
        now = answered + back + pause
        assert local <= measured + 1e-9 + 1e-9 * abs(offset)
        assert local >= measured - there - 1e-9 - 1e-9 * abs(offset)
        assert local >= previous
        last, previous = measured, local


@pytest.mark.parametrize(
    ("clock", "stamp", "sequence", "message"),
    [
        (11.0, 11.5, 6, "stamped 0.500000 s in the future"),
        (9.0, 8.5, 6, "came after 5"),
        (11.0, 10.5, 4, "came after 5"),
        (11.0, 9.0, 6, "came after 5"),
        (11.0, 10.2, 5, "came twice"),
    ],
)
def test_a_reading_that_cannot_be_true_is_refused(clock: float, stamp: float, sequence: int, message: str) -> None:
    stamps = StampMap()
    stamps.local(0.0, reading(10.0, 9.5, 5))
    with pytest.raises(RobotError, match=message):
        stamps.local(1.0, reading(clock, stamp, sequence))


def test_the_same_reading_twice_keeps_its_stamp() -> None:
    stamps = StampMap()
    first = stamps.local(0.0, reading(10.0, 9.5, 5))
    assert stamps.local(0.4, reading(10.1, 9.5, 5)) == first == -0.5


MESSAGES = [
    m.Describe(1),
    m.Act(2, (0.5, -1.0)),
    m.Stop(0),
    m.Stop(0, owner=7),
    m.Command(1, owner=2**63 - 1),
    m.Reset(1, force=True),
    m.Sent(7, (0.25,)),
    m.Refused(3, "no"),
    m.Reading(4, 2.0, 1.5, 9, 2, bytes(range(12)), (1.0, 2.0)),
    m.Reading(4, 2.0, 1.5, 9, 1, b"rgb", None),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_a_message_comes_back_as_it_was(message: m.Message) -> None:
    data = m.pack(message)
    assert m.unpack(data, m.REQUESTS + m.REPLIES) == message
    assert len(data) <= (m.MAX_REQUEST_BYTES if isinstance(message, m.REQUESTS) else m.MAX_REPLY_BYTES)


@pytest.mark.parametrize("kind", [m.Command, m.Stop, m.Reset])
def test_what_may_be_left_out_of_a_message_is_left_out(kind: type[m.Message]) -> None:
    plain = {"version": 1, "type": kind.__name__.lower(), "id": 3}
    assert msgpack.unpackb(m.pack(kind(3))) == plain
    assert m.unpack(msgpack.packb(plain), m.REQUESTS) == kind(3)


def test_the_largest_picture_fits_into_a_reply() -> None:
    image = bytes(3 * 1024**2)
    assert len(m.pack(m.Reading(2**63 - 1, 1e12, 1e12, 2**63 - 1, 1024, image, (1.0,) * 64))) <= m.MAX_REPLY_BYTES


def test_the_server_waits_for_no_watcher(server: BridgeServer) -> None:
    watcher = BridgeStopper(*server.address, timeout_s=5.0)  # connected, says nothing
    robot = BridgeRobot.at(*server.address, **SLOW)
    robot.connect()
    began = time.monotonic()
    robot.send_action(np.zeros(2))
    assert time.monotonic() - began < 1.0
    robot.disconnect()
    watcher.close()
