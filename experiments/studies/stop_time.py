"""How long does a robot go on when its control loop dies? SIGKILL, SIGSTOP and a deadlock, at random instants.

    python -m wm.experiments.studies.stop_time --runs 200 --out stop_time.json

Each run starts a control loop and its supervisor in processes of their own, lets the loop drive a robot in a third one,
and makes it die. The robot writes down when the stop arrives.
"""

from __future__ import annotations

import ctypes
import functools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from wm.errors import RobotError
from wm.experiments.atomic import write_files
from wm.experiments.studies.measuring_robot import Line, Slot, serve
from wm.experiments.studies.point_robot import PUSHER, PUSHER_ACTION
from wm.kinematics import PointKinematics
from wm.planners.control.loop import ControlLoop, LoopSettings
from wm.planners.control.messages import PlannerSpec, PlanReply, PlanRequest
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.control.supervisor import Supervisor
from wm.robot import ObservationSpec, RobotObservation
from wm.specs import ActionSpec, ProprioSpec
from wm.watchdog import Board

Death = Literal["SIGKILL", "SIGSTOP", "deadlock"]

OBSERVATION = ObservationSpec(8, ProprioSpec(("x", "y", "vx", "vy"), ("px", "px", "px/s", "px/s")))
SPEC = PlannerSpec(PUSHER_ACTION, OBSERVATION, frames=1, stride=1)
MOVES = 5
"""Control steps of motion before the loop dies."""


@dataclass(frozen=True)
class StopTime:
    """One run.

    Attributes:
        death: Of the loop.
        stop_ms: From the loop's death to the robot's stop; infinite when there was none.
        last_move_ms: From the loop's death to the last motion it was told (negative: before).
        moves_after_stop: Motions the robot was told after the stop.
        stands: The last thing the robot was told is a stop, also after a stopped process was continued.
    """

    death: str
    stop_ms: float
    last_move_ms: float
    moves_after_stop: int
    stands: bool


class LineRobot:
    """The measuring robot behind the robot protocol; a deadlock is in its `get_observation`."""

    def __init__(self, board: Board, port: int) -> None:
        self._board, self._line, self._sequence = board, Line(port), 0
        self.observation_spec: ObservationSpec = OBSERVATION
        self.action_spec: ActionSpec = PUSHER_ACTION
        self.kinematics: PointKinematics | None = PUSHER

    def connect(self) -> None:
        """Nothing: a datagram needs no connection."""

    def get_observation(self) -> RobotObservation:
        """A new one each time."""
        if self._board[Slot.HANG]:
            lock = threading.Lock()
            lock.acquire()
            self._board[Slot.HUNG] = time.monotonic_ns()
            lock.acquire()
        self._sequence += 1
        image = np.full((8, 8, 3), self._sequence % 256, np.uint8)
        return RobotObservation(image, np.array([256, 256, 0, 0], np.float32), time.monotonic(), self._sequence)

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """One control step of motion, whatever the action."""
        self._line.move()
        return action.copy()

    def stop(self) -> None:
        """Stop.

        Raises:
            RobotError: not confirmed.
        """
        try:
            self._line()
        except OSError as error:
            raise RobotError(f"no confirmation of the stop: {error}") from error

    def disconnect(self) -> None:
        """Stop."""
        self.stop()


class Straight:
    """Plans at once, always the same."""

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


def drive(board: Board, port: int) -> None:
    """Body of the process that dies."""
    supervisor = Supervisor(functools.partial(Line, port))
    supervisor.start(60)
    shield = Shield(PUSHER, PUSHER_ACTION, [], ShieldLimits())
    settings = LoopSettings(PUSHER_ACTION.control_hz, plan_timeout_s=60)
    loop = ControlLoop(LineRobot(board, port), Straight(), shield, settings, supervisor=supervisor)
    loop.arm()
    for slot in (Slot.FIRST_STOP, Slot.MOVES_AFTER_STOP, Slot.MOVES):
        board[slot] = 0  # the stops of arming do not count
    loop.run()


@contextmanager
def measuring_robot() -> Iterator[tuple[Board, int]]:
    """The robot's process: its numbers and its port."""
    context = multiprocessing.get_context("spawn")
    board = context.RawArray(ctypes.c_int64, len(Slot))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(board, sender), daemon=True)
    process.start()
    try:
        if not receiver.poll(30):
            raise RobotError("the measuring robot did not start.")
        yield board, receiver.recv()
    finally:
        process.kill()
        process.join()


def start(board: Board, port: int) -> SpawnProcess:
    """Start a loop; it is under way once `Slot.MOVES` grows."""
    for slot in Slot:
        board[slot] = 0
    process = multiprocessing.get_context("spawn").Process(target=drive, args=(board, port))
    process.start()
    return process


def kill(board: Board, process: SpawnProcess, death: Death, wait_s: float) -> StopTime | None:
    """Let a started loop die ``wait_s`` seconds after some control steps, and wait for the robot's stop.

    Returns:
        None when the loop was not driving the robot any more, or not yet after a minute: a computer so busy that it
        lets no loop run for a tenth of a second gets the robot stopped anyway.
    """
    assert process.pid is not None
    try:
        _until(lambda: board[Slot.MOVES] >= MOVES, 60)
        time.sleep(wait_s)
        died = time.monotonic_ns()
        if death == "deadlock":
            board[Slot.HANG] = 1
            _until(lambda: board[Slot.HUNG] > 0, 10)
            died = board[Slot.HUNG]
        else:
            os.kill(process.pid, getattr(signal, death))
        if board[Slot.MOVES] < MOVES or not died or 0 < board[Slot.FIRST_STOP] < died:
            return None
        _until(lambda: board[Slot.FIRST_STOP] > 0, 5)
        if death == "SIGSTOP":
            os.kill(process.pid, signal.SIGCONT)
            process.join(10)
        time.sleep(0.05)
        stopped = board[Slot.FIRST_STOP]
        return StopTime(
            death=death,
            stop_ms=(stopped - died) / 1e6 if stopped else float("inf"),
            last_move_ms=(board[Slot.LAST_MOVE] - died) / 1e6,
            moves_after_stop=board[Slot.MOVES_AFTER_STOP],
            stands=board[Slot.LAST_STOP] > board[Slot.LAST_MOVE],
        )
    finally:
        process.kill()
        process.join()


def _until(condition: Callable[[], bool], timeout_s: float | int) -> None:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


def summary(results: Sequence[StopTime]) -> dict[str, dict[str, float]]:
    """Percentiles of the stop time [ms] of all runs and of each kind."""
    kinds = {"all": list(results)} | {d: [r for r in results if r.death == d] for d in get_args(Death)}
    return {
        kind: {
            "runs": len(runs),
            **{f"p{q}": float(np.percentile([r.stop_ms for r in runs], q, method="higher")) for q in (50, 95, 99)},
            "max": max(r.stop_ms for r in runs),
            "moves_after_stop": sum(r.moves_after_stop for r in runs),
            "stands": sum(r.stands for r in runs),
        }
        for kind, runs in kinds.items()
        if runs
    }


def main(
    runs: Annotated[int, typer.Option(help="Loops that die.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of the instants at which they die.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON file with every run.")] = Path("stop_time.json"),
) -> None:
    """Measure, print a table, write a file."""
    rng, console = np.random.default_rng(seed), Console()
    results: list[StopTime] = []
    unused = 0
    with measuring_robot() as (board, port):
        for i in range(runs):
            death: Death = get_args(Death)[i % 3]
            while (result := kill(board, start(board, port), death, float(rng.uniform(0, 0.2)))) is None:
                console.print(f"{i + 1}/{runs} {death}: the loop was not driving the robot; again")
                unused += 1
            results.append(result)
            console.print(f"{i + 1}/{runs} {death}: {result.stop_ms:.1f} ms")
    table = Table(
        "loop dies by", "runs", "p50 ms", "p95 ms", "p99 ms", "max ms", "robot stands", "moved after the stop"
    )
    for kind, row in summary(results).items():
        times = [f"{row[name]:.1f}" for name in ("p50", "p95", "p99", "max")]
        table.add_row(kind, str(row["runs"]), *times, str(row["stands"]), str(row["moves_after_stop"]))
    console.print(table)
    content = {"summary": summary(results), "not_driving": unused, "runs": [asdict(result) for result in results]}
    write_files({out: json.dumps(content, indent=2).encode()})


if __name__ == "__main__":
    typer.run(main)
