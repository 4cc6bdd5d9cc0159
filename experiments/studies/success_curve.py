"""How much planning does success need? Closed-loop success of many searches against their time for a plan.

    python -m wm.experiments.studies.success_curve --episodes 300 --out success_curve
    python -m wm.experiments.studies.success_curve --settings cem-300x30,think-fast,think-auto --episodes 100

The tasks, rules, goal offset and budget of `wm eval`. Settings take turns goal by goal, so that a machine that slows
down slows all. Every setting has a folder of its own and goes on where it was, so the study can be run in parts; each
part's end writes the table of all that is there, and one that is added later has been timed later. Times are those of
``--workers`` episodes at once, each on one thread, and mean something on an otherwise idle machine only; rows of
another one are not mixed in. Where auto and CEM 300×30 were played, the study misses its bar unless auto is within 2
points of CEM's success in a twentieth of its mean time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from wm.encoders.base import fingerprint
from wm.experiments.atomic import write_files, write_json
from wm.experiments.episode import EARLIER_WEIGHT, ROBOT_WEIGHT, Outcome, Task, goal_distance
from wm.experiments.goals import DEVELOPMENT, sample_tasks
from wm.experiments.play import Player, Setting
from wm.experiments.report.figures import png
from wm.experiments.run_folder import claim
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.race import machine
from wm.experiments.studies.rows import Rows, progress, turns
from wm.experiments.studies.success_numbers import AUTO, Episodes, answers, numbers
from wm.experiments.studies.success_settings import ORACLE, REFERENCE, SETTINGS, chosen, kept
from wm.experiments.worlds.pusht_oracle import embed
from wm.planners.mpc import MPC
from wm.types import Trajectory
from wm.workers import end_with_parent

OFFSET, BUDGET = 25, 50
"""Control steps from a start to its goal, and that an episode may take."""

LABEL_POINTS, LABEL_TIMES = 0.4, 1.6
"""A label goes higher for every point before it that is as near: in points of success, and by the factor in time."""

WIDTH = 144
"""Characters that the printed table needs at least."""

Wanted = tuple[str, int, Task]
"""An episode to play: the setting's name, the goal's number, and the task."""


def run(
    names: Sequence[str], episodes: int, seed: int, out: Path, model_name: str = "pusht", workers: int = 2
) -> dict[str, Any]:
    """Play the settings' missing episodes; the numbers of all settings that are there, also in ``success_curve.json``.

    Raises:
        WmError: no such model; ``out`` cannot be written, or holds another study, or episodes of a setting that has
            been defined anew since.
    """
    setting = Setting("pusht", model_name, "icem", BUDGET, None, 1)
    player = Player(setting)
    tasks = sample_tasks("pusht", seed, episodes, OFFSET, player.model.spec.encoder.image_size)
    config = {
        "study": "success_curve",
        "seed": seed,
        "model": fingerprint(player.model),
        "goal_offset": OFFSET,
        "budget_steps": BUDGET,
        "workers": workers,
        "machine": machine(1),
    }
    claim(out, config)
    frameskip = player.model.spec.frameskip
    played = kept(out, SETTINGS, frameskip, names)  # refused before anything is played
    _play_missing(setting, tasks, {name: played[name] for name in names}, workers)
    rows_of = {name: found for name, rows in kept(out, SETTINGS, frameskip).items() if (found := rows.first(episodes))}
    reference = rows_of.get(REFERENCE, [])
    table = {name: numbers(found, [] if name == REFERENCE else reference) for name, found in rows_of.items()}
    result = config | {"episodes": episodes, "settings": table, "answers": answers(table, rows_of)}
    write_files({out / "success_curve.png": curve_png(table, rows_of.get(AUTO, []))})
    write_json(out / "success_curve.json", result)
    return result


def _play_missing(setting: Setting, tasks: Sequence[Task], rows: Mapping[str, Rows], workers: int) -> None:
    total, missing = len(tasks) * len(rows), list(turns(rows, len(tasks)))
    with progress("success curve", total, total - len(missing)) as (bar, shown):
        wanted = [(name, index, tasks[index]) for index, name in missing]
        for (name, index, _), row in zip(wanted, _play_all(setting, wanted, workers), strict=True):
            rows[name].append(row)
            bar.update(shown, advance=1, note=f"goal {index}, {name}")


def _play_all(setting: Setting, wanted: Sequence[Wanted], workers: int) -> Iterator[dict[str, Any]]:
    """Their rows, in order; the number of workers changes nothing but the time."""
    if not wanted:
        return
    if workers == 1:
        players = Players(setting)
        yield from map(players.row, wanted)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_start_worker, initargs=(setting,)) as pool:
        yield from pool.imap(_play, wanted, chunksize=1)


class Players:
    """One world and model, and every search that has been asked for, made once."""

    def __init__(self, setting: Setting) -> None:
        self.player, self._searches = Player(setting), dict[str, MPC]()

    def row(self, wanted: Wanted) -> dict[str, Any]:
        """Play an episode."""
        name, index, task = wanted
        if name not in self._searches:
            self._searches[name] = SETTINGS[name](self.player.model.spec.frameskip)
        self.player.mpc = self._searches[name]
        return _row(self.player, name, index, task)


_worker: list[Players] = []


def _start_worker(setting: Setting) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's, which then ends its workers
    torch.set_num_threads(1)
    _worker[:] = [Players(setting)]


def _play(wanted: Wanted) -> dict[str, Any]:
    return _worker[0].row(wanted)


def _row(player: Player, name: str, index: int, task: Task) -> dict[str, Any]:
    """Play an episode. Lists have an entry for each replan, `observe_ms` one for each picture."""
    outcome = player.run("oracle" if name == ORACLE else "model", task)
    return {
        "index": index,
        "reached": outcome.reached,
        "steps": outcome.steps,
        "plan_ms": [round(ms, 3) for ms in outcome.plan_ms],
        "observe_ms": [round(ms, 3) for ms in outcome.observe_ms],
        "iterations": [plan.iterations for plan in outcome.plans],
        "candidates": [plan.candidates for plan in outcome.plans],
        "plan_energy": [float(plan.energy[0]) for plan in outcome.plans],
        "goal_energy": _goal_energies(player, task, outcome),
        "goal_distance": _goal_distances(task, outcome),
        "steps_left": [outcome.steps - made for made in outcome.planned_at],
    }


def _goal_energies(player: Player, task: Task, outcome: Outcome) -> list[float]:
    """The goal's energy where each plan begins: that of arriving where the robot and the block are already."""
    model, frames = player.model, np.stack([task.goal_image, *(outcome.frames[at] for at in outcome.planned_at)])
    tokens = model.encode(torch.from_numpy(frames)[:, None]).tokens[:, 0]  # (1 + plans, N, D), the goal first
    distance = goal_distance(model, tokens[:1], EARLIER_WEIGHT, ROBOT_WEIGHT)
    here = tokens[None, 1:, None]  # (1, plans, 1, N, D): each a candidate of one latent step
    found: list[float] = distance(Trajectory(torch.zeros(1, here.shape[1], 1, model.action_width), here))[0].tolist()
    return found


def _goal_distances(task: Task, outcome: Outcome) -> list[float]:
    """The goal's distance in the true state where each plan begins, in tolerances of the success test."""
    states = np.stack([np.asarray(task.goal_state), *(outcome.states[at] for at in outcome.planned_at)])
    places = embed(torch.from_numpy(states).float())[:, 0]
    found: list[float] = (places[1:] - places[0]).norm(dim=-1).tolist()
    return found


def curve_png(table: Mapping[str, Mapping[str, Any]], auto: Episodes) -> bytes:
    """Left success against milliseconds a plan; right what `AUTO` spent on a plan against the goal's energy."""
    figure = Figure(figsize=(14, 6.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    labelled = list[tuple[float, float]]()
    for name, row in sorted(table.items(), key=lambda item: item[1]["plan_ms_p50"]):
        if name == ORACLE:
            continue
        success, (low, high) = 100 * row["success"], row["success_ci95"]
        bar = [[success - 100 * low], [100 * high - success]]
        special = name == REFERENCE or name.startswith("think")
        colour = "tab:red" if name == REFERENCE else "tab:blue" if special else "0.55"
        left.errorbar(row["plan_ms_p50"], success, yerr=bar, fmt="o", color=colour, elinewidth=0.6, alpha=0.9)
        point = row["plan_ms_p50"], success
        near = sum(abs(y - success) < LABEL_POINTS and x < point[0] < LABEL_TIMES * x for x, y in labelled)
        labelled.append(point)
        left.annotate(name, point, (4, 3 + 8 * near), textcoords="offset points", fontsize=7, color=colour)
    left.margins(x=0.12)  # room for the slowest one's name
    left.set(xscale="log", xlabel="ms a plan (median)", ylabel="success [%]", title="success against planning time")
    left.grid(alpha=0.3)
    energies = [energy for row in auto for energy in row["goal_energy"]]
    spent = [count for row in auto for count in row["candidates"]]
    right.plot(energies, spent, ".", alpha=0.4)
    right.set(xlabel="goal's energy before the plan", ylabel="candidates", title=f"what {AUTO} spends on a plan")
    right.grid(alpha=0.3)
    return png(figure)


def printed(result: Mapping[str, Any]) -> Table:
    """The settings, the quickest first."""
    table = Table(
        "setting",
        "n",
        "success",
        "95 %",
        "ms p50",
        "mean",
        "p95",
        "× p50",
        "× mean",
        "Δ points",
        "encoding",
        "candidates",
    )
    for name, row in sorted(result["settings"].items(), key=lambda item: item[1]["plan_ms_p50"]):
        low, high = row["success_ci95"]
        beside = row.get("beside_reference")
        table.add_row(
            name,
            str(row["episodes"]),
            f"{100 * row['success']:.1f}",
            f"{100 * low:.1f} … {100 * high:.1f}",
            f"{row['plan_ms_p50']:.1f}",
            f"{row['plan_ms_mean']:.1f}",
            f"{row['plan_ms_p95']:.1f}",
            "" if beside is None else f"{beside['times_faster']:.1f}",
            "" if beside is None else f"{beside['times_faster_mean']:.1f}",
            "" if beside is None else f"{100 * beside['difference']:+.1f}",
            f"{row['observing_share']:.0%}",
            f"{row['candidates_p50']:.0f} … {row['candidates_p95']:.0f}",
        )
    return table


def main(
    settings: Annotated[str | None, typer.Option(help="Names between commas; default: all but the oracle.")] = None,
    episodes: Annotated[int, typer.Option(help="Goals of each setting.", min=1)] = 300,
    seed: Annotated[
        int, typer.Option(help=f"Of goals and noise; below {DEVELOPMENT} for the final look.", min=0)
    ] = 1000,
    out: Annotated[Path, typer.Option(help="Folder; a study that is there goes on.")] = Path("success_curve"),
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
    workers: Annotated[int, typer.Option(help="Processes of one thread each.", min=1)] = 2,
) -> None:
    """Measure success against planning time."""
    torch.set_num_threads(1)
    result = run(chosen(settings), episodes, seed, out, model, workers)
    console = Console(width=max(WIDTH, Console().width))
    console.print(printed(result))
    console.print_json(data=result["answers"])
    good = result["answers"]["as_good_and_faster"]
    if good is not None and AUTO in result["settings"]:
        judge(AUTO in good)


if __name__ == "__main__":
    launch(main)
