"""`wm eval`: success on held-out goals, with an interval and with baselines beside it."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import wm
from wm.checkpoint import load_tensors
from wm.encoders.base import fingerprint
from wm.errors import BadInputError
from wm.experiments.assemble import MODELS, PLAIN
from wm.experiments.atomic import write_files, write_json
from wm.experiments.contact_sheet import failures_png, summary_png
from wm.experiments.episode import NEAR, PROPOSAL_COPIES, PROPOSAL_ENDS, PROPOSAL_NOISE, Task
from wm.experiments.episode_log import EpisodeLog, Record
from wm.experiments.metrics import efforts, lateness, rates, timings, violations
from wm.experiments.options import (
    DEADLINE,
    BudgetSteps,
    GoalKind,
    GoalOffset,
    ModelName,
    Rollout,
    Screen,
    Think,
    at_least,
)
from wm.experiments.play import MODEL, ORACLE, Player, Setting, play_all
from wm.experiments.rules import Rules
from wm.experiments.studies.race import processor
from wm.experiments.worlds import find_world
from wm.experiments.worlds.base import Planning, World
from wm.planners.adaptive_icem import AdaptiveICEM
from wm.planners.base import Solver
from wm.planners.mpc import MPC


def evaluate(
    setting: Setting,
    out: Path,
    *,
    goals: str | None = None,
    goal_offset: int | None = None,
    episodes: int = 200,
    seed: int = 0,
    baselines: bool = True,
    oracle_episodes: int = 30,
    workers: int = 1,
) -> dict[str, Any]:
    """Play held-out tasks and write what came of them into a folder.

    The tasks are `World.sample_tasks`'s of the seed, and ``goals`` and ``goal_offset`` are as there. Every actor plays
    the first ones: the model and the baselines that do not plan ``episodes`` of them, the oracle (same solver, horizon
    and weights, on the true simulator and without a deadline) ``oracle_episodes``. An episode is played for
    ``budget_steps`` control steps unless it succeeds before.

    Files: ``config.json``; ``episodes.jsonl``, and ``noop.jsonl``, ``random.jsonl``, … for the baselines (see
    `Record`); ``metrics.json`` last; ``summary.png``; ``failures.png`` when there are failures. Episodes that an
    interrupted run of the same configuration left there are not played again.

    Returns:
        The metrics, as in ``metrics.json``.

    Raises:
        BadInputError: a number is out of its range, or ``out`` cannot be written or holds another evaluation.
        WmError: model, planner or environment, see `Player`.
    """
    at_least(1, episodes=episodes, budget_steps=setting.budget_steps, goal_offset=goal_offset, workers=workers)
    at_least(0, oracle_episodes=oracle_episodes, seed=seed)
    if setting.deadline_ms is not None and not 0 < setting.deadline_ms < math.inf:
        raise BadInputError(f"deadline-ms: expected a finite number > 0, came {setting.deadline_ms}.")
    player = Player(setting)
    config = _config(player, goals, goal_offset, seed, workers)
    size = player.model.spec.encoder.image_size
    tasks = player.world.sample_tasks(seed, episodes, kind=goals, offset=goal_offset, image_size=size)
    logs = _open(out, config, [MODEL, *player.baselines])
    counts = dict.fromkeys(logs if baselines else [MODEL], episodes)
    if ORACLE in counts:
        counts[ORACLE] = min(oracle_episodes, episodes)
    try:
        with _progress() as progress:
            for name, count in counts.items():
                _play_missing(player, name, tasks[:count], logs[name], workers, progress)
    except KeyboardInterrupt:
        kept = len(logs[MODEL].first(episodes))
        print(f"interrupted: {kept} of {episodes} episodes kept; the same command goes on from there", file=sys.stderr)
        raise
    metrics = _metrics(config, player, {name: logs[name].first(count) for name, count in counts.items() if count})
    _write(out, metrics, logs[MODEL].first(episodes), player)
    return metrics


def _config(player: Player, goals: str | None, goal_offset: int | None, seed: int, workers: int) -> dict[str, Any]:
    """Everything that has to be the same for two runs' episodes to be put together."""
    setting, world = player.setting, player.world
    path = MODELS.get(setting.model, Path(setting.model))
    config = {
        "env": setting.env,
        "model": {
            "name": setting.model,
            "fingerprint": fingerprint(player.model),
            "provenance": load_tensors(path)[1]["provenance"],
        },
        "think": setting.think,
        "planner": {"name": setting.planner} | planner_settings(player.mpc, world.planning),
        "guardrails": None if world.robot is None else Rules().within(world.robot).as_json(),
        "goal_offset": world.goal_offset if goal_offset is None else goal_offset,
        "budget_steps": setting.budget_steps,
        "deadline_ms": setting.deadline_ms,
        "seed": seed,
        "threads": setting.threads,
        "workers": workers,
        "versions": {
            "wm": wm.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            **world.versions(),
        },
    }
    screen = player.screen
    if screen is not None:
        settings = planner_settings(screen.mpc, world.planning)
        config["screen"] = {"name": setting.screen, "fingerprint": fingerprint(screen.model), "planner": settings}
    if setting.rollout != PLAIN:
        config["rollout"] = setting.rollout
    if len(world.goal_kinds) > 1:
        config["goals"] = goals or world.goal_kinds[0]
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def planner_settings(mpc: MPC, planning: Planning = Planning()) -> dict[str, Any]:  # noqa: B008
    """Settings of the solver, of the receding horizon and of the goal distance."""
    receding = {"horizon": mpc.horizon, "execute": mpc.execute, "frameskip": mpc.frameskip, "fill": mpc.fill}
    weights = {"earlier_weight": planning.earlier_weight, "robot_weight": planning.robot_weight}
    if isinstance(mpc.solver, AdaptiveICEM) and mpc.solver.look is not None:
        weights["near"] = NEAR
    proposals = {"ends": PROPOSAL_ENDS, "copies": PROPOSAL_COPIES, "noise": PROPOSAL_NOISE}
    if mpc.most_proposals is not None:
        proposals["most"] = mpc.most_proposals
    return receding | weights | {"proposals": proposals, "solver": _solver_settings(mpc.solver)}


def _solver_settings(solver: Solver[Any]) -> dict[str, Any]:
    """Those of the solvers that it is made of, by their names, too."""
    return {
        key: _solver_settings(value) if isinstance(value, Solver) else value
        for key, value in vars(solver).items()
        if isinstance(value, (int, float, str, Solver))
    }


def _open(out: Path, config: dict[str, Any], names: Sequence[str]) -> dict[str, EpisodeLog]:
    """The folder's logs, after making sure that it can be written and that it is this evaluation's."""
    path = out / "config.json"
    if path.exists():
        try:
            before = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise BadInputError(f"{path}: not a configuration ({error}); use another --out.") from error
        for key in config | before:
            if before.get(key) != config.get(key):
                raise BadInputError(
                    f"--out {out} holds an evaluation with another {key}: expected {json.dumps(config.get(key))}, "
                    f"came {json.dumps(before.get(key))}; use another --out."
                )
    elif (out / "episodes.jsonl").exists():
        raise BadInputError(f"--out {out} holds episodes.jsonl without a config.json; use another --out.")
    write_json(path, config)
    return {name: EpisodeLog(out / f"{'episodes' if name == MODEL else name}.jsonl") for name in names}


def _progress() -> Progress:
    name, success = TextColumn("{task.description}"), TextColumn("{task.fields[success]}")
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(name, BarColumn(), MofNCompleteColumn(), success, *times, console=Console(stderr=True))


def _play_missing(
    player: Player, name: str, tasks: Sequence[Task], log: EpisodeLog, workers: int, progress: Progress
) -> None:
    """Play what the log does not have yet."""

    def success() -> str:
        done = log.first(len(tasks))
        return f"{sum(r.reached for r in done)} reached" if done else ""

    missing = [(index, task) for index, task in enumerate(tasks) if index not in log.records]
    bar = progress.add_task(name, total=len(tasks), completed=len(tasks) - len(missing), success=success())
    for record in play_all(player, name, missing, workers):
        log.append(record)
        progress.update(bar, advance=1, success=success())


def _metrics(config: dict[str, Any], player: Player, played: dict[str, list[Record]]) -> dict[str, Any]:
    records, world = played[MODEL], player.world
    metrics = (
        rates(records, world)
        | timings(records, player.setting.deadline_ms)
        | efforts(records)
        | world.goal_metrics(records)
        | {"guardrail_violations": violations(records)}
    )
    metrics["baselines"] = {
        name: {**rates(theirs, world), **player.baselines[name].facts}
        for name, theirs in played.items()
        if name != MODEL
    }
    if ORACLE in played:
        metrics["baselines"][ORACLE] |= timings(played[ORACLE]) | {
            "subset": f"the first {len(played[ORACLE])} of the same {len(records)} tasks",
            "planner": {"name": player.setting.planner} | planner_settings(player.oracle_mpc, world.planning),
        }
    return metrics | {"processor": processor(), "config": config}


def _write(out: Path, metrics: dict[str, Any], records: Sequence[Record], player: Player) -> None:
    pictures = {out / "summary.png": summary_png(records, player.setting.budget_steps, player.world)}
    if metrics["success_rate"] < 1:
        pictures[out / "failures.png"] = failures_png(records, player.env, player.world)
    else:
        (out / "failures.png").unlink(missing_ok=True)
    write_files(pictures)
    write_json(out / "metrics.json", metrics)


def _table(metrics: dict[str, Any], world: World) -> str:
    """One line for each actor."""
    rows, lines = {MODEL: metrics} | metrics["baselines"], []
    width = max(8, 2 + max(map(len, rows)))
    for name, row in rows.items():
        low, high = row["success_ci95"]
        words = [f"{name:{width}}{row['success_rate']:7.1%}", f"[{low:.1%}, {high:.1%}]"]
        words += [f"{flag.column} {row[f'{flag.metric}_rate']:.1%}" for flag in world.flags.values()]
        words += [f"{mean} {row[f'{mean}_mean']:.3g}" for mean in world.averaged]
        lines.append("  ".join([*words, f"of {row['episodes']}"]))
    if metrics["plan_ms_p50"] is not None:
        lines.append(f"a plan takes {metrics['plan_ms_p50']:.0f} ms (median), {metrics['plan_ms_p95']:.0f} ms (95 %)")
    if metrics["plans_late"]:
        lines.append(lateness(metrics["plans_late"], metrics["config"]["deadline_ms"]))
    if metrics["candidates_p50"] is not None:
        spent = f"{metrics['candidates_p50']:.0f} candidates (median), {metrics['candidates_p95']:.0f} (95 %)"
        lines.append(f"it evaluates {spent}, in {metrics['iterations_mean']:.1f} iterations (mean)")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Folder for the results; an interrupted evaluation there is continued.")],
    env: Annotated[str, typer.Option(help="Environment.")] = "pusht",
    model: ModelName = None,
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
    think: Think = None,
    screen: Screen = None,
    rollout: Rollout = PLAIN,
    goals: GoalKind = None,
    goal_offset: GoalOffset = None,
    budget_steps: BudgetSteps = None,
    episodes: Annotated[int, typer.Option(help="Held-out episodes.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the goals and of the planner's noise.")] = 7,
    baselines: Annotated[
        bool, typer.Option(help="Also play the baselines: no-op, random actions, the oracle, …")
    ] = True,
    oracle_episodes: Annotated[int, typer.Option(help="Episodes of the oracle (planning on the true simulator).")] = 30,
    min_success: Annotated[float | None, typer.Option(help="Exit with 1 when the success rate is below this.")] = None,
    deadline_ms: Annotated[float | None, typer.Option(help=DEADLINE)] = None,
    workers: Annotated[int, typer.Option(help="Processes; with more than one, times are not those of one alone.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Of torch, in each process (default: torch's own).")] = None,
) -> None:
    """Measure success on held-out goals, with a 95 % interval and with baselines."""
    if min_success is not None and not 0 <= min_success <= 1:
        raise BadInputError(f"min-success: expected 0 to 1, came {min_success}.")
    if threads is not None:
        at_least(1, threads=threads)
        torch.set_num_threads(threads)
    world = find_world(env)
    budget_steps = world.budget_steps if budget_steps is None else budget_steps
    setting = Setting(
        env, model or world.name, planner, budget_steps, deadline_ms, torch.get_num_threads(), think, screen, rollout
    )
    metrics = evaluate(
        setting,
        out,
        goals=goals,
        goal_offset=goal_offset,
        episodes=episodes,
        seed=seed,
        baselines=baselines,
        oracle_episodes=oracle_episodes,
        workers=workers,
    )
    print(f"{_table(metrics, world)}\n{out / 'metrics.json'}")
    if min_success is not None and metrics["success_rate"] < min_success:
        print(f"success {metrics['success_rate']:.1%} is below the required {min_success:.1%}", file=sys.stderr)
        raise typer.Exit(1)
