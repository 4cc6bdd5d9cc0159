"""Does the loop keep its rate, and does it reach its goals as `wm eval` does? Real time, planner in its own process.

    python -m wm.experiments.studies.control_rate --minutes 10 --episodes 100 --out control_rate

First one run without a break, driven by `wm control`'s own functions with its panel and its log, towards one goal after
the other (`wm.experiments.studies.long_run`): what is reported of rate and jitter. Then episodes of 50 control steps at
10 Hz, and the same goals from the same starts in plain receding horizon, where the simulation waits for the planner:
what is reported of success.
"""

from __future__ import annotations

import ctypes
import dataclasses
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from wm.encoders.base import fingerprint
from wm.errors import WmError
from wm.experiments.assemble import find_model, make_env, make_model, make_mpc
from wm.experiments.atomic import write_json
from wm.experiments.control import START_S, quick_switches
from wm.experiments.control_setup import REPLAN_EVERY
from wm.experiments.delayed_planner import DelayedPlanner, PlannerSetup, planner_spec, warm_up
from wm.experiments.episode import Controller, run_episode
from wm.experiments.interval import wilson
from wm.experiments.robots import LEAD_STEPS, simulated_rig
from wm.experiments.rules import Rules
from wm.experiments.studies.launch import launch
from wm.experiments.studies.long_run import long_run
from wm.experiments.studies.ordinary import Ordinary, ordinary_tasks
from wm.experiments.studies.rows import Rows, opened, progress
from wm.model import WorldModel
from wm.planners.control.loop import INTERRUPTED, ControlLoop, LoopReport, LoopSettings, StepLog
from wm.planners.control.messages import PlanReply, PlanRequest
from wm.planners.control.parts import Planner
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.control.states import State
from wm.planners.control.worker import PlannerProcess

STEPS = 50
"""Control steps of an episode."""


@dataclass(frozen=True, eq=False)
class ManyGoals:
    """Builds, in the planner's process, a planner whose goal the study's process chooses while it runs.

    Attributes:
        setups: One for each episode, all with one model.
        chosen: Shared number: the episode now.
    """

    setups: tuple[PlannerSetup, ...]
    chosen: Any

    def __call__(self) -> ChosenGoal:
        """Load the model.

        Raises:
            WmError: it cannot be read.
        """
        return ChosenGoal(self, find_model(self.setups[0].model)[0])


class ChosenGoal:
    """Plans to the chosen goal."""

    def __init__(self, goals: ManyGoals, model: WorldModel) -> None:
        self._goals, self._model, self._episode = goals, model, -1
        warm_up(self._planner(0))

    def __call__(self, request: PlanRequest) -> PlanReply:
        """As `DelayedPlanner`; a new goal begins anew."""
        begin = time.monotonic()
        if self._goals.chosen.value != self._episode:
            self._episode = int(self._goals.chosen.value)
            self._plan = self._planner(self._episode)
        left = max(0.0, request.deadline_ms - 1000 * (time.monotonic() - begin))
        return self._plan(dataclasses.replace(request, deadline_ms=left))

    def _planner(self, episode: int) -> DelayedPlanner:
        setup = self._goals.setups[episode]
        return setup.planner_of(self._model, setup.goal_image, setup.seed)


class _Late:
    """Keeps how late the periods began."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    def record(self, step: StepLog) -> None:
        self.milliseconds.append(round(1000 * step.late_s, 4))


def run(
    minutes: float | int, episodes: int, seed: int, out: Path, model_name: str = "pusht", planner: str = "icem"
) -> dict[str, Any]:
    """Drive for so long, drive the episodes, play the same in plain receding horizon.

    Returns:
        The numbers, also in ``<out>/control_rate.json``: of the long run ``long_run``, None without minutes.

    Raises:
        WmError: no such model or planner, the loop faulted, or ``out`` cannot be written or holds another study.
    """
    model = make_model(model_name, "pusht")
    env = make_env("pusht", model.spec.encoder.image_size)
    settings = LoopSettings(env.env_spec.action.control_hz, lead_steps=LEAD_STEPS, replan_every=REPLAN_EVERY)
    config = {
        "study": "control_rate",
        "seed": seed,
        "model": fingerprint(model),
        "planner": planner,
        "steps": STEPS,
        "settings": dataclasses.asdict(settings),
    }
    rows, plain = opened(out, config), Rows(out / "plain.jsonl")
    tasks = ordinary_tasks(seed, episodes, env.image_size)
    common = PlannerSetup(model_name, planner, tasks[0].task.goal_image, env.kinematics, budget_steps=STEPS)
    setups = tuple(each.setup(common, True) for each in tasks)
    long = long_run(minutes, seed, out, model_name, planner) if minutes > 0 else None
    if rows.missing(episodes):
        _drive(env, model, tasks, setups, settings, rows)
    with progress("wm eval's way", episodes, episodes - len(plain.missing(episodes))) as (bar, task):
        for index in plain.missing(episodes):
            reached = _plainly(env, model, tasks[index], common)
            plain.append({"index": index, "reached": reached})
            bar.update(task, advance=1, note=f"{sum(r['reached'] for r in plain.first(episodes))} reached")
    result = config | {"long_run": long, "episodes": table(rows.first(episodes), plain.first(episodes))}
    write_json(out / "control_rate.json", result)
    return result


def _drive(
    env: Any,
    model: WorldModel,
    tasks: list[Ordinary],
    setups: tuple[PlannerSetup, ...],
    settings: LoopSettings,
    rows: Rows,
) -> None:
    """The episodes that are missing, in real time."""
    chosen = multiprocessing.get_context("spawn").RawValue(ctypes.c_int64, 0)
    process = PlannerProcess(ManyGoals(setups, chosen), planner_spec(model))
    count = len(tasks)
    try:
        process.start(START_S)
        with quick_switches(), progress("control_rate", count, count - len(rows.missing(count))) as (bar, task):
            for index in rows.missing(count):
                while process.busy:  # with what the last episode asked for
                    process.poll()
                    time.sleep(0.005)
                chosen.value = index
                rows.append(_episode(env, tasks[index], index, process, settings))
                done = rows.first(count)
                on_time = sum(row["on_time"] for row in done) / sum(row["periods"] for row in done)
                note = f"{on_time:.2%} on time, {sum(row['reached'] for row in done)} reached"
                bar.update(task, advance=1, note=note)
    finally:
        process.close()


def _episode(env: Any, each: Ordinary, index: int, planner: Planner, settings: LoopSettings) -> dict[str, Any]:
    """One episode's row."""
    rig = simulated_rig(env, each.task.start_state, each.task.goal_state)
    shield = Shield(env.kinematics, env.env_spec.action, each.rules.guardrails(), ShieldLimits())
    late = _Late()
    loop = ControlLoop(rig.robot, planner, shield, settings, log=late)
    try:
        loop.arm()
        report = loop.run(STEPS / settings.rate_hz)
    finally:
        loop.close()
    if report.why == INTERRUPTED:
        raise KeyboardInterrupt
    if report.state is not State.IDLE:
        raise WmError(f"the loop stopped: {report.why}")
    assert rig.simulated is not None
    return _row(index, report, rig.simulated.reached, late.milliseconds)


def _row(index: int, report: LoopReport, reached: bool, late_ms: list[float]) -> dict[str, Any]:
    return {
        "index": index,
        "reached": reached,
        "periods": report.periods,
        "on_time": report.on_time,
        "skipped": report.skipped,
        "late_ms": late_ms,
        "plans": report.plans,
        "plan_ms_p50": report.plan_ms.p50 if np.isfinite(report.plan_ms.p50) else None,
        "actions": report.actions,
        "holds": report.holds,
    }


def _plainly(env: Any, model: WorldModel, each: Ordinary, common: PlannerSetup) -> bool:
    """Success in plain receding horizon, as `wm eval` plays."""
    task = each.task
    goal = model.encode(torch.from_numpy(task.goal_image)[None, None])
    mpc = make_mpc(common.planner, model.spec.frameskip)
    rules = Rules().guardrails()
    controller = Controller(model, mpc, goal, guardrails=rules, kinematics=env.kinematics, budget=STEPS, seed=task.seed)
    return run_episode(env, task, controller, STEPS).reached


def table(rows: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    """Periods on time, jitter, plans, and both success rates with 95 % intervals."""
    late = np.array([ms for row in rows for ms in row["late_ms"]])
    p50, p99 = np.quantile(late, [0.5, 0.99]).tolist()
    periods, on_time = sum(row["periods"] for row in rows), sum(row["on_time"] for row in rows)
    plans: dict[str, int] = {}
    for row in rows:
        for what, count in row["plans"].items():
            plans[what] = plans.get(what, 0) + count
    times = [row["plan_ms_p50"] for row in rows if row["plan_ms_p50"] is not None]

    def success(some: list[dict[str, Any]]) -> dict[str, Any]:
        reached = sum(row["reached"] for row in some)
        return {"episodes": len(some), "success": reached / len(some), "ci95": list(wilson(reached, len(some)))}

    return {
        "minutes": periods / 600,
        "periods": periods,
        "on_time_share": on_time / periods,
        "skipped": sum(row["skipped"] for row in rows),
        "jitter_ms": {"p50": p50, "p99": p99, "max": float(late.max())},
        "plans": plans,
        "plan_ms_p50": float(np.median(times)) if times else None,
        "holds": sum(row["holds"] for row in rows),
        "control": success(rows),
        "plain_receding_horizon": success(plain),
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder; an interrupted study there is continued.")] = Path("control_rate"),
    minutes: Annotated[float, typer.Option(help="Of the run without a break; 0: none.", min=0)] = 10.0,
    episodes: Annotated[int, typer.Option(help="Goals, each driven in real time and played in steps.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the goals and the search.", min=0)] = 7,
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
) -> None:
    """Measure rate, jitter and success of the control loop in real time."""
    torch.set_num_threads(1)
    Console().print_json(data=run(minutes, episodes, seed, out, model, planner))


if __name__ == "__main__":
    launch(main)
