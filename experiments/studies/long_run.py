"""`wm control` for minutes without a break, towards one goal picture after the other."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from wm.errors import WmError
from wm.experiments.assemble import find_model, make_model
from wm.experiments.atomic import write_files, write_json
from wm.experiments.control import Driven, drive
from wm.experiments.control_setup import ControlRequest, Drive, prepare
from wm.experiments.delayed_planner import DelayedPlanner, PlannerSetup, warm_up
from wm.experiments.episode_sink import plain
from wm.experiments.studies.ordinary import Ordinary, ordinary_tasks
from wm.model import WorldModel
from wm.planners.control.loop import INTERRUPTED
from wm.planners.control.messages import PlanReply, PlanRequest
from wm.planners.control.states import State

GOAL_STEPS = 50
"""Control steps for which a goal is pursued, reached or not; then comes the next."""

PANEL_COLUMNS, PANEL_LINES = 110, 40


@dataclass(frozen=True, eq=False)
class GoalAfterGoal(PlannerSetup):
    """A setup whose planner turns to the next goal every `GOAL_STEPS` control steps, the first again after the last.

    Attributes:
        goal_images: ``(G, H, W, 3)`` uint8.
    """

    goal_images: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))

    def __call__(self) -> Pursuit:  # type: ignore[override]
        """Load the model.

        Raises:
            WmError: as `PlannerSetup`.
        """
        return Pursuit(self, find_model(self.model)[0])


class Pursuit:
    """Plans to the goal of the control step."""

    def __init__(self, setup: GoalAfterGoal, model: WorldModel) -> None:
        self._setup, self._model, self._turn = setup, model, -1
        warm_up(self._planner(0))

    def __call__(self, request: PlanRequest) -> PlanReply:
        """As `DelayedPlanner`; a new goal begins anew."""
        begin, turn = time.monotonic(), request.step // GOAL_STEPS
        if turn != self._turn:
            self._turn, self._plan = turn, self._planner(turn)
        left = max(0.0, request.deadline_ms - 1000 * (time.monotonic() - begin))
        return self._plan(dataclasses.replace(request, deadline_ms=left))

    def _planner(self, turn: int) -> DelayedPlanner:
        images = self._setup.goal_images
        return self._setup.planner_of(self._model, images[turn % len(images)], self._setup.seed + turn)


def long_run(minutes: float | int, seed: int, out: Path, model: str, planner: str) -> dict[str, Any]:
    """Drive, as `wm control` does: panel (to nowhere), episode store ``<out>/long_run``, every check at the start.

    Returns:
        The numbers, also in ``<out>/long_run.json``; those of an earlier run of the same length are taken as they are.

    Raises:
        WmError: as `prepare` and `drive`, or the loop stopped.
        KeyboardInterrupt: somebody interrupted it.
    """
    known = out / "long_run.json"
    if known.exists():
        found: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
        if found["minutes"] == minutes:
            return found
    size = make_model(model, "pusht").spec.encoder.image_size
    tasks = ordinary_tasks(seed, max(1, math.ceil(600 * minutes / GOAL_STEPS)), size)
    request = ControlRequest(
        robot="sim:pusht",
        goal=_written(tasks[0], out / "goal.png"),
        model=model,
        planner=planner,
        rules=tasks[0].rules,
        duration_s=60 * minutes,
        log=out / "long_run",
    )
    parts = prepare(request)
    images = np.stack([each.task.goal_image for each in tasks])
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # a terminal that nobody sees: everything is drawn
        console = Console(file=nowhere, force_terminal=True, width=PANEL_COLUMNS, height=PANEL_LINES)
        driven = drive(_pursuing(parts, images), console)
    if driven.report.why == INTERRUPTED:
        raise KeyboardInterrupt
    if driven.report.state is not State.IDLE:
        raise WmError(f"the loop stopped: {driven.report.why}")
    result = _numbers(parts, driven, minutes)
    write_json(known, result)
    return result


def _written(each: Ordinary, goal: Path) -> Path:
    """The goal picture and, beside it, the states, as `wm goal` writes them."""
    task, encoded = each.task, io.BytesIO()
    assert task.goal_state is not None
    Image.fromarray(task.goal_image).save(encoded, "PNG")
    states = {"env": "pusht", "start_state": task.start_state.tolist(), "goal_state": task.goal_state.tolist()}
    write_files({goal: encoded.getvalue(), goal.with_suffix(".json"): json.dumps(states).encode()})
    return goal


def _pursuing(parts: Drive, images: np.ndarray) -> Drive:
    """The same with goals that follow each other, each planned for as an episode of its own."""
    common = {field.name: getattr(parts.setup, field.name) for field in dataclasses.fields(PlannerSetup)}
    setup = GoalAfterGoal(**common | {"budget_steps": GOAL_STEPS}, goal_images=images)
    return dataclasses.replace(parts, setup=setup)


def _numbers(parts: Drive, driven: Driven, minutes: float | int) -> dict[str, Any]:
    report = driven.report
    names = ("on_time_share", "late_ms", "sent_ms", "plan_ms", "plans", "actions", "holds", "uncertified")
    found: dict[str, Any] = plain({name: report.as_values()[name] for name in names})
    return {
        "minutes": minutes,
        "periods": report.periods,
        "on_time": report.on_time,
        "skipped": report.skipped,
        "on_time_ms": 1000 * parts.settings.on_time_s,
        "goals": -(-report.periods // GOAL_STEPS),
        "episodes_logged": driven.episodes,
    } | found
