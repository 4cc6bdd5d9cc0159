"""The robot stops within 150 ms of its loop's death, measured on a robot in another process, on the real clock."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.planners.control.fakes import (
    FakeRobot,
    Rig,
    no_collection,  # noqa: F401
)
from wm.experiments.studies.measuring_robot import Line, Slot
from wm.experiments.studies.stop_time import Death, StopTime, kill, measuring_robot, start
from wm.planners.control.loop import ControlLoop
from wm.planners.control.states import State
from wm.planners.control.supervisor import Supervisor
from wm.robot import RobotObservation

BAR_MS = 150.0


TRIES = 5
"""A computer so busy that it lets no loop run for a tenth of a second gets the robot stopped before the loop dies."""


@pytest.fixture(scope="module")
def deaths() -> dict[Death, StopTime]:
    """Loops that start at the same time, and die one after the other."""
    kinds: tuple[Death, ...] = ("SIGKILL", "SIGSTOP")
    found: dict[Death, StopTime] = {}
    with contextlib.ExitStack() as stack:
        robots = {kind: stack.enter_context(measuring_robot()) for kind in kinds}
        for _ in range(TRIES):
            loops = {kind: start(*robots[kind]) for kind in kinds if kind not in found}
            runs = {kind: kill(robots[kind][0], loop, kind, 0.03) for kind, loop in loops.items()}
            found |= {kind: run for kind, run in runs.items() if run is not None}
            if len(found) == len(kinds):
                break
    return found


@pytest.mark.parametrize("death", ["SIGKILL", "SIGSTOP"])
def test_robot_stops_in_time_when_the_loop_is_killed_or_stopped(deaths: dict[Death, StopTime], death: Death) -> None:
    assert 0 < deaths[death].stop_ms <= BAR_MS


def test_loop_that_is_continued_after_the_stop_does_not_move_the_robot(deaths: dict[Death, StopTime]) -> None:
    assert deaths["SIGSTOP"].stands and deaths["SIGSTOP"].moves_after_stop == 0


@pytest.mark.parametrize("where", ["get_observation", "send_action", "poll"])
def test_robot_stops_in_time_when_the_loop_deadlocks(where: str) -> None:
    for _ in range(TRIES):
        stop_ms = deadlock(where)
        if stop_ms > 0:
            break
    assert 0 < stop_ms <= BAR_MS


def deadlock(where: str) -> float:
    """From the deadlock of the loop's thread, while other threads of its process go on, to the robot's stop [ms]."""
    rig, asked, release = Rig(), threading.Event(), threading.Event()
    hung: list[int] = []

    def hanging(call: Callable[..., Any]) -> Callable[..., Any]:
        def hang(*args: Any) -> Any:
            if asked.is_set() and not hung:
                hung.append(time.monotonic_ns())
                release.wait(10)
            return call(*args)

        return hang

    with (
        measuring_robot() as (board, port),
        contextlib.closing(Supervisor(functools.partial(Line, port))) as supervisor,
    ):
        line, part = Line(port), rig.planner if where == "poll" else rig.robot
        rig.robot.clock = rig.planner.clock = time.monotonic  # type: ignore[assignment]
        setattr(part, where, hanging(getattr(part, where)))
        rig.robot.before_send = lambda index: line.move()
        rig.robot.before_stop = line
        supervisor.start(60)
        loop = ControlLoop(rig.robot, rig.planner, rig.shield, rig.settings, supervisor=supervisor)
        loop.arm()
        board[Slot.FIRST_STOP] = 0
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        until(lambda: board[Slot.MOVES] >= 2)
        asked.set()
        until(lambda: board[Slot.FIRST_STOP])
        stopped, moves = board[Slot.FIRST_STOP], board[Slot.MOVES]
        assert supervisor.trouble() == "supervisor: no heartbeat for 100 ms"
        release.set()  # a loop that goes on after all finds the latch
        thread.join(10)
        assert loop.state is State.STOPPED and loop.why == "supervisor: no heartbeat for 100 ms"
        assert board[Slot.MOVES] - moves <= (where == "send_action")
        until(lambda: board[Slot.LAST_STOP] > board[Slot.LAST_MOVE])
        loop.reset()
        assert supervisor.trouble() is None
    return (stopped - hung[0]) / 1e6 if hung else 0.0


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def test_estop_reaches_the_robot_through_the_supervisor_while_the_loop_is_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeRobot, "stop", lambda self: None)  # the loop's own way to the robot is cut
    stuck, release = threading.Event(), threading.Event()
    with contextlib.ExitStack() as stack:
        board, port = stack.enter_context(measuring_robot())
        supervisor = stack.enter_context(contextlib.closing(Supervisor(functools.partial(Line, port), timeout_s=5.0)))
        rig = Rig()
        rig.robot.clock = rig.planner.clock = time.monotonic  # type: ignore[assignment]
        observe = rig.robot.get_observation

        def hang() -> RobotObservation:
            if rig.robot.sequence >= 3:
                stuck.set()
                release.wait(10)
            return observe()

        rig.robot.get_observation = hang  # type: ignore[method-assign]
        supervisor.start(60)
        loop = ControlLoop(rig.robot, rig.planner, rig.shield, rig.settings, supervisor=supervisor)
        loop.arm()
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        assert stuck.wait(5)
        pressed = time.monotonic_ns()
        loop.estop("red button")
        until(lambda: board[Slot.FIRST_STOP])
        assert (board[Slot.FIRST_STOP] - pressed) / 1e6 <= BAR_MS
        release.set()
        thread.join(5)
        assert loop.state is State.STOPPED and loop.why == "red button"
