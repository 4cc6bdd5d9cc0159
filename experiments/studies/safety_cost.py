"""What does safety cost? The same goals without guardrails and shield, and with both.

    python -m wm.experiments.studies.safety_cost --episodes 200 --hard 100 --oracle 50 --out safety_cost

Stepped simulation, the whole control loop; workspace, speed limit and a keep-out disc. Ordinary goals: the disc lies
away from the task. Hard goals, reported apart: it lies in the pusher's way; an oracle, the same solver on the true
simulator under the same guardrails, says how many of the first of them can be reached at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from wm.encoders.base import fingerprint
from wm.envs.pusht.env import PushTEnv
from wm.experiments.assemble import make_model, make_mpc
from wm.experiments.atomic import write_json
from wm.experiments.delayed_planner import PlannerSetup, planner_spec
from wm.experiments.episode import run_episode
from wm.experiments.interval import paired_difference, wilson
from wm.experiments.studies.closed_loop import InlinePlanner, Played, Timed, Unshielded, play, traced_env
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.ordinary import (
    HARD_RADIUS,
    KEEP_OUT_RADIUS,
    MAX_SPEED,
    WORKSPACE,
    Ordinary,
    hard_tasks,
    ordinary_tasks,
)
from wm.experiments.studies.rows import Rows, opened, progress
from wm.experiments.worlds.pusht_oracle import OracleController
from wm.model import WorldModel
from wm.planners.control.shield import Shield, ShieldLimits

STEPS = 50
"""Control steps of an episode."""


@dataclass(frozen=True)
class Players:
    """Who plays, and with what.

    Attributes:
        model: The world model.
        env: Of `traced_env`.
        setup: Builds planners.
    """

    model: WorldModel
    env: PushTEnv
    setup: PlannerSetup

    def both(self, each: Ordinary, index: int) -> dict[str, Any]:
        """The row of a goal, played without guardrails and shield, and with both."""
        (off, _), (on, seconds) = self._played(each, False), self._played(each, True)
        return _row(index, off, on, seconds)

    def oracle(self, each: Ordinary, index: int) -> dict[str, Any]:
        """The row of a goal, played by the oracle under the guardrails."""
        env, task = self.env, each.task
        assert task.goal_state is not None
        controller = OracleController(
            env.env_spec.action,
            make_mpc(self.setup.planner, self.model.spec.frameskip),
            task.goal_state,
            env.get_state,
            env.kinematics,
            guardrails=each.rules.guardrails(env.kinematics),
            budget=STEPS,
            seed=task.seed,
        )
        return {"index": index, "reached": run_episode(env, task, controller, STEPS).reached}

    def _played(self, each: Ordinary, guarded: bool) -> tuple[Played, list[float]]:
        kinematics, action = self.env.kinematics, self.env.env_spec.action
        setup, rules = each.setup(self.setup, guarded), each.rules.guardrails()
        shield = Timed(Shield(kinematics, action, rules, ShieldLimits()))
        certifier = shield if guarded else Unshielded(kinematics, action)
        planner = setup.planner_of(self.model, setup.goal_image, setup.seed)
        planning = InlinePlanner(planner, planner_spec(self.model))
        return play(self.env, each.task, planning, certifier, rules, STEPS), shield.seconds


@dataclass(frozen=True)
class Counts:
    """Goals of each kind, and how many of the hard ones the oracle plays as well."""

    ordinary: int
    hard: int
    oracle: int


def run(counts: Counts, seed: int, out: Path, model_name: str = "pusht", planner: str = "icem") -> dict[str, Any]:
    """Play every goal twice; the table's numbers, also in ``<out>/safety_cost.json``.

    Raises:
        WmError: no such model or planner, or ``out`` cannot be written or holds another study.
    """
    model = make_model(model_name, "pusht")
    env = traced_env(model.spec.encoder.image_size)
    config = {
        "study": "safety_cost",
        "seed": seed,
        "model": fingerprint(model),
        "planner": planner,
        "steps": STEPS,
        "rules": {"workspace": list(WORKSPACE), "max_speed": MAX_SPEED, "keep_out_radius": KEEP_OUT_RADIUS},
        "hard_radius": [HARD_RADIUS, KEEP_OUT_RADIUS],
    }
    rows, hard_rows, oracle_rows = opened(out, config), Rows(out / "hard.jsonl"), Rows(out / "oracle.jsonl")
    ordinary = ordinary_tasks(seed, counts.ordinary, env.image_size)
    hard = hard_tasks(seed, max(counts.hard, counts.oracle), env.image_size) if counts.hard + counts.oracle else []
    setup = PlannerSetup(model_name, planner, ordinary[0].task.goal_image, env.kinematics, budget_steps=STEPS)
    players = Players(model, env, setup)
    _fill("ordinary goals", rows, ordinary[: counts.ordinary], players.both)
    _fill("hard goals", hard_rows, hard[: counts.hard], players.both)
    _fill("hard goals, oracle", oracle_rows, hard[: counts.oracle], players.oracle)
    result = config | table(rows.first(counts.ordinary))
    result["hard"] = hard_table(hard_rows.first(counts.hard), oracle_rows.first(counts.oracle))
    write_json(out / "safety_cost.json", result)
    return result


def _fill(title: str, rows: Rows, tasks: list[Ordinary], row: Callable[[Ordinary, int], dict[str, Any]]) -> None:
    """Play what is missing."""
    count = len(tasks)
    with progress(title, count, count - len(rows.missing(count))) as (bar, task):
        for index in rows.missing(count):
            rows.append(row(tasks[index], index))
            bar.update(task, advance=1, note=f"{sum(_reached(each) for each in rows.first(count))} reached")


def _reached(row: dict[str, Any]) -> bool:
    """With guardrails."""
    return bool(row["on"]["reached"] if "on" in row else row["reached"])


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

    def breaches(arm: str) -> int:
        return sum(sum(row[arm]["breaches"].values()) for row in rows)

    return {
        "episodes": len(rows),
        "off": _success(off) | {"executed_breaches": breaches("off")},
        "on": _success(on) | {"executed_breaches": breaches("on")},
        "on_minus_off": {"difference": difference, "ci95": list(interval)},
        "actions_changed": float(np.sum([row["on"]["changed"] for row in rows]) / max(1, len(milliseconds))),
        "certify_ms": {
            "p50": float(np.median(milliseconds)),
            "p99": float(np.quantile(milliseconds, 0.99)),
            "steps": len(milliseconds),
        },
    }


def hard_table(rows: list[dict[str, Any]], oracle: list[dict[str, Any]]) -> dict[str, Any]:
    """`table` of the hard goals; what the oracle reached of the first ones, and guardrails and shield of the same."""
    found: dict[str, Any] = table(rows) if rows else {"episodes": 0}
    if oracle:
        found["oracle"] = {"episodes": len(oracle)} | _success(np.array([_reached(row) for row in oracle]))
        same = [_reached(row) for row in rows[: len(oracle)]]
        if len(same) == len(oracle):
            found["on_of_the_same"] = {"episodes": len(same)} | _success(np.array(same))
    return found


def _success(reached: np.ndarray) -> dict[str, Any]:
    return {"success": float(reached.mean()), "ci95": list(wilson(int(reached.sum()), len(reached)))}


def main(
    out: Annotated[Path, typer.Option(help="Folder; an interrupted study there is continued.")] = Path("safety_cost"),
    episodes: Annotated[int, typer.Option(help="Ordinary goals, each played twice.", min=1)] = 200,
    hard: Annotated[int, typer.Option(help="Goals with the keep-out in the way, each played twice.", min=0)] = 100,
    oracle: Annotated[int, typer.Option(help="Of these, the first so many also by the oracle (slow).", min=0)] = 50,
    seed: Annotated[int, typer.Option(help="Of the goals and the search.", min=0)] = 7,
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
) -> None:
    """Measure what guardrails and shield cost; exit code 3 when a guardrail was broken with them on."""
    torch.set_num_threads(1)
    result = run(Counts(episodes, hard, oracle), seed, out, model, planner)
    Console().print_json(data=result)
    broken = result["on"]["executed_breaches"] + result["hard"].get("on", {}).get("executed_breaches", 0)
    judge(broken == 0)


if __name__ == "__main__":
    launch(main)
