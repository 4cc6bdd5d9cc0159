"""How long does a robot go on when its control loop dies? SIGKILL, SIGSTOP and a deadlock, at random instants.

    python -m wm.experiments.studies.stop_time --runs 200 --out stop_time.json

Each run starts a control loop and its supervisor in processes of their own, lets the loop move a robot in a third one,
and makes it die while it is running. The robot writes down when the stop arrives. In every second run the robot is
behind a bridge, reached as `wm control --robot tcp:HOST:PORT` reaches it.
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from wm.errors import RobotError, UnknownNameError
from wm.experiments.atomic import write_files
from wm.experiments.robots import bridged_rig
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.measuring_robot import HOST, Line, Slot, serve
from wm.experiments.studies.moving_robots import OBSERVATION, LineRobot, hanging, serve_bridge
from wm.experiments.studies.point_robot import PUSHER, PUSHER_ACTION
from wm.planners.control.loop import ControlLoop, LoopSettings, StepLog
from wm.planners.control.messages import PlannerSpec, PlanReply, PlanRequest
from wm.planners.control.parts import HasLatch
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.control.states import State
from wm.planners.control.supervisor import Supervisor
from wm.robot import Robot
from wm.watchdog import Board, Stopper

Death = Literal["SIGKILL", "SIGSTOP", "deadlock"]
Way = Literal["direct", "bridge"]

SPEC = PlannerSpec(PUSHER_ACTION, OBSERVATION, frames=1, stride=1)
MOVES = 5
"""Control steps of motion before the loop dies."""

STILL_MOVING_S = 2.0 / PUSHER_ACTION.control_hz
"""Age of the last motion up to which a robot counts as being moved."""

START_S = 120.0
"""Longest time for a robot to start, and from a loop's start until it moves the robot."""

TRIES = 20
"""Loops one after the other that may fail to be moving the robot when they are to die."""

BAR_MS = 150.0
"""Longest time from the loop's death to the robot's stop."""


@dataclass(frozen=True)
class StopTime:
    """One run.

    Attributes:
        way: How loop and supervisor reach the robot.
        death: Of the loop.
        stop_ms: From the loop's death to the robot's stop; None when there was none.
        last_move_ms: From the loop's death to the last motion the robot was told (negative: before).
        moves_after_stop: Motions the robot was told after the stop.
        stands: The last thing the robot was told is a stop, also after a stopped process was continued.
    """

    way: str
    death: str
    stop_ms: float | None
    last_move_ms: float
    moves_after_stop: int
    stands: bool

    @property
    def kept(self) -> bool:
        """The robot was stopped within `BAR_MS`, and moved no more."""
        in_time = self.stop_ms is not None and self.stop_ms <= BAR_MS
        return in_time and self.moves_after_stop == 0 and self.stands


class Straight:
    """Plans at once, always the same: straight on."""

    spec, alive = SPEC, True

    def __init__(self) -> None:
        self._reply: PlanReply | None = None

    def submit(self, request: PlanRequest) -> bool:
        """Plan."""
        rest = np.full((20, PUSHER_ACTION.width), 0.1)
        self._reply = PlanReply(request.step, np.concatenate([request.committed, rest]))
        return True

    def poll(self) -> PlanReply | None:
        """The plan, once."""
        reply, self._reply = self._reply, None
        return reply


class Running:
    """The loop's log: writes down whether it runs."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def record(self, step: StepLog) -> None:
        """Take a control step."""
        self._board[Slot.RUNNING] = step.state is State.RUNNING


def build(robot: Robot, limits: ShieldLimits, reading_age_s: float | None, log: Running, **options: Any) -> ControlLoop:
    """The loop that dies; ``reading_age_s`` as in `LoopSettings`, more options as of `ControlLoop`."""
    shield = Shield(PUSHER, PUSHER_ACTION, [], limits)
    settings = LoopSettings(PUSHER_ACTION.control_hz, plan_timeout_s=60, reading_age_s=reading_age_s)
    return ControlLoop(robot, Straight(), shield, settings, log=log, **options)


def drive(board: Board, port: int, way: Way) -> None:
    """Body of the process that dies."""
    make_stopper: Callable[[], Stopper] = functools.partial(Line, port)
    robot: Robot = LineRobot(port)
    limits, reading_age_s = ShieldLimits(), None
    if way == "bridge":
        rig = bridged_rig(HOST, port)
        assert rig.make_stopper is not None
        robot, make_stopper, limits = rig.robot, rig.make_stopper, ShieldLimits(rig.late_s)
        reading_age_s = rig.reading_age_s
        robot.connect()
        assert isinstance(robot, HasLatch)
        robot.reset(force=True)  # the run before ended with a stop
    supervisor = Supervisor(make_stopper)
    supervisor.start(START_S)
    robot.get_observation = hanging(robot.get_observation, board)  # type: ignore[method-assign]
    loop = build(robot, limits, reading_age_s, Running(board), supervisor=supervisor)
    loop.arm()
    for slot in (Slot.FIRST_STOP, Slot.MOVES_AFTER_STOP, Slot.MOVES):
        board[slot] = 0  # the stops of arming do not count
    loop.run()


@contextmanager
def measuring_robot(way: Way = "direct") -> Iterator[tuple[Board, int]]:
    """The robot's process: its numbers and its port."""
    context = multiprocessing.get_context("spawn")
    board = context.RawArray(ctypes.c_int64, len(Slot))
    receiver, sender = context.Pipe(duplex=False)
    body = serve if way == "direct" else serve_bridge
    process = context.Process(target=body, args=(board, sender), daemon=True)
    process.start()
    try:
        if not receiver.poll(START_S):
            raise RobotError("the measuring robot did not start.")
        yield board, receiver.recv()
    finally:
        process.kill()
        process.join()


def start(board: Board, port: int, way: Way = "direct") -> SpawnProcess:
    """Start a loop; it is under way once `Slot.MOVES` grows."""
    for slot in Slot:
        board[slot] = 0
    process = multiprocessing.get_context("spawn").Process(target=drive, args=(board, port, way))
    process.start()
    return process


def moving(board: Board, now: int) -> bool:
    """At ``now`` [ns] the loop runs and moves the robot, `MOVES` times at least, the last not long ago; no stop yet."""
    recent = now - board[Slot.LAST_MOVE] <= 1e9 * STILL_MOVING_S
    return bool(board[Slot.RUNNING]) and board[Slot.MOVES] >= MOVES and recent and not 0 < board[Slot.FIRST_STOP] < now


def kill(board: Board, process: SpawnProcess, death: Death, wait_s: float, way: Way = "direct") -> StopTime | None:
    """Let a started loop die ``wait_s`` seconds after some control steps, and wait for the robot's stop.

    Returns:
        None when the loop was not moving the robot any more, or not yet after `START_S`: a computer so busy that it
        lets no loop run for a tenth of a second gets the robot stopped anyway.
    """
    assert process.pid is not None
    try:
        _until(lambda: moving(board, time.monotonic_ns()) or not process.is_alive(), START_S)
        time.sleep(wait_s)
        died = time.monotonic_ns()
        if death == "deadlock":
            board[Slot.HANG] = 1
            _until(lambda: board[Slot.HUNG] > 0 or not process.is_alive(), 10)
            died = board[Slot.HUNG]
        else:
            _signal(process.pid, getattr(signal, death))
        if not died or not moving(board, died):
            return None
        _until(lambda: board[Slot.FIRST_STOP] > 0, 5)
        if death == "SIGSTOP":
            _signal(process.pid, signal.SIGCONT)
            process.join(10)
        time.sleep(0.05)
        stopped = board[Slot.FIRST_STOP]
        return StopTime(
            way=way,
            death=death,
            stop_ms=(stopped - died) / 1e6 if stopped else None,
            last_move_ms=(board[Slot.LAST_MOVE] - died) / 1e6,
            moves_after_stop=board[Slot.MOVES_AFTER_STOP],
            stands=board[Slot.LAST_STOP] > board[Slot.LAST_MOVE],
        )
    finally:
        process.kill()
        process.join()


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.kill(pid, number)


def _until(condition: Callable[[], bool], timeout_s: float | int) -> None:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


def summary(results: Sequence[StopTime]) -> dict[str, dict[str, Any]]:
    """Of all runs, of each way and of each death by each way: percentiles of the stop time [ms], None for no stop."""
    groups: dict[str, list[StopTime]] = {"all": list(results)}
    for way in get_args(Way):
        groups[way] = [run for run in results if run.way == way]
        groups |= {f"{way}, {death}": [run for run in groups[way] if run.death == death] for death in get_args(Death)}
    return {name: _numbers(runs) for name, runs in groups.items() if runs}


def _numbers(runs: Sequence[StopTime]) -> dict[str, Any]:
    times = [math.inf if run.stop_ms is None else run.stop_ms for run in runs]
    percentiles = {f"p{q}": float(np.percentile(times, q, method="higher")) for q in (50, 95, 99)} | {"max": max(times)}
    return {
        "runs": len(runs),
        **{name: value if math.isfinite(value) else None for name, value in percentiles.items()},
        "moves_after_stop": sum(run.moves_after_stop for run in runs),
        "stands": sum(run.stands for run in runs),
        "missed": sum(not run.kept for run in runs),
    }


def _told(milliseconds: float | None) -> str:
    return "never" if milliseconds is None else f"{milliseconds:.1f}"


def measure(runs: int, ways: Sequence[Way], seed: int, console: Console) -> tuple[list[StopTime], int]:
    """So many runs, ways and deaths in turn; and how many loops more were not moving the robot when they were to die.

    Raises:
        RobotError: `TRIES` loops one after the other did not.
    """
    rng = np.random.default_rng(seed)
    results: list[StopTime] = []
    unused = 0
    with ExitStack() as stack:
        robots = {way: stack.enter_context(measuring_robot(way)) for way in ways}
        for i in range(runs):
            way, death = ways[i % len(ways)], get_args(Death)[i // len(ways) % 3]
            for _ in range(TRIES):
                board, port = robots[way]
                result = kill(board, start(board, port, way), death, float(rng.uniform(0, 0.2)), way)
                if result is not None:
                    break
                unused += 1
                console.print(f"{i + 1}/{runs} {way}, {death}: the loop was not moving the robot; again")
            else:
                raise RobotError(
                    f"{TRIES} loops were not moving the robot when they were to die; is this computer busy?"
                )
            results.append(result)
            console.print(f"{i + 1}/{runs} {way}, {death}: {_told(result.stop_ms)} ms")
    return results, unused


def run(runs: int, ways: Sequence[Way], seed: int, out: Path, console: Console) -> bool:
    """Measure, print a table, write a file; whether every run kept `BAR_MS` and stood still from then on."""
    results, unused = measure(runs, ways, seed, console)
    found = summary(results)
    table = Table("loop dies", "runs", "p50 ms", "p95 ms", "p99 ms", "max ms", "robot stands", "moved after", "missed")
    for kind, row in found.items():
        times = [_told(row[name]) for name in ("p50", "p95", "p99", "max")]
        table.add_row(kind, str(row["runs"]), *times, *(str(row[n]) for n in ("stands", "moves_after_stop", "missed")))
    console.print(table)
    content = {"bar_ms": BAR_MS, "summary": found, "not_moving": unused, "runs": [asdict(each) for each in results]}
    write_files({out: json.dumps(content, indent=2, allow_nan=False).encode()})
    return all(each.kept for each in results)


def main(
    runs: Annotated[int, typer.Option(help="Loops that die; with both ways, half of them by each.", min=1)] = 200,
    robot: Annotated[str, typer.Option(help="How the robot is reached: direct, bridge or both.")] = "both",
    seed: Annotated[int, typer.Option(help="Of the instants at which they die.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="JSON file with every run.")] = Path("stop_time.json"),
) -> None:
    """Measure; exit code 3 when a robot was stopped later than after 150 ms, or moved after its stop."""
    if robot not in (*get_args(Way), "both"):
        raise UnknownNameError("robot", robot, (*get_args(Way), "both"))
    ways = [way for way in get_args(Way) if robot in (way, "both")]
    judge(run(runs, ways, seed, out, Console()))


if __name__ == "__main__":
    launch(main)
