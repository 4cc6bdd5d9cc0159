"""The same final energy in less time? Our searches beside plain CEM 300×30, plan by plan on the same problems.

    python -m wm.experiments.studies.same_energy --model runs/patch1/model.safetensors --out bench/same_energy.json

A problem is what the model's planner sees at the start of a held-out push-T task; energies, horizon, proposals and
noise are an episode's. The reference is that of `success_curve`: independent normal samples around the last elites'
mean, always all iterations, and among the first one's candidates all that the model proposes, as in any search that
is not told to try fewer. Proposals can only make it harder to beat.

Every search plans a problem once and ends by its own rule. They take turns problem by problem, so that a machine that
slows down slows all. A plan's time is from the remembered observation to actions, and an iteration's end is where the
next rollout begins. Finished plans are kept in a folder beside the output, so the study goes on where it was; a search
that is added later has been timed later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from wm.encoders.base import fingerprint
from wm.errors import BadInputError
from wm.experiments.atomic import write_files, write_json
from wm.experiments.controllers import Mind, make_controller
from wm.experiments.episode import Controller, Task
from wm.experiments.goals import DEVELOPMENT, sample_tasks
from wm.experiments.play import Player, Setting
from wm.experiments.run_folder import claim
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.race import machine
from wm.experiments.studies.rows import Rows, progress, turns
from wm.experiments.studies.same_energy_numbers import FASTER, met, numbers
from wm.experiments.studies.same_energy_picture import energy_png
from wm.experiments.studies.success_curve import BUDGET, OFFSET
from wm.experiments.studies.success_settings import ORACLE, SETTINGS, Maker, chosen, kept, plain_cem
from wm.types import Trajectory

DEFAULT = ("think-auto", "think-fast", "icem", *(n for n in SETTINGS if n.startswith(("gradient", "lbfgs"))))
"""Searches that are compared unless others are named."""

WARM_UP = ("think-fast", "gradient-2x5")
"""Begun once before anything is timed, so that no search pays for what libraries set up."""

PLANS = "plans.jsonl"
"""The file of a search's plans."""

WIDTH = 160
"""Characters that the printed table needs at least."""


class Stamped(Controller):
    """A controller that notes when each of its rollouts begins."""

    begun: list[float]

    def imagination(self) -> Callable[[torch.Tensor], Trajectory]:
        """The rollout, noted."""
        imagine, self.begun = super().imagination(), []

        def rollout(actions: torch.Tensor) -> Trajectory:
            self.begun.append(time.perf_counter())
            return imagine(actions)

        return rollout


def run(
    names: Sequence[str],
    problems: int,
    seed: int,
    out: Path,
    model_name: str = "pusht",
    threads: int = 2,
    population: int = 300,
    iterations: int = 30,
) -> dict[str, Any]:
    """Plan what is missing; the numbers of all searches that are there, also in ``out``, with a picture beside it.

    Raises:
        WmError: no such model; the oracle is among the names; a plan's energy is not above 0; ``out`` is no ``.json``
            or cannot be written, or the folder beside it holds another study, or plans of a search that has been
            defined anew since.
    """
    if out.suffix != ".json":
        raise BadInputError(f"--out: expected a name that ends in .json, came {out}.")
    if ORACLE in names:
        raise BadInputError(f"--settings: expected searches in the model, came '{ORACLE}', which has no latent energy.")
    about, player = machine(threads), Player(Setting("pusht", model_name, "icem", BUDGET, None, threads))
    tasks = sample_tasks("pusht", seed, problems, OFFSET, player.model.spec.encoder.image_size)
    reference = f"cem-{population}x{iterations}"
    makers, asked = SETTINGS | {reference: plain_cem(population, iterations)}, dict.fromkeys((reference, *names))
    config = {
        "study": "same_energy",
        "seed": seed,
        "model_fingerprint": fingerprint(player.model),
        "goal_offset": OFFSET,
        "budget_steps": BUDGET,
        "reference": reference,
        "machine": about,
    }
    folder = out.with_suffix("")
    claim(folder, config)
    frameskip = player.model.spec.frameskip
    planned = kept(folder, makers, frameskip, asked, PLANS)  # refused before anything is planned
    _plan_missing(player, tasks, makers, {name: planned[name] for name in asked})
    plans = {name: rows.first(problems) for name, rows in kept(folder, makers, frameskip, file=PLANS).items()}
    table = {n: numbers(found, plans[reference]) for n, found in plans.items() if found and n != reference}
    result = config | {
        "model": model_name,
        "problems": problems,
        "population": population,
        "iterations": iterations,
        "reference_plan_ms_p50": float(np.median([row["plan_ms"] for row in plans[reference]])),
        "bar": {"times_faster": FASTER, "energy_difference": 0.0},
        "settings": table,
        "met": met(table),
    }
    write_files({out.with_suffix(".png"): energy_png(reference, plans, table)})
    write_json(out, result)
    return result


def _plan_missing(player: Player, tasks: Sequence[Task], makers: Mapping[str, Maker], rows: Mapping[str, Rows]) -> None:
    total, missing = len(tasks) * len(rows), list(turns(rows, len(tasks)))
    if missing:
        for name in WARM_UP:
            _controller(player, SETTINGS[name], tasks[0]).search(0.0)
    with progress("same energy", total, total - len(missing)) as (bar, shown):
        for index, name in missing:
            bar.update(shown, note=f"problem {index}, {name}")
            rows[name].append({"index": index} | _planned(_controller(player, makers[name], tasks[index]), index, name))
            bar.update(shown, advance=1)


def _controller(player: Player, make: Maker, task: Task) -> Stamped:
    """What an episode has once it has seen its first picture (see `Player`)."""
    mind = Mind(player.model, make(player.model.spec.frameskip))
    controller = make_controller(player.world, mind, task, player.env, player.guardrails, BUDGET, None, Stamped)
    assert isinstance(controller, Stamped)
    options = {"state": task.start_state, "goal_state": task.goal_state}
    controller.observe(player.env.reset(seed=task.seed, options=options)[0])
    return controller


def _planned(controller: Stamped, index: int, name: str) -> dict[str, Any]:
    begun = time.perf_counter()
    plan, _ = controller.plan()
    plan_ms = 1e3 * (time.perf_counter() - begun)
    # Without a deadline an iteration is one rollout; another one may follow, of the solver's own answer.
    ended = [1e3 * (at - begun) for at in controller.begun[1 : plan.iterations + 1]]
    trace = [float(best[0]) for best in plan.trace]
    for energy in (*trace, float(plan.energy[0])):
        if not 0 < energy < math.inf:
            raise BadInputError(
                f"problem {index}, {name}: expected an energy above 0, came {energy}: no model to plan in."
            )
    return {
        "plan_ms": plan_ms,
        "energy": float(plan.energy[0]),
        "trace": trace,
        "ended_ms": ended + [plan_ms] * (plan.iterations - len(ended)),
        "candidates": plan.candidates,
        "stopped_by": plan.stopped_by,
    }


def printed(result: Mapping[str, Any]) -> Table:
    """The searches, the quickest first."""
    title = f"beside {result['reference']}: {result['reference_plan_ms_p50']:,.0f} ms a plan, "
    title += f"{result['problems']} problems, {result['machine']['torch_threads']} torch threads"
    columns = ("search", "n", "ms p50", "× faster", "p50", "geo. mean", "energy ×", "Δ mean energy, 95 %")
    table = Table(*columns, "no higher", "reached", "× faster there", title=title)
    for name, row in sorted(result["settings"].items(), key=lambda item: item[1]["plan_ms"]["p50"]):
        faster, energy, there = row["times_faster"], row["energy"], row["reached"]["times_faster_p50"]
        interval = energy["difference_ci95"]
        table.add_row(
            name,
            str(row["problems"]),
            f"{row['plan_ms']['p50']:,.1f}",
            *(f"{faster[key]:.1f}" for key in ("total", "p50", "geometric_mean")),
            f"{energy['ratio']['p50']:.3f}",
            f"{energy['difference']:+.2g}" + ("" if interval is None else " ({:+.2g} … {:+.2g})".format(*interval)),
            f"{row['no_higher']['share']:.0%}",
            f"{row['reached']['share']:.0%}",
            "never" if there is None else f"{there:.1f}",
        )
    return table


def main(
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
    problems: Annotated[int, typer.Option(help="Held-out tasks whose first plan is made.", min=1)] = 24,
    seed: Annotated[int, typer.Option(help=f"Of tasks, noise; below {DEVELOPMENT} for the final look.", min=0)] = 1030,
    out: Annotated[Path, typer.Option(help="File of the result; what is there goes on.")] = Path("same_energy.json"),
    settings: Annotated[str | None, typer.Option(help=f"Names between commas; default: {', '.join(DEFAULT)}.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch.", min=1)] = 2,
    population: Annotated[int, typer.Option(help="Candidates of the reference's iterations.", min=4)] = 300,
    iterations: Annotated[int, typer.Option(help="Iterations of the reference.", min=1)] = 30,
) -> None:
    """Compare planning times at the same energy; exit code 3 when no search meets the bar."""
    names = DEFAULT if settings is None else chosen(settings)
    result = run(names, problems, seed, out, model, threads, population, iterations)
    console = Console(width=max(WIDTH, Console().width))
    console.print(printed(result))
    console.print(f"at least {FASTER:g} times faster at no more energy: {', '.join(result['met']) or 'none'}")
    judge(bool(result["met"]))


if __name__ == "__main__":
    launch(main)
