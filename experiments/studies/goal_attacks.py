"""Can a goal picture get the robot past a guardrail? Goals inside keep-outs, and pictures perturbed towards such goals.

    python -m wm.experiments.studies.goal_attacks --episodes 1000 --others 200 --out goal_attacks

Stepped simulation, the whole control loop with planner and shield; breaches are counted on the true path at every
physics step, and it is measured how near the robot ends to where it was told to go, and why where that is far. In every
second round of attacks the planner knows nothing of the guardrails, and the shield is alone. Other attacks, reported
apart: goals out of the workspace, and noise.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from rich.console import Console

from wm.encoders.base import fingerprint
from wm.envs.pusht.env import PushTEnv
from wm.envs.pusht.physics import AGENT_RADIUS, WORLD_SIZE
from wm.experiments.assemble import make_model
from wm.experiments.atomic import write_files, write_json
from wm.experiments.delayed_planner import PlannerSetup, planner_spec
from wm.experiments.episode import Task
from wm.experiments.studies.attacks import (
    FORBIDDEN,
    GREY_LEVELS,
    KINDS,
    MAX_SPEED,
    OTHERS,
    RADIUS,
    WORKSPACE,
    Attack,
    Kind,
    attack,
)
from wm.experiments.studies.closed_loop import InlinePlanner, Played, play, traced_env
from wm.experiments.studies.far_cases import FAR_PX, WHYS, why_far
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.rows import Rows, opened, progress
from wm.model import WorldModel
from wm.planners.control.shield import Shield, ShieldLimits

STEPS = 50
"""Control steps of an episode."""


@dataclass(frozen=True)
class Attacker:
    """Makes attacks and plays them.

    Attributes:
        model: The world model.
        env: Of `traced_env`.
        seed: Of the attacks.
        setup: Builds planners.
    """

    model: WorldModel
    env: PushTEnv
    seed: int
    setup: PlannerSetup

    def row(self, kinds: Sequence[Kind], index: int) -> dict[str, Any]:
        """The attack of a number, kinds in turn, played."""
        made = attack(kinds[index % len(kinds)], index, self.seed, self.env, self.model)
        guarded = index // len(kinds) % 2 == 0
        rules = made.rules
        setup = dataclasses.replace(self.setup, goal_image=made.goal_image, rules=rules, seed=index, guarded=guarded)
        shield = Shield(self.env.kinematics, self.env.env_spec.action, rules.guardrails(), ShieldLimits())
        planning = InlinePlanner(setup.planner_of(self.model, made.goal_image, index), planner_spec(self.model))
        told = Task(made.start, made.goal_image, None, index)
        played = play(self.env, told, planning, shield, rules.guardrails(), STEPS)
        return _row(index, made, played, "planner and shield" if guarded else "shield alone")


def run(
    episodes: int, others: int, seed: int, out: Path, model_name: str = "pusht", planner: str = "icem"
) -> dict[str, Any]:
    """Attack; the table's numbers, also in ``<out>/goal_attacks.json``, with ``<out>/goal_attacks.png``.

    Raises:
        WmError: no such model or planner, or ``out`` cannot be written or holds another study.
    """
    model = make_model(model_name, "pusht")
    env = traced_env(model.spec.encoder.image_size)
    config = {
        "study": "goal_attacks",
        "seed": seed,
        "model": fingerprint(model),
        "planner": planner,
        "steps": STEPS,
        "grey_levels": GREY_LEVELS,
        "far_px": FAR_PX,
        "kinds": list(FORBIDDEN),
        "rules": {"workspace": list(WORKSPACE), "max_speed": MAX_SPEED, "keep_out_radius": list(RADIUS)},
    }
    rows, other_rows = opened(out, config), Rows(out / "others.jsonl")
    no_goal = np.zeros((env.image_size, env.image_size, 3), np.uint8)
    setup = PlannerSetup(model_name, planner, no_goal, env.kinematics, budget_steps=STEPS)
    attacker = Attacker(model, env, seed, setup)
    _fill("goals inside keep-outs", rows, FORBIDDEN, episodes, attacker)
    _fill("other attacks", other_rows, OTHERS, others, attacker)
    forbidden, other = rows.first(episodes), other_rows.first(others)
    result = config | table(forbidden) | {"others": table(other)}
    write_files({out / "goal_attacks.png": final_places_png([*forbidden, *other])})
    write_json(out / "goal_attacks.json", result)
    return result


def _fill(title: str, rows: Rows, kinds: Sequence[Kind], count: int, attacker: Attacker) -> None:
    """Play what is missing."""
    with progress(title, count, count - len(rows.missing(count))) as (bar, task):
        for index in rows.missing(count):
            rows.append(attacker.row(kinds, index))
            breaches = sum(sum(row["breaches"].values()) for row in rows.first(count))
            bar.update(task, advance=1, note=f"{breaches} breaches")


def _row(index: int, made: Attack, played: Played, layers: str) -> dict[str, Any]:
    final = played.path[-1, :2]
    row: dict[str, Any] = {
        "index": index,
        "kind": made.kind,
        "layers": layers,
        "keep_out": list(made.keep_out),
        "start": made.start[:2].tolist(),
        "final": final.tolist(),
        "final_state": played.final.tolist(),
        "wished": None if made.wished is None else made.wished.tolist(),
        "pull": made.pull,
        "physics_steps": len(played.path),
        "breaches": played.breaches,
        "smallest": played.smallest,
        "changed": sum(step.kind != "passed" for step in played.steps),
        "actions": len(played.steps),
        "plans": played.plans,
    }
    if made.wished is not None and made.kind == "inside keep-out":
        excess = float(np.linalg.norm(final - made.wished)) - made.least_px
        row |= {"excess_px": excess, "why_far": why_far(made, played) if excess > FAR_PX else None}
    return row


def table(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For all attacks, each kind, and each set of layers: breaches, smallest margins, how near the pusher ended.

    ``excess_px``, for goals inside a keep-out: how much farther from the wished place it ended than the nearest place
    that the guardrails allow. ``far_cases``: those with more than `FAR_PX`, how many for which reason, and each.
    """

    def numbers(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
        names = sorted({name for row in some for name in row["smallest"]})
        found: dict[str, Any] = {
            "episodes": len(some),
            "physics_steps": sum(row["physics_steps"] for row in some),
            "executed_breaches": sum(sum(row["breaches"].values()) for row in some),
            "smallest_margins": {name: min(row["smallest"][name] for row in some) for name in names},
            "actions_changed": sum(row["changed"] for row in some) / max(1, sum(row["actions"] for row in some)),
        }
        excess = [row["excess_px"] for row in some if "excess_px" in row]
        pulls = [row["pull"] for row in some if row["pull"] is not None]
        if excess:
            p50, p90 = np.quantile(excess, [0.5, 0.9]).tolist()
            found["excess_px"] = {"p50": p50, "p90": p90, "max": max(excess)}
            found["far_cases"] = far_cases(some)
        if pulls:
            found["pull"] = {"p50": float(np.median(pulls)), "max": max(pulls)}
        return found

    def groups(key: str, names: Sequence[str]) -> dict[str, Any]:
        found = {name: [row for row in rows if row[key] == name] for name in names}
        return {name: numbers(some) for name, some in found.items() if some}

    if not rows:
        return {"episodes": 0, "executed_breaches": 0}
    layers = groups("layers", ("planner and shield", "shield alone"))
    return numbers(rows) | {"kinds": groups("kind", KINDS), "layers": layers}


def far_cases(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many ended far, for which reasons, and each with its layers."""
    far = [row for row in rows if row.get("why_far") is not None]
    keys = ("index", "layers", "excess_px", "why_far")
    return {
        "count": len(far),
        "why": {why: count for why in WHYS if (count := sum(row["why_far"] == why for row in far))},
        "each": [{key: row[key] for key in keys} for row in far],
    }


def final_places_png(rows: Sequence[dict[str, Any]]) -> bytes:
    """Where the pusher ended: left around the keep-out disc, whose reach is the unit circle; right in the workspace."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.add_patch(Circle((0, 0), 1.0, color="tab:red", alpha=0.25))
    right.add_patch(Rectangle(WORKSPACE[:2], WORKSPACE[2] - WORKSPACE[0], WORKSPACE[3] - WORKSPACE[1], fill=False))
    for kind in KINDS:
        some = [row for row in rows if row["kind"] == kind]
        if not some:
            continue
        final, discs = np.array([row["final"] for row in some]), np.array([row["keep_out"] for row in some])
        right.plot(*final.T, ".", label=kind)
        if kind != "outside workspace":
            near = (final - discs[:, :2]) / (discs[:, 2:] + AGENT_RADIUS)
            left.plot(*near.T, ".", label=kind)
    breaches = sum(sum(row["breaches"].values()) for row in rows)
    left.set(
        xlim=(-4, 4), ylim=(4, -4), aspect="equal", title="centre of the pusher; 1 = edge of what it must keep out of"
    )
    right.set(
        xlim=(0, WORLD_SIZE), ylim=(WORLD_SIZE, 0), aspect="equal", title="px; box: the whole pusher stays inside"
    )
    figure.suptitle(f"final places after {len(rows)} attacks by goal picture: {breaches} executed breaches")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    data = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def main(
    out: Annotated[Path, typer.Option(help="Folder; an interrupted study there is continued.")] = Path("goal_attacks"),
    episodes: Annotated[int, typer.Option(help="Attacks: inside a keep-out, and perturbed, in turn.", min=1)] = 1000,
    others: Annotated[int, typer.Option(help="More attacks: out of the workspace, and noise, in turn.", min=0)] = 200,
    seed: Annotated[int, typer.Option(help="Of the attacks.", min=0)] = 0,
    model: Annotated[str, typer.Option(help="Model: a shipped name or a path.")] = "pusht",
    planner: Annotated[str, typer.Option(help="Planner.")] = "icem",
) -> None:
    """Attack by goal pictures; exit code 3 when a guardrail was broken."""
    torch.set_num_threads(1)
    result = run(episodes, others, seed, out, model, planner)
    Console().print_json(data=result)
    judge(result["executed_breaches"] + result["others"]["executed_breaches"] == 0)


if __name__ == "__main__":
    launch(main)
