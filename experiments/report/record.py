"""`plan.json`: everything about one planned episode as JSON values."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import wm
from wm.decoder import model_fingerprint
from wm.experiments.episode import Outcome
from wm.experiments.mission import Mission
from wm.experiments.report.imagination import prediction_errors
from wm.experiments.rules import on_states
from wm.types import Plan


@dataclass(frozen=True)
class PlanRecord:
    """The content of `plan.json`, in its order. A list "per replan" has one entry for each search.

    Attributes:
        env: Environment.
        reached: The success test, within the budget; None when the goal's state is unknown.
        measures: How it went, see the world's `World.measures`; None when the goal's state is unknown.
        steps: Control steps executed.
        budget_steps: Control steps allowed.
        stopped_by: `"reached"` or `"budget"`.
        planned_at: Per replan, the control step it was made at.
        plan_ms: Per replan, wall time from observations to actions [ms].
        energies: Per replan, `total`, and the weighted `terms` that sum to it, of the plan.
        searches: Per replan, `iterations`, `candidates` rolled out, `milliseconds`, `stopped_by`, and `trace`, the best
            energy after each iteration.
        margins: Per replan, the smallest predicted margin of each guardrail over the horizon; >= 0 is safe.
        executed_margins: The smallest margin of each guardrail at an executed control step, the start included.
        guardrail_violations: Executed control steps with a negative margin, summed over the guardrails.
        guardrails: Their settings, as asked for.
        prediction_errors: Per replan that ran for a whole latent step, imagined beside observed (latent units).
        goal: `picture` (file name), `sha256` of the file, and `unfamiliarity`: its distance to the training data over
            the 99th percentile of that distance on held-out frames.
        start: `source` of the start.
        seeds: `search`, and `start` where a seed gave it.
        model: `name`, `fingerprint`, `encoder_fingerprint`, `frameskip`, `history`.
        planner: `name`, `think`, `screen` (`name` and `fingerprint`, or None), `rollout`, `horizon`, `execute`
            [latent steps], `deadline_ms`.
        versions: Of wm, torch, numpy and Python.
        warnings: Sentences for the user.
        state_names: Of the numbers in a state.
        states: `(steps + 1, …)` executed states, the start first.
        goal_state: None when unknown.
        action_names: Of the numbers in an action.
        actions: `(steps, …)` executed actions, raw units.
    """

    env: str
    reached: bool | None
    measures: dict[str, float] | None
    steps: int
    budget_steps: int
    stopped_by: str
    planned_at: list[int]
    plan_ms: list[float]
    energies: list[dict[str, Any]]
    searches: list[dict[str, Any]]
    margins: list[dict[str, float]]
    executed_margins: dict[str, float]
    guardrail_violations: int
    guardrails: dict[str, Any]
    prediction_errors: list[dict[str, Any]]
    goal: dict[str, Any]
    start: dict[str, Any]
    seeds: dict[str, int | None]
    model: dict[str, Any]
    planner: dict[str, Any]
    versions: dict[str, str]
    warnings: list[str]
    state_names: list[str]
    states: list[list[float]]
    goal_state: list[float] | None
    action_names: list[str]
    actions: list[list[float]]

    def to_json(self) -> str:
        """Strict JSON: numbers that are not finite become null."""
        return json.dumps(strict(dataclasses.asdict(self)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def record_of(mission: Mission, outcome: Outcome) -> PlanRecord:
    """What there is to say about a played mission."""
    request, spec, goal = mission.request, mission.model.spec, mission.start.goal_state
    seeded = mission.start.source.startswith("seed ")
    return PlanRecord(
        env=request.env,
        reached=None if goal is None else outcome.reached,
        measures=None if goal is None else mission.world.measures(goal, np.stack(outcome.states)),
        steps=outcome.steps,
        budget_steps=request.budget_steps,
        stopped_by=outcome.stopped_by,
        planned_at=list(outcome.planned_at),
        plan_ms=[round(ms, 2) for ms in outcome.plan_ms],
        energies=[_energies(plan) for plan in outcome.plans],
        searches=[_search(plan) for plan in outcome.plans],
        margins=[{name: _smallest(margin) for name, margin in plan.margins.items()} for plan in outcome.plans],
        executed_margins={name: min(margins) for name, margins in executed_margins(mission, outcome).items()},
        guardrail_violations=sum(outcome.violations.values()),
        guardrails={} if mission.world.robot is None else request.rules.within(mission.world.robot).as_json(),
        prediction_errors=[dataclasses.asdict(error) for error in prediction_errors(mission.model, outcome)],
        goal={
            "picture": request.goal.name,
            "sha256": mission.goal_sha256,
            "unfamiliarity": mission.unfamiliarity,
        },
        start={"source": mission.start.source},
        seeds={"search": mission.task.seed, "start": mission.task.seed if seeded else None},
        model={
            "name": request.model,
            "fingerprint": model_fingerprint(mission.model),
            "encoder_fingerprint": spec.encoder.fingerprint,
            "frameskip": spec.frameskip,
            "history": spec.history,
        },
        planner={
            "name": request.planner,
            "think": request.think,
            "screen": _screen(mission),
            "rollout": request.rollout,
            "horizon": mission.mpc.horizon,
            "execute": mission.mpc.execute,
            "deadline_ms": request.deadline_ms,
        },
        versions=versions(),
        warnings=list(mission.warnings),
        state_names=list(spec.env.state_names),
        states=[np.asarray(state, np.float64).tolist() for state in outcome.states],
        goal_state=None if goal is None else goal.tolist(),
        action_names=list(spec.env.action.names),
        actions=[np.asarray(action, np.float64).tolist() for action in outcome.actions],
    )


def executed_margins(mission: Mission, outcome: Outcome) -> dict[str, list[float]]:
    """Margin of each guardrail at every executed control step, the start first."""
    if not mission.guardrails:
        return {}
    path = torch.from_numpy(np.stack(outcome.proprio).astype(np.float32))
    return {rule.name: rule.margin_of(path).tolist() for rule in on_states(mission.guardrails)}


def versions() -> dict[str, str]:
    """Of what the result depends on."""
    return {
        "wm": wm.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def strict(value: Any) -> Any:
    """The same JSON values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _screen(mission: Mission) -> dict[str, str] | None:
    if mission.screen is None or mission.request.screen is None:
        return None
    return {"name": mission.request.screen, "fingerprint": model_fingerprint(mission.screen.model)}


def _energies(plan: Plan) -> dict[str, Any]:
    return {"total": float(plan.energy[0]), "terms": {name: float(term[0]) for name, term in plan.energy_terms.items()}}


def _search(plan: Plan) -> dict[str, Any]:
    return {
        "iterations": plan.iterations,
        "candidates": plan.candidates,
        "milliseconds": round(plan.milliseconds, 2),
        "stopped_by": plan.stopped_by,
        "trace": [float(energy[0]) for energy in plan.trace],
    }


def _smallest(margin: Tensor) -> float:
    return float(margin[0].min())
