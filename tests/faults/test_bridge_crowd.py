"""What the bridge promises when more connect than it serves; one test for each promise."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.contracts.robot_suite import eventually
from tests.faults.bridge_scene import FRAME_S, Client, Scene, datagram, packed, playing
from wm.envs.bridge import BridgeStopper

pytestmark = pytest.mark.real_time

IDLE_S = 0.4


@pytest.fixture
def small() -> Iterator[Scene]:
    """Room for two clients and two stoppers; idle clients are not dropped for a long time."""
    with playing(max_clients=2, max_stoppers=2, idle_timeout_s=60.0, deadman_periods=1e6) as scene:
        yield scene


@contextlib.contextmanager
def idle_clients(scene: Scene, count: int) -> Iterator[list[Client]]:
    """Clients that have asked once."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(scene.client()) for _ in range(count)]
        for client in clients:
            assert client.ask("describe")["type"] == "described"
        yield clients


def test_more_clients_than_allowed_are_turned_away_and_a_datagram_stops_still(small: Scene) -> None:
    with small.commander() as first, idle_clients(small, 1) as (second,):
        with small.client() as third:
            assert "2 clients are connected" in third.ask("describe")["reason"]
            assert third.is_dropped()
        datagram(small, packed({"version": 1, "type": "stop", "id": 1}))
        assert eventually(lambda: small.guard.latched is not None)
        assert first.ask("observe")["type"] == "reading"
        second.sock.close()
        assert eventually(lambda: small.server._roster.count("client") == 1)
        with small.client() as third:
            assert third.ask("describe")["type"] == "described"


def test_one_who_is_turned_away_can_stop_all_the_same(small: Scene) -> None:
    with idle_clients(small, 2), small.client() as third:
        assert third.ask("stop")["type"] == "done"
        assert small.robot.stops() and third.is_dropped()


def test_connections_that_say_nothing_are_turned_away_beyond_the_limit(small: Scene) -> None:
    with small.client(), small.client(), small.client() as third:
        began = time.monotonic()
        assert third.is_dropped() and time.monotonic() - began < FRAME_S / 2


def test_idle_clients_keep_no_stopper_out(small: Scene) -> None:
    with idle_clients(small, 2):
        stop = BridgeStopper(*small.server.address, timeout_s=3.0)
        stop()
        assert "client 127" in str(small.guard.latched)
        stop.close()


def test_stoppers_keep_no_client_out_and_make_room_for_a_new_one(small: Scene) -> None:
    stops = [BridgeStopper(*small.server.address, timeout_s=3.0) for _ in range(3)]
    with idle_clients(small, 2):
        stops[2]()
        assert "client 127" in str(small.guard.latched)
        small.guard._latch = None
        stops[0]()  # it made room, and has the datagram left
        assert "datagram from 127" in str(small.guard.latched)
    assert small.server._roster.count("stopper") == 2
    for stop in stops:
        stop.close()


def test_an_idle_client_is_dropped_in_time_and_one_that_asks_is_not() -> None:
    with playing(max_clients=3, idle_timeout_s=IDLE_S) as scene, idle_clients(scene, 2) as (silent, busy):
        end = time.monotonic() + 2 * IDLE_S
        while time.monotonic() < end:
            assert busy.ask("observe")["type"] == "reading"
            time.sleep(IDLE_S / 8)
        assert silent.is_dropped()
        robot = scene.ours()  # there is room again
        robot.disconnect()


def test_neither_a_commander_nor_a_stopper_is_dropped_for_being_idle() -> None:
    with playing(idle_timeout_s=IDLE_S, deadman_periods=1e6) as scene:
        robot, stop = scene.ours(), BridgeStopper(*scene.server.address, timeout_s=3.0)
        time.sleep(2 * IDLE_S)
        robot.send_action(np.zeros(2))
        stop()
        assert "client 127" in str(scene.guard.latched)  # by its own connection
        robot.disconnect()
        stop.close()


def test_one_that_stands_by_may_only_stop(small: Scene) -> None:
    for kind in ("command", "observe", "standby"):
        with small.client() as client:
            assert client.ask("standby")["type"] == "done"
            assert "expected one of ['describe', 'stop']" in client.ask(kind)["reason"]
            assert client.is_dropped()
    with idle_clients(small, 1) as (client,):
        assert "came 'standby'" in client.ask("standby")["reason"]  # only as the first request
    assert small.guard.commander is None
