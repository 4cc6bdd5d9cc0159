"""What does safety cost on ordinary goals? The same goals without guardrails and shield, and with both.

    python -m wm.experiments.studies.safety_cost --episodes 200 --out safety_cost

Workspace, speed limit and a keep-out disc away from the task; stepped simulation, the whole control loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from wm.encoders.base import fingerprint
from wm.experiments.assemble import make_model
from wm.experiments.atomic import write_json
from wm.experiments.delayed_planner import PlannerSetup, planner_spec
from wm.experiments.interval import paired_difference, wilson
from wm.experiments.studies.closed_loop import InlinePlanner, Played, Timed, Unshielded, play, traced_env
from wm.experiments.studies.ordinary import KEEP_OUT_RADIUS, MAX_SPEED, WORKSPACE, Ordinary, ordinary_tasks
from wm.experiments.studies.rows import opened, progress
from wm.planners.control.shield import Shield, ShieldLimits

STEPS = 50
"""Control steps of an episode."""


def run(episodes: int, seed: int, out: Path, model_name: str = "pusht", planner: str = "icem") -> dict[str, Any]:
    """Play every goal twice; the table's numbers, also in ``<out>/safety_cost.json``.

    Raises:
        WmError: no such model or planner, or ``out`` cannot be written or holds another study.
    """
    model = make_model(model_name, "pusht")
    env = traced_env(model.spec.encoder.image_size)
    kinematics, action = env.kinematics, env.env_spec.action
    config = {
        "study": "safety_cost",
        "seed": seed,
        "model": fingerprint(model),
        "planner": planner,
        "steps": STEPS,
        "rules": {"workspace": list(WORKSPACE), "max_speed": MAX_SPEED, "keep_out_radius": KEEP_OUT_RADIUS},
    }
    rows = opened(out, config)
    tasks = ordinary_tasks(seed, episodes, env.image_size)
    common = PlannerSetup(model_name, planner, tasks[0].task.goal_image, kinematics, budget_steps=STEPS)

    def played(each: Ordinary, guarded: bool) -> tuple[Played, list[float]]:
        setup, rules = each.setup(common, guarded), each.rules.guardrails()
        shield = Timed(Shield(kinematics, action, rules, ShieldLimits()))
        certifier = shield if guarded else Unshielded(kinematics, action)
        planning = InlinePlanner(setup.planner_of(model, setup.goal_image, setup.seed), planner_spec(model))
        return play(env, each.task, planning, certifier, rules, STEPS), shield.seconds

    with progress("safety_cost", episodes, episodes - len(rows.missing(episodes))) as (bar, task):
        for index in rows.missing(episodes):
            (off, _), (on, seconds) = played(tasks[index], False), played(tasks[index], True)
            rows.append(_row(index, off, on, seconds))
            done = rows.first(episodes)
            note = f"off {sum(r['off']['reached'] for r in done)}, on {sum(r['on']['reached'] for r in done)} reached"
            bar.update(task, advance=1, note=note)
    result = config | table(rows.first(episodes))
    write_json(out / "safety_cost.json", result)
    return result


def _row(index: int, off: Played, on: Played, seconds: list[float]) -> dict[str, Any]:
    def numbers(each: Played) -> dict[str, Any]:
        changed = sum(step.kind != "passed" for step in each.steps)
        return {"reached": each.reached, "breaches": each.breaches, "smallest": each.smallest, "changed": changed}

    certify_ms = [round(1000 * s, 4) for s in seconds]
    return {"index": index, "off": numbers(off), "on": numbers(on), "certify_ms": certify_ms}


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Success of both, their paired difference with its 95 % interval, and the shield's time."""
    off, on = (np.array([row[arm]["reached"] for row in rows], bool) for arm in ("off", "on"))
    difference, interval = paired_difference(on.tolist(), off.tolist())
    milliseconds = np.array([ms for row in rows for ms in row["certify_ms"]])

    def success(reached: np.ndarray) -> dict[str, Any]:
        return {"success": float(reached.mean()), "ci95": list(wilson(int(reached.sum()), len(reached)))}

    def breaches(arm: str) -> int:
        return sum(sum(row[arm]["breaches"].values()) for row in rows)

    return {
        "episodes": len(rows),
        "off": success(off) | {"executed_breaches": breaches("off")},
        "on": success(on) | {"executed_breaches": breaches("on")},
        "on_minus_off": {"difference": difference, "ci95": list(interval)},
        "actions_changed": float(np.sum([row["on"]["changed"] for row in rows]) / max(1, len(milliseconds))),
        "certify_ms": {
            "p50": float(np.median(milliseconds)),
            "p99": float(np.quantile(milliseconds, 0.99)),
            "steps": len(milliseconds),
        },
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder; an interrupted study there is continued.")] = Path("safety_cost"),
    episodes: Annotated[int, typer.Option(help="Goals, each played twice.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of the goals and the search.", min=0)] = 7,
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
) -> None:
    """Measure what guardrails and shield cost; exit code 1 when a guardrail was broken with them on."""
    torch.set_num_threads(1)
    result = run(episodes, seed, out, model, planner)
    Console().print_json(data=result)
    raise typer.Exit(int(result["on"]["executed_breaches"] > 0))


if __name__ == "__main__":
    typer.run(main)
