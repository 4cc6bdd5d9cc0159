"""Chips into every target shape, the letters and the two piles among them, none of which a log shows as a goal.

    python -m wm.experiments.studies.shapes --episodes 20 --seed 7 --out studies/shapes

Every shape is a `wm eval` of its own in a folder of its own (an interrupted study goes on from there). ``shapes.json``
has the Chamfer distance at the end, as a fraction of the start's, of the model and of the hand-written gatherers that
see the true state; ``shapes.png`` a start, goal and end of each shape: the episode in the middle, by that fraction.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from wm.experiments.atomic import write_files, write_json
from wm.experiments.episode_log import EpisodeLog, Record
from wm.experiments.evaluate import evaluate
from wm.experiments.play import Setting
from wm.experiments.studies.launch import launch
from wm.experiments.worlds import find_world
from wm.experiments.worlds.tasks import picture

MEASURE = "chamfer_fraction"
BAR = 0.5
"""A shape's mean Chamfer distance at the end, as a fraction of the start's, is to be at most this."""

_COLUMNS = 4


def run(shapes: Sequence[str], episodes: int, seed: int, out: Path, model: str, workers: int) -> dict[str, Any]:
    """Evaluate every shape.

    Args:
        shapes: Goal kinds of the chips.
        episodes: Per shape.
        seed: Of the goals, the same for all shapes.
        out: Folder.
        model: Shipped name or path.
        workers: Processes.

    Returns:
        As in ``shapes.json``: per shape the figures of model and baselines, and whether every shape is within `BAR`.
    """
    world = find_world("chips")
    setting = Setting("chips", model, "icem", world.budget_steps, None, torch.get_num_threads())
    rows: dict[str, dict[str, Any]] = {}
    median: dict[str, Record] = {}
    for shape in shapes:
        metrics = evaluate(
            setting, out / shape, goals=shape, episodes=episodes, seed=seed, oracle_episodes=0, workers=workers
        )
        kept = ("success_rate", "success_ci95", f"{MEASURE}_mean", f"{MEASURE}_ci95", "coverage_mean")
        rows[shape] = {key: metrics[key] for key in kept}
        rows[shape]["baselines"] = {name: figures[f"{MEASURE}_mean"] for name, figures in metrics["baselines"].items()}
        records = EpisodeLog(out / shape / "episodes.jsonl").first(episodes)
        median[shape] = sorted(records, key=lambda record: record.measures[MEASURE])[len(records) // 2]
    result = {
        "episodes": episodes,
        "seed": seed,
        "bar": BAR,
        "passed": all(row[f"{MEASURE}_mean"] <= BAR for row in rows.values()),
        "shapes": rows,
    }
    write_files({out / "shapes.png": shapes_png(median)})
    write_json(out / "shapes.json", result)
    return result


def shapes_png(records: dict[str, Record]) -> bytes:
    """Start, goal and end of one episode of each shape."""
    env = find_world("chips").make_env()
    rows = max(1, -(-len(records) // _COLUMNS))
    figure = Figure(figsize=(3.3 * _COLUMNS, 0.3 + 1.45 * rows), layout="constrained")
    figure.suptitle("start | goal | after at most ten strokes")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (shape, record) in zip(axes.flat, records.items(), strict=False):
        states = [np.array(state) for state in (record.start, record.goal, record.end)]
        axis.imshow(np.concatenate([picture(env, state) for state in states], axis=1))
        axis.set_title(f"{shape}: {record.measures[MEASURE]:.2f} of the start's Chamfer distance", fontsize=7)
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    return image.getvalue()


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    episodes: Annotated[int, typer.Option(help="Per shape.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the goals.")] = 7,
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "chips",
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Evaluate every goal shape of the chips; exits with 1 where one misses the bar."""
    result = run(find_world("chips").goal_kinds, episodes, seed, out, model, workers)
    table = Table("shape", "model", "95 %", *next(iter(result["shapes"].values()))["baselines"])
    for shape, row in result["shapes"].items():
        low, high = row[f"{MEASURE}_ci95"]
        others = [f"{value:.2f}" for value in row["baselines"].values()]
        table.add_row(shape, f"{row[f'{MEASURE}_mean']:.2f}", f"{low:.2f} to {high:.2f}", *others)
    Console().print(table)
    if not result["passed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    launch(main)
