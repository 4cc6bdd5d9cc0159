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
import pymunk
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import wm
from wm.checkpoint import load_tensors
from wm.encoders.base import fingerprint
from wm.errors import BadInputError
from wm.experiments.assemble import MODELS
from wm.experiments.atomic import write_files, write_json
from wm.experiments.contact_sheet import failures_png, summary_png
from wm.experiments.episode import EARLIER_WEIGHT, PROPOSAL_COPIES, PROPOSAL_ENDS, PROPOSAL_NOISE, ROBOT_WEIGHT, Task
from wm.experiments.episode_log import EpisodeLog, Record
from wm.experiments.goals import sample_tasks
from wm.experiments.metrics import efforts, goals, rates, timings, violations
from wm.experiments.options import Think, at_least
from wm.experiments.oracle import PUSHER_SCALE
from wm.experiments.play import ActorName, Player, Setting, play_all
from wm.experiments.rules import Rules
from wm.planners.mpc import MPC


def evaluate(
    setting: Setting,
    out: Path,
    *,
    goal_offset: int = 25,
    episodes: int = 200,
    seed: int = 0,
    baselines: bool = True,
    oracle_episodes: int = 30,
    workers: int = 1,
) -> dict[str, Any]:
    """Play held-out tasks and write what came of them into a folder.

    The tasks are `sample_tasks`'s of the seed. Every actor plays the first ones: the model and the baselines that do
    not plan ``episodes`` of them, the oracle (same solver, horizon and weights, on the true simulator and without a
    deadline) ``oracle_episodes``. An episode is played for ``budget_steps`` control steps unless it succeeds before.

    Files: ``config.json``; ``episodes.jsonl``, and ``noop.jsonl``, ``random.jsonl``, ``oracle.jsonl`` for the baselines
    (see `Record`); ``metrics.json`` last; ``summary.png``; ``failures.png`` when there are failures. Episodes that an
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
    config = _config(setting, player, goal_offset, seed, workers)
    tasks = sample_tasks(setting.env, seed, episodes, goal_offset, player.model.spec.encoder.image_size)
    logs = _open(out, config)
    counts: dict[ActorName, int] = {"model": episodes}
    if baselines:
        counts |= {"noop": episodes, "random": episodes, "oracle": min(oracle_episodes, episodes)}
    try:
        with _progress() as progress:
            for name, count in counts.items():
                _play_missing(player, name, tasks[:count], logs[name], workers, progress)
    except KeyboardInterrupt:
        kept = len(logs["model"].first(episodes))
        print(f"interrupted: {kept} of {episodes} episodes kept; the same command goes on from there", file=sys.stderr)
        raise
    metrics = _metrics(config, {name: logs[name].first(count) for name, count in counts.items() if count})
    _write(out, metrics, logs["model"].first(episodes), player)
    return metrics


def _config(setting: Setting, player: Player, goal_offset: int, seed: int, workers: int) -> dict[str, Any]:
    """Everything that has to be the same for two runs' episodes to be put together."""
    path = MODELS.get(setting.model, Path(setting.model))
    config = {
        "env": setting.env,
        "model": {
            "name": setting.model,
            "fingerprint": fingerprint(player.model),
            "provenance": load_tensors(path)[1]["provenance"],
        },
        "think": setting.think,
        "planner": {"name": setting.planner} | planner_settings(player.mpc),
        "guardrails": Rules().as_json(),
        "goal_offset": goal_offset,
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
            "pymunk": pymunk.version,
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def planner_settings(mpc: MPC) -> dict[str, Any]:
    """Settings of the solver, of the receding horizon and of the goal distance."""
    solver = {key: value for key, value in vars(mpc.solver).items() if isinstance(value, (int, float, str))}
    receding = {"horizon": mpc.horizon, "execute": mpc.execute, "frameskip": mpc.frameskip, "fill": mpc.fill}
    weights = {"earlier_weight": EARLIER_WEIGHT, "robot_weight": ROBOT_WEIGHT}
    proposals = {"ends": PROPOSAL_ENDS, "copies": PROPOSAL_COPIES, "noise": PROPOSAL_NOISE}
    if mpc.most_proposals is not None:
        proposals["most"] = mpc.most_proposals
    return receding | weights | {"proposals": proposals, "solver": solver}


def _open(out: Path, config: dict[str, Any]) -> dict[ActorName, EpisodeLog]:
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
    names: tuple[ActorName, ...] = ("model", "noop", "random", "oracle")
    return {name: EpisodeLog(out / f"{'episodes' if name == 'model' else name}.jsonl") for name in names}


def _progress() -> Progress:
    name, success = TextColumn("{task.description}"), TextColumn("{task.fields[success]}")
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(name, BarColumn(), MofNCompleteColumn(), success, *times, console=Console(stderr=True))


def _play_missing(
    player: Player, name: ActorName, tasks: Sequence[Task], log: EpisodeLog, workers: int, progress: Progress
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


def _metrics(config: dict[str, Any], played: dict[ActorName, list[Record]]) -> dict[str, Any]:
    records = played["model"]
    metrics = (
        rates(records)
        | timings(records)
        | efforts(records)
        | goals(records)
        | {"guardrail_violations": violations(records)}
    )
    metrics["baselines"] = {name: rates(theirs) for name, theirs in played.items() if name != "model"}
    if "oracle" in played:
        metrics["baselines"]["oracle"] |= timings(played["oracle"]) | {
            "subset": f"the first {len(played['oracle'])} of the same {len(records)} tasks",
            "simulator": "true push-T physics, full state and goal state known, no deadline",
            "planner": config["planner"],
            "pusher_scale": PUSHER_SCALE,
        }
    return metrics | {"config": config}


def _write(out: Path, metrics: dict[str, Any], records: Sequence[Record], player: Player) -> None:
    pictures = {out / "summary.png": summary_png(records, player.setting.budget_steps)}
    if metrics["success_rate"] < 1:
        pictures[out / "failures.png"] = failures_png(records, player.env)
    else:
        (out / "failures.png").unlink(missing_ok=True)
    write_files(pictures)
    write_json(out / "metrics.json", metrics)


def _table(metrics: dict[str, Any]) -> str:
    """One line for each actor."""
    lines = []
    for name, row in [("model", metrics), *metrics["baselines"].items()]:
        low, high = row["success_ci95"]
        rate, block = row["success_rate"], row["block_success_rate"]
        lines.append(f"{name:8}{rate:7.1%}  [{low:.1%}, {high:.1%}]  block {block:.1%}  of {row['episodes']}")
    if metrics["plan_ms_p50"] is not None:
        lines.append(f"a plan takes {metrics['plan_ms_p50']:.0f} ms (median), {metrics['plan_ms_p95']:.0f} ms (95 %)")
    if metrics["candidates_p50"] is not None:
        spent = f"{metrics['candidates_p50']:.0f} candidates (median), {metrics['candidates_p95']:.0f} (95 %)"
        lines.append(f"it evaluates {spent}, in {metrics['iterations_mean']:.1f} iterations (mean)")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Folder for the results; an interrupted evaluation there is continued.")],
    env: Annotated[str, typer.Option(help="Environment.")] = "pusht",
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
    think: Think = None,
    goal_offset: Annotated[int, typer.Option(help="Control steps from a start to its goal.")] = 25,
    budget_steps: Annotated[int, typer.Option(help="Control steps that an episode may take.")] = 50,
    episodes: Annotated[int, typer.Option(help="Held-out episodes.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the goals and of the planner's noise.")] = 7,
    baselines: Annotated[bool, typer.Option(help="Also play no-op, random actions and the oracle.")] = True,
    oracle_episodes: Annotated[int, typer.Option(help="Episodes of the oracle (planning on the true simulator).")] = 30,
    min_success: Annotated[float | None, typer.Option(help="Exit with 1 when the success rate is below this.")] = None,
    deadline_ms: Annotated[float | None, typer.Option(help="For each search; results then vary with speed.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; with more than one, times are not those of one alone.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Of torch, in each process (default: torch's own).")] = None,
) -> None:
    """Measure success on held-out goals, with a 95 % interval and with baselines."""
    if min_success is not None and not 0 <= min_success <= 1:
        raise BadInputError(f"min-success: expected 0 to 1, came {min_success}.")
    if threads is not None:
        at_least(1, threads=threads)
        torch.set_num_threads(threads)
    setting = Setting(env, model, planner, budget_steps, deadline_ms, torch.get_num_threads(), think)
    metrics = evaluate(
        setting,
        out,
        goal_offset=goal_offset,
        episodes=episodes,
        seed=seed,
        baselines=baselines,
        oracle_episodes=oracle_episodes,
        workers=workers,
    )
    print(f"{_table(metrics)}\n{out / 'metrics.json'}")
    if min_success is not None and metrics["success_rate"] < min_success:
        print(f"success {metrics['success_rate']:.1%} is below the required {min_success:.1%}", file=sys.stderr)
        raise typer.Exit(1)
