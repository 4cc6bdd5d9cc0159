"""The robot stops within 150 ms of its loop's death, measured on a robot in another process, on the real clock."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from tests.planners.control import fakes
from tests.planners.control.fakes import (
    FakeRobot,
    Rig,
    no_collection,  # noqa: F401
)
from wm.errors import UnknownNameError
from wm.experiments.studies import stop_time
from wm.experiments.studies.closed_loop import VirtualClock
from wm.experiments.studies.launch import MISSED
from wm.experiments.studies.measuring_robot import Line, Slot, moved
from wm.experiments.studies.moving_robots import MovingRobot
from wm.experiments.studies.stop_time import (
    Death,
    Running,
    StopTime,
    Way,
    build,
    kill,
    measuring_robot,
    moving,
    start,
)
from wm.planners.control.loop import ControlLoop
from wm.planners.control.shield import ShieldLimits
from wm.planners.control.states import State
from wm.planners.control.supervisor import Supervisor
from wm.robot import RobotObservation

pytestmark = pytest.mark.real_time

BAR_MS = 150.0


TRIES = 5
"""A computer so busy that it lets no loop run for a tenth of a second gets the robot stopped before the loop dies."""


@pytest.fixture(scope="module", params=["direct", "bridge"])
def deaths(request: pytest.FixtureRequest) -> dict[Death, StopTime]:
    """Loops that start at the same time, and die one after the other while they move a robot."""
    kinds: tuple[Death, ...] = ("SIGKILL", "SIGSTOP")
    way: Way = request.param
    found: dict[Death, StopTime] = {}
    with contextlib.ExitStack() as stack:
        robots = {kind: stack.enter_context(measuring_robot(way)) for kind in kinds}
        for _ in range(TRIES):
            loops = {kind: start(*robots[kind], way) for kind in kinds if kind not in found}
            runs = {kind: kill(robots[kind][0], loop, kind, 0.03, way) for kind, loop in loops.items()}
            found |= {kind: run for kind, run in runs.items() if run is not None}
            if len(found) == len(kinds):
                break
    return found


@pytest.mark.parametrize("death", ["SIGKILL", "SIGSTOP"])
def test_robot_stops_in_time_when_the_loop_is_killed_or_stopped(deaths: dict[Death, StopTime], death: Death) -> None:
    stop_ms = deaths[death].stop_ms
    assert stop_ms is not None and 0 < stop_ms <= BAR_MS
    assert deaths[death].kept


def test_loop_that_is_continued_after_the_stop_does_not_move_the_robot(deaths: dict[Death, StopTime]) -> None:
    assert deaths["SIGSTOP"].stands and deaths["SIGSTOP"].moves_after_stop == 0


@pytest.mark.parametrize("latency", [0.0, 0.2])
def test_what_dies_is_a_loop_that_runs_and_moves_its_robot_all_the_time(latency: float) -> None:
    clock, board = VirtualClock(), [0] * len(Slot)
    robot = TimedRobot(clock, board)
    loop = build(robot, ShieldLimits(latency), latency / 2 or None, Running(board), clock=clock, sleep=clock.sleep)
    loop.arm()
    report = loop.run(3.0)
    assert report.holds == report.contradictions == 0 and board[Slot.RUNNING] == 1
    assert board[Slot.MOVES] == 28  # all but those before the first plan
    place = robot.get_observation().proprio
    assert place is not None and float(np.abs(place[:2] - 256).min()) > 28 * 4  # it went with them


class TimedRobot(MovingRobot):
    def __init__(self, clock: VirtualClock, board: list[int]) -> None:
        super().__init__(clock)
        self.board = board

    def when_moved(self) -> None:
        moved(self.board, 1)


def test_only_a_loop_that_runs_and_has_just_moved_the_robot_counts_as_driving_it() -> None:
    now = 10**12
    board = [0] * len(Slot)
    board[Slot.RUNNING], board[Slot.MOVES], board[Slot.LAST_MOVE] = 1, 5, now - 10**8
    assert moving(board, now)
    for slot, value in [(Slot.RUNNING, 0), (Slot.MOVES, 4), (Slot.LAST_MOVE, now - 10**9), (Slot.FIRST_STOP, now - 1)]:
        other = list(board)
        other[slot] = value
        assert not moving(other, now)


def test_stop_times_are_json_and_a_missed_bar_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        StopTime("direct", "SIGKILL", 110.0, -50.0, 0, True),
        StopTime("bridge", "SIGSTOP", 160.0, -50.0, 0, True),
        StopTime("bridge", "deadlock", None, -50.0, 0, False),
        StopTime("direct", "deadlock", 110.0, -50.0, 1, True),
    ]
    assert [run.kept for run in runs] == [True, False, False, False]
    for count, kept in ((1, True), (4, False)):
        monkeypatch.setattr(stop_time, "measure", lambda *_, count=count: (runs[:count], 0))
        out = tmp_path / f"{count}.json"
        with pytest.raises(typer.Exit) as ended:
            stop_time.main(runs=count, robot="both", seed=0, out=out)
        assert ended.value.exit_code == (0 if kept else MISSED)
        written = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"not JSON: {name}"))
    assert written["summary"]["bridge"]["max"] is None and written["summary"]["all"]["missed"] == 3
    assert written["runs"][2]["stop_ms"] is None
    with pytest.raises(UnknownNameError, match="robot 'bride'"):
        stop_time.main(runs=1, robot="bride", seed=0, out=tmp_path / "no.json")


@pytest.mark.parametrize("where", ["get_observation", "send_action", "poll"])
def test_robot_stops_in_time_when_the_loop_deadlocks(where: str) -> None:
    for _ in range(TRIES):
        stop_ms = deadlock(where)
        if stop_ms > 0:
            break
    assert 0 < stop_ms <= BAR_MS


def deadlock(where: str) -> float:
    """From the deadlock of the loop's thread, while other threads of its process go on, to the robot's stop [ms]."""
    rig, asked, release = Rig(robot_class=fakes.MovingRobot), threading.Event(), threading.Event()
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
        send = rig.robot.send_action

        def sending(action: np.ndarray) -> np.ndarray:
            if action.any():
                line.move()
            return send(action)

        rig.robot.send_action = sending  # type: ignore[method-assign]
        setattr(part, where, hanging(getattr(part, where)))
        rig.robot.before_stop = line
        supervisor.start(60)
        loop = ControlLoop(rig.robot, rig.planner, rig.shield, rig.settings, supervisor=supervisor)
        loop.arm()
        board[Slot.FIRST_STOP] = 0
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        until(lambda: board[Slot.MOVES] >= 2)
        assert loop.state is State.RUNNING
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
