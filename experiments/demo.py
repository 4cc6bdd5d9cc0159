"""`wm demo`: make a goal picture, plan to it with the shipped model, show everything."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wm.experiments.goal import write_goal
from wm.experiments.mission import Request, prepare
from wm.experiments.output_folder import staged
from wm.experiments.plan import Planned, play, write_results
from wm.experiments.report.page import headline
from wm.experiments.report.record import PlanRecord

OFFSET = 25
"""Control steps from the demo's start to its goal."""


@dataclass(frozen=True)
class Demo:
    """A demo's settings.

    Attributes:
        seed: Which goal.
        env: Environment.
        model: Shipped name or path.
        budget_steps: Control steps.
    """

    seed: int = 1012
    env: str = "pusht"
    model: str = "pusht"
    budget_steps: int = 50


def demo(settings: Demo, out: Path, progress: Console | None = None) -> Planned:
    """Write `goal.png`, `goal.json` and the files of `wm plan` into a folder, together or not at all.

    Raises:
        WmError: `out` cannot be written, a number is out of range, or there is no such model.
    """
    with staged(out) as folder:
        goal = folder / "goal.png"
        write_goal(settings.env, settings.seed, goal, OFFSET)
        request = Request(
            env=settings.env,
            goal=goal,
            start=goal.with_suffix(".json"),
            seed=settings.seed,
            model=settings.model,
            budget_steps=settings.budget_steps,
        )
        mission = prepare(request)
        planned = play(mission, progress)
        write_results(mission, planned, folder)
    return planned


def _table(record: PlanRecord, out: Path) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    if record.plan_ms:
        table.add_row("plans", f"{len(record.plan_ms)}, {median(record.plan_ms):.0f} ms each (median)")
    names = {
        "goal.png": "the goal picture, all that the planner knew of the goal",
        "rollout.gif": "real | imagined | goal",
        "energy.png": "energies, times, errors",
        "report.html": "all of it on one page",
        "plan.json": "as numbers",
    }
    for name, text in names.items():
        table.add_row(escape(str(out / name)), text)
    return table


def main(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Which goal.")] = 1012,
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
) -> None:
    """Plan a push-T task from a goal picture and show what was imagined beside what happened."""
    planned = demo(Demo(seed=seed, model=model), out, Console(stderr=True))
    for warning in planned.record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    console, reached = Console(), planned.record.reached
    console.print(headline(planned.record), style="bold green" if reached else "bold red", highlight=False)
    console.print(_table(planned.record, out))
    if not reached:
        raise typer.Exit(1)
