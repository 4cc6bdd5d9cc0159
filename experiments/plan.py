"""`wm plan`: from a goal picture to motion, and pictures of what was imagined and what happened."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wm.experiments.assemble import PLAIN
from wm.experiments.episode import Outcome
from wm.experiments.metrics import late, lateness
from wm.experiments.mission import Mission, Request, prepare
from wm.experiments.options import (
    DEADLINE,
    BudgetSteps,
    KeepOut,
    MaxSpeed,
    ModelName,
    Rollout,
    RulesPath,
    Screen,
    Think,
    Workspace,
    rules_of,
)
from wm.experiments.output_folder import staged
from wm.experiments.report.curves import energy_png
from wm.experiments.report.film import Marks, Moment, compose, gif
from wm.experiments.report.imagination import imagined_at, imagined_tokens
from wm.experiments.report.page import headline, report_html
from wm.experiments.report.record import PlanRecord, executed_margins, record_of
from wm.experiments.worlds import find_world


@dataclass(frozen=True)
class Planned:
    """A played mission.

    Attributes:
        outcome: What happened, with every plan.
        record: The same as JSON values.
    """

    outcome: Outcome
    record: PlanRecord


def plan(request: Request, out: Path, progress: Console | None = None) -> Planned:
    """Plan to a goal picture in closed loop and write `plan.json`, `rollout.gif`, `energy.png` and `report.html`.

    All input and `out` are checked before any planning; the files appear together or not at all.

    Args:
        request: What to do.
        out: Folder.
        progress: Where a progress bar is drawn, or None.

    Raises:
        WmError: as `prepare`; `out` cannot be written.
    """
    mission = prepare(request)
    with staged(out) as folder:
        planned = play(mission, progress)
        write_results(mission, planned, folder)
    return planned


def play(mission: Mission, progress: Console | None = None) -> Planned:
    """Play a mission; on a terminal under a progress bar over its control steps."""
    shown = progress is not None and progress.is_terminal
    columns = (TextColumn("plan"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress, disable=not shown, transient=True) as bar:
        task = bar.add_task("", total=mission.request.budget_steps)
        outcome = mission.play(lambda step: bar.update(task, completed=step))
    return Planned(outcome, record_of(mission, outcome))


def write_results(mission: Mission, planned: Planned, folder: Path) -> None:
    """Write the four files into an existing folder."""
    outcome, record = planned.outcome, planned.record
    marks = Marks(mission.world.view, mission.request.rules)
    verdict = headline(record).partition(": ")[2]
    pictures = compose(film_moments(mission, outcome), mission.task.goal_image, marks, verdict, record.reached)
    film = gif(pictures)
    units = {rule.name: rule.unit for rule in mission.guardrails}
    curves = energy_png(record, executed_margins(mission, outcome), units)
    (folder / "rollout.gif").write_bytes(film)
    (folder / "energy.png").write_bytes(curves)
    (folder / "report.html").write_text(report_html(record, film, curves), encoding="utf-8")
    (folder / "plan.json").write_text(record.to_json(), encoding="utf-8")


def film_moments(mission: Mission, outcome: Outcome) -> list[Moment]:
    """A moment for each executed frame; see `imagined_at` for what is shown as imagined."""
    frameskip, paths, moments = mission.model.spec.frameskip, planned_paths(mission, outcome), []
    imagined = None
    if mission.decoder is not None:
        imagined = mission.decoder.pictures(imagined_tokens(outcome, frameskip))
    for step, frame in enumerate(outcome.frames):
        at = imagined_at(outcome.planned_at, step, frameskip)
        made = f"planned at step {at.made_at}: energy {float(outcome.plans[at.plan].energy[0]):.3f}"
        moment = Moment(
            real=frame,
            imagined=None if imagined is None else imagined[step],
            caption=f"control step {step}",
            imagined_caption=f"step {at.shows}, as foreseen at step {at.made_at}",
            path=None if paths is None else paths[at.plan],
            foot=f"{made}, {outcome.plan_ms[at.plan]:.0f} ms",
        )
        moments.append(moment)
    return moments


def planned_paths(mission: Mission, outcome: Outcome) -> list[np.ndarray] | None:
    """Each plan's path of the robot over the whole horizon, ``(K, 2)`` world units; None where it cannot be drawn."""
    kinematics = getattr(mission.env, "kinematics", None)
    if kinematics is None or mission.world.view is None or not outcome.proprio:
        return None
    paths = []
    for made, each in zip(outcome.planned_at, outcome.plans, strict=True):  # one by one: horizons may differ
        start = torch.from_numpy(np.asarray(outcome.proprio[made], np.float32))[None]
        path = kinematics.path(start, each.actions[:, None], mission.model.spec.frameskip)[..., :2].flatten(0, 3)
        paths.append(torch.cat([start[:, :2], path]).numpy())
    return paths


def summary(record: PlanRecord, out: Path) -> str:
    """What `wm plan` prints."""
    lines = [headline(record)]
    if record.plan_ms:
        times = f"{median(record.plan_ms):.0f} ms a replan (median), {max(record.plan_ms):.0f} ms at most"
        spent = [search["candidates"] for search in record.searches]
        lines.append(f"{len(record.plan_ms)} plans, {times}; {median(spent):.0f} candidates (median)")
        if tardy := late(record.plan_ms, record.planner["deadline_ms"]):
            lines.append(lateness(tardy, record.planner["deadline_ms"]))
    if record.measures:
        lines.append("at the end: " + ", ".join(f"{name} {value:.3g}" for name, value in record.measures.items()))
    for name, margin in record.executed_margins.items():
        lines.append(f"guardrail {name}: smallest executed margin {margin:{'.1f' if abs(margin) >= 1 else '.3g'}}")
    if record.executed_margins:
        lines.append(f"guardrail violations: {record.guardrail_violations}")
    lines += [f"{out / name}" for name in ("rollout.gif", "energy.png", "report.html", "plan.json")]
    return "\n".join(lines)


def main(
    goal: Annotated[Path, typer.Option(help="The goal picture: any square PNG, JPEG, … of at least 16 px.")],
    env: Annotated[str, typer.Option(help="Environment.")] = "pusht",
    start: Annotated[
        Path | None,
        typer.Option(help="Start state, as `wm goal` wrote it (default: the .json beside the goal, if there is one)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the search, and of the start where --start does not give it.")
    ] = None,
    model: ModelName = None,
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
    think: Think = None,
    screen: Screen = None,
    rollout: Rollout = PLAIN,
    budget_steps: BudgetSteps = None,
    deadline_ms: Annotated[float | None, typer.Option(help=DEADLINE)] = None,
    keep_out: KeepOut = None,
    workspace: Workspace = None,
    max_speed: MaxSpeed = None,
    rules: RulesPath = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("plan"),
    json: Annotated[bool, typer.Option("--json", help="Print plan.json, and nothing else, to stdout.")] = False,
) -> None:
    """Plan to a goal picture in closed loop; show what was imagined beside what happened."""
    world = find_world(env)
    request = Request(
        env=env,
        goal=goal,
        start=start,
        seed=seed,
        model=model or world.name,
        planner=planner,
        think=think,
        screen=screen,
        rollout=rollout,
        budget_steps=world.budget_steps if budget_steps is None else budget_steps,
        deadline_ms=deadline_ms,
        rules=rules_of(rules, keep_out, workspace, max_speed).rules,
    )
    planned = plan(request, out, Console(stderr=True))
    print(f"start: {planned.record.start['source']}", file=sys.stderr)
    for warning in planned.record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if json:
        sys.stdout.write(planned.record.to_json())
    else:
        print(summary(planned.record, out))
