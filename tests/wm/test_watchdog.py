from __future__ import annotations

import os
import threading
from collections.abc import Callable
from multiprocessing import Pipe

import pytest

from wm import watchdog
from wm.watchdog import Slot, Trip

pytestmark = pytest.mark.real_time

PARENT, TIMEOUT_NS, POLL_S = 77, 100_000_000, 0.005


class World:
    """Its time passes while the watchdog sleeps; ``at`` says what happens when [ms]."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10**12
        self.board = [0] * len(Slot)
        self.ended = threading.Event()
        self.parent = PARENT
        self.stops: list[float] = []
        self.fail: Callable[[], None] = lambda: None
        self._at: list[tuple[float, Callable[[], object]]] = []
        monkeypatch.setattr(watchdog, "time", self)
        monkeypatch.setattr(os, "getppid", lambda: self.parent)

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(1e9 * seconds)
        for _, call in [entry for entry in self._at if entry[0] <= self.ms]:
            call()
        self._at = [entry for entry in self._at if entry[0] > self.ms]

    @property
    def ms(self) -> float:
        return (self.now_ns - 10**12) / 1e6

    def at(self, ms: float, call: Callable[[], object]) -> None:
        self._at.append((ms, call))

    def put(self, slot: Slot, value: int) -> Callable[[], None]:
        return lambda: self.board.__setitem__(slot, value)

    def beats(self, until_ms: float, every_ms: float = 10, begin_ms: float = 0) -> None:
        """Watched from now on, with beats."""
        self.board[Slot.BEAT], self.board[Slot.WATCHED] = self.now_ns, 1
        for i in range(int((until_ms - begin_ms) / every_ms) + 1):
            ms = begin_ms + i * every_ms
            self.at(ms, self.put(Slot.BEAT, 10**12 + round(1e6 * ms)))

    def stopper(self) -> None:
        self.fail()
        self.stops.append(self.ms)

    def run(self) -> None:
        watchdog._watch(self.board, self.stopper, PARENT, TIMEOUT_NS, POLL_S, self.ended)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def end(world: World, ms: float) -> None:
    world.at(ms, world.put(Slot.WATCHED, 0))
    world.at(ms, world.put(Slot.CLOSE, 1))


def test_silence_stops_the_robot_once_and_latches(world: World) -> None:
    world.beats(until_ms=300)
    end(world, 1000)
    world.run()
    assert len(world.stops) == 1 and 400 < world.stops[0] <= 400 + 2 * 1000 * POLL_S
    assert world.board[Slot.TRIP] == Trip.SILENT
    assert world.board[Slot.STOPPED_AT] == 10**12 + round(1e6 * world.stops[0])


def test_beating_loop_is_left_alone(world: World) -> None:
    world.beats(until_ms=1000, every_ms=95)
    end(world, 1000)
    world.run()
    assert world.stops == [] and world.board[Slot.TRIP] == 0


def test_nobody_has_to_beat_who_is_not_watched(world: World) -> None:
    end(world, 1000)
    world.run()
    assert world.stops == []


@pytest.mark.parametrize("watched", [True, False])
def test_estop_stops_the_robot(world: World, watched: bool) -> None:
    if watched:
        world.beats(until_ms=1000)
    world.at(500, world.put(Slot.ESTOP, 1))
    world.at(600, world.put(Slot.WATCHED, 0))
    end(world, 1000)
    world.run()
    assert 500 <= world.stops[0] <= 510 and world.board[Slot.TRIP] == Trip.ESTOP


def test_orphan_stops_the_robot_and_ends(world: World) -> None:
    world.beats(until_ms=10_000)
    world.at(500, lambda: setattr(world, "parent", 1))
    world.run()
    assert 500 <= world.stops[0] <= 510 and world.board[Slot.TRIP] == Trip.ORPHANED and world.ms <= 510


@pytest.mark.parametrize("how", ["terminated", "closed"])
@pytest.mark.parametrize("driven", [True, False])
def test_watchdog_that_has_to_end_first_stops_a_driven_robot(world: World, how: str, driven: bool) -> None:
    if driven:
        world.beats(until_ms=10_000)
    world.at(500, world.ended.set if how == "terminated" else world.put(Slot.CLOSE, 1))
    world.run()
    assert bool(world.stops) is driven and world.ms <= 510
    assert world.board[Slot.TRIP] == (Trip.ENDED if driven else 0)


def test_latch_holds_until_reset_and_then_it_watches_again(world: World) -> None:
    world.beats(until_ms=100)
    world.at(400, world.put(Slot.WATCHED, 0))
    latched: list[int] = []
    world.at(450, lambda: latched.append(world.board[Slot.TRIP]))
    world.at(500, world.put(Slot.RESET, 1))
    world.at(600, lambda: world.beats(until_ms=700, begin_ms=600))
    end(world, 1200)
    world.run()
    assert latched == [Trip.SILENT] and len(world.stops) == 2 and 800 < world.stops[1] <= 815
    assert world.board[Slot.RESET] == 0 and world.board[Slot.ATTEMPTS] == 1


def test_loop_that_wakes_after_it_was_taken_for_dead_is_stopped_again(world: World) -> None:
    world.beats(until_ms=100)
    world.at(600, world.put(Slot.BEAT, 10**12 + 600_000_000))
    world.at(1000, world.put(Slot.BEAT, 10**12 + 1_000_000_000))
    end(world, 1500)
    world.run()
    assert [round(stop, -2) for stop in world.stops] == [200, 600, 1000]


def test_stop_that_fails_is_tried_until_it_works(world: World) -> None:
    world.beats(until_ms=0)
    errors = [OSError("no answer")] * 20

    def fail() -> None:
        assert world.board[Slot.STOPPED_AT] == 0
        if errors:
            raise errors.pop()

    world.fail = fail
    end(world, 1000)
    world.run()
    assert len(world.stops) == 1 and world.board[Slot.ATTEMPTS] == 21 and world.board[Slot.STOPPED_AT] > 0


def test_stop_that_hangs_does_not_keep_the_next_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "FIRST_WAIT_S", 0.01)
    world.beats(until_ms=0)
    release, calls = threading.Event(), []

    def hang() -> None:
        calls.append(1)
        if len(calls) < 3:
            release.wait(10)

    world.fail = hang
    end(world, 1000)
    world.run()
    release.set()
    assert len(calls) == 3 and world.board[Slot.STOPPED_AT] > 0


def test_watchdog_says_that_it_lives(world: World) -> None:
    stale: list[int] = []
    for ms in range(100, 1000, 100):
        world.at(ms, lambda: stale.append(world.now_ns - world.board[Slot.ALIVE]))
    end(world, 1000)
    world.run()
    assert max(stale) <= 1e9 * POLL_S


def test_stopper_that_cannot_be_built_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_detach", threading.Event)
    receiver, sender = Pipe(duplex=False)

    def broken() -> Callable[[], None]:
        raise OSError("no such robot")

    watchdog.watch([0] * len(Slot), sender, broken, PARENT, TIMEOUT_NS, POLL_S)
    assert receiver.recv() == "OSError: no such robot"
