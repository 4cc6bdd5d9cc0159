"""`wm control`: drive a robot towards a goal picture, through the shield, in real time."""

from __future__ import annotations

import contextlib
import json as json_module
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

import wm
from wm.datasets.schema import DatasetSpec
from wm.errors import RobotError
from wm.experiments.control_panel import View, Watcher
from wm.experiments.control_setup import ControlRequest, Drive, prepare, refuse_rules, run_info
from wm.experiments.delayed_planner import planner_spec
from wm.experiments.episode_sink import EpisodeSink, plain
from wm.experiments.options import KeepOut, MaxSpeed, RulesPath, Think, Workspace, rules_of
from wm.experiments.robots import Rig, logged_spec
from wm.experiments.rules import RobotShape, on_states
from wm.planners.control.loop import INTERRUPTED, ControlLoop, LoopReport, StepLog
from wm.planners.control.parts import LogSink
from wm.planners.control.states import State
from wm.planners.control.supervisor import Supervisor
from wm.planners.control.worker import PlannerProcess
from wm.planners.guardrails import Guardrail

START_S = 120.0
"""Longest time for the planner's process to load its model."""

SWITCH_S = 0.0005
"""How long another thread may hold the interpreter while the loop's is due (Python's own value is 5 ms)."""

REACHED = "the goal is reached"

RobotOption = Annotated[
    str,
    typer.Option(help="sim:pusht, sim:arm, sim:WORLD with --uncertified, or tcp:HOST:PORT for one behind a bridge."),
]
GoalOption = Annotated[Path, typer.Option(help="The goal picture: any square PNG, JPEG, … of at least 16 px.")]
RateOption = Annotated[float | None, typer.Option(help="Control steps per second; has to be the robot's.")]
StartOption = Annotated[
    Path | None,
    typer.Option(help="Simulated start, as `wm goal` wrote it (default: the .json beside the goal, if any)."),
]
SeedOption = Annotated[int | None, typer.Option(help="Of the search, and of a simulated start without a file.")]
ModelOption = Annotated[
    str | None,
    typer.Option(help="Model: a shipped name or a path (default: the simulated robot's world; tcp: pusht)."),
]
UntilReached = Annotated[bool, typer.Option("--until-reached", help="End when the simulator finds it so.")]
ResetOption = Annotated[
    bool,
    typer.Option("--reset", help="Release a stop that others asked for, or the deadman, whose cause is gone (tcp:)."),
]
UncertifiedOption = Annotated[
    bool,
    typer.Option(
        "--uncertified", help="Drive a simulation that declares no kinematics inside its actions' bounds alone."
    ),
]
LogOption = Annotated[Path | None, typer.Option(help="Episode store for what happened; one that exists goes on.")]
LatencyOption = Annotated[
    float | None,
    typer.Option(help="Longest time until an action acts, certified for (and simulated); default 0, tcp: 2 periods."),
]


@dataclass(frozen=True)
class Driven:
    """What came of it.

    Attributes:
        report: The loop's.
        reached: The simulator's success test, None where nobody can tell.
        smallest_margins: At the control steps' readings, by guardrail; between two of them it may have been smaller.
        episodes: Committed in the log's store, None without a log.
    """

    report: LoopReport
    reached: bool | None
    smallest_margins: dict[str, float]
    episodes: int | None


@dataclass
class Keeper:
    """The loop's log: hands every control step on, keeps the readings, and ends the run when the goal is reached.

    Attributes:
        sinks: Who else gets the control steps.
        rig: The robot.
        until_reached: Ask the simulator.
        loop: Set once it is built.
        readings: Proprioception of every control step.
    """

    sinks: list[LogSink]
    rig: Rig
    until_reached: bool
    loop: ControlLoop | None = None
    readings: list[np.ndarray] = field(default_factory=list)

    def record(self, step: StepLog) -> None:
        """Take a control step.

        Raises:
            StoreError: the log cannot be written.
        """
        if step.observation is not None and step.observation.proprio is not None:
            self.readings.append(step.observation.proprio)
        for sink in self.sinks:
            sink.record(step)
        simulated = self.rig.simulated
        if self.until_reached and self.loop is not None and simulated is not None and simulated.reached:
            self.loop.finish(REACHED)


def drive(parts: Drive, console: Console) -> Driven:
    """Drive until the time is over, the goal is reached (where that is asked for), or something stops it.

    Whatever happens, the robot has been stopped and the log closed when this returns or raises.

    Raises:
        StoreError: the log cannot be written.
        WmError: planner or supervisor cannot be started, or the robot is not ready.
    """
    request, rig = parts.request, parts.rig
    with contextlib.ExitStack() as stack:
        stack.callback(rig.robot.disconnect)
        sink = _sink(parts)
        if sink is not None:
            stack.callback(sink.close)
        planner = PlannerProcess(parts.setup, planner_spec(parts.model))
        stack.callback(planner.close)
        planner.start(START_S)
        supervisor = None if rig.make_stopper is None else Supervisor(rig.make_stopper)
        if supervisor is not None:
            stack.callback(supervisor.close)
            supervisor.start(START_S)
        keeper = Keeper([] if sink is None else [sink], rig, request.until_reached)
        loop = ControlLoop(rig.robot, planner, parts.shield, parts.settings, supervisor, keeper)
        stack.callback(loop.close)
        units = {rule.name: rule.unit for rule in parts.guardrails}
        timing = float(request.duration_s), parts.settings.rate_hz, parts.settings.on_time_s
        view = View(*timing, units, digits_of(parts), not parts.request.uncertified)
        watcher = Watcher(view, console, lambda: (loop.state.value, loop.why))
        keeper.loop, keeper.sinks = loop, [*keeper.sinks, watcher]
        loop.arm()
        with quick_switches(), watcher.showing():
            report = loop.run(request.duration_s)
        if sink is not None:
            sink.end(report)
    reached = rig.simulated.reached if rig.simulated is not None and parts.goal_known else None
    return Driven(report, reached, _smallest(parts.guardrails, keeper.readings), None if sink is None else len(sink))


def record_of(parts: Drive, driven: Driven) -> dict[str, Any]:
    """JSON values of a run."""
    request = parts.request
    record: dict[str, Any] = plain(
        run_info(parts)
        | driven.report.as_values()
        | {
            "reached": driven.reached,
            "smallest_margins_at_readings": driven.smallest_margins,
            "log": None if request.log is None else {"path": str(request.log), "episodes": driven.episodes},
            "warnings": list(parts.warnings),
        }
    )
    return record


def summary(parts: Drive, driven: Driven) -> str:
    """What `wm control` prints at the end."""
    report, request = driven.report, parts.request
    verdict = {True: "goal reached", False: "goal not reached", None: "nobody can tell whether the goal is reached"}
    units = {rule.name: rule.unit for rule in parts.guardrails}
    lines = [
        f"{report.state.value} after {report.duration_s:.1f} s: {report.why}; {verdict[driven.reached]}",
        f"{report.on_time} of {report.periods} periods on time, begun {report.late_ms.p99:.2f} ms late at most in 99 %",
        f"{report.plans.get('fresh', 0)} plans in time, {report.plans.get('late', 0)} late; "
        f"{report.plan_ms.p50:.0f} ms each (median)",
        *_certified(parts, report),
    ]
    for name, margin in driven.smallest_margins.items():
        lines.append(f"guardrail {name}: smallest margin at the readings {margin:.{digits_of(parts)}f} {units[name]}")
    if request.log is not None:
        lines.append(f"{request.log}: {driven.episodes} episodes")
    return "\n".join(lines)


def _certified(parts: Drive, report: LoopReport) -> list[str]:
    """What was certified of the actions."""
    sent, shape = sum(report.actions.values()), parts.shape
    if shape is None:
        rested = report.actions.get("uncertified_stop", 0)
        return [
            "no action was certified, only the bounds of the actions were kept",
            f"{report.interventions} of {sent} actions were clipped, {rested} replaced by the rest action",
        ]
    return [
        f"shield changed {report.interventions} of {sent} actions",
        f"{report.uncertified} stops were not certified"
        + (f"; the first: {report.first_uncertified}" if report.uncertified else ""),
        f"{report.contradictions} readings contradicted the stated bounds"
        + (f", by {report.outside:.2g} {shape.unit} at most" if report.contradictions else ""),
    ]


def digits_of(parts: Drive) -> int:
    """Decimals of a length."""
    return RobotShape.digits if parts.shape is None else parts.shape.digits


def _sink(parts: Drive) -> EpisodeSink | None:
    if parts.request.log is None:
        return None
    simulated, size = parts.rig.simulated, parts.rig.robot.observation_spec.image_size
    recipe = {"command": "wm control", "wm": wm.__version__}
    spec = DatasetSpec(logged_spec(parts.rig, parts.model.spec.env), size, recipe=recipe)
    state_at = None if simulated is None else simulated.state_at
    return EpisodeSink(parts.request.log, spec, run_info(parts), state_at)


def _smallest(guardrails: Sequence[Guardrail], readings: Sequence[np.ndarray]) -> dict[str, float]:
    if not readings:
        return {}
    path = torch.from_numpy(np.stack(readings).astype(np.float32))
    return {rule.name: float(rule.margin_of(path).min()) for rule in on_states(guardrails)}


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Threads beside the loop (a panel, a log) hold the interpreter for `SWITCH_S` at most when it is due."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def report_and_end(parts: Drive, driven: Driven, json: bool) -> None:
    """Print the run; the exit code says what it came to.

    Raises:
        KeyboardInterrupt: somebody interrupted it.
        RobotError: the robot had to be stopped, or a stop was not certified that should have been.
    """
    report = driven.report
    if json:
        sys.stdout.write(json_module.dumps(record_of(parts, driven), indent=2, allow_nan=False) + "\n")
    else:
        print(summary(parts, driven))
    sys.stdout.flush()
    if report.why == INTERRUPTED:
        raise KeyboardInterrupt
    if report.state is not State.IDLE:
        raise RobotError(f"the robot was stopped: {report.why}.")
    if parts.request.uncertified:
        return
    if report.uncertified:
        raise RobotError(f"{report.uncertified} stops were not certified; the first: {report.first_uncertified}.")


def main(
    robot: RobotOption,
    goal: GoalOption,
    rate: RateOption = None,
    model: ModelOption = None,
    start: StartOption = None,
    seed: SeedOption = None,
    keep_out: KeepOut = None,
    workspace: Workspace = None,
    max_speed: MaxSpeed = None,
    rules: RulesPath = None,
    duration: Annotated[float, typer.Option(help="Seconds.")] = 30.0,
    until_reached: UntilReached = False,
    reset: ResetOption = False,
    log: LogOption = None,
    uncertified: UncertifiedOption = False,
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
    think: Think = None,
    latency_ms: LatencyOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run as JSON, and nothing else, to stdout.")] = False,
) -> None:
    """Drive a robot towards a goal picture: plan beside the loop, certify every action, log; Ctrl-C stops it."""
    refuse_rules(uncertified and any(given is not None for given in (rules, keep_out, workspace, max_speed)))
    kept = rules_of(rules, keep_out, workspace, max_speed)
    request = ControlRequest(
        robot=robot,
        goal=goal,
        rate=rate,
        start=start,
        seed=seed,
        model=model,
        planner=planner,
        think=think,
        rules=kept.rules,
        bounds=kept.bounds,
        duration_s=duration,
        latency_ms=latency_ms,
        log=log,
        until_reached=until_reached,
        reset=reset,
        uncertified=uncertified,
    )
    torch.set_num_threads(1)  # the other core is the planner's
    parts = prepare(request)
    for warning in parts.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    report_and_end(parts, drive(parts, Console(stderr=json)), json)
