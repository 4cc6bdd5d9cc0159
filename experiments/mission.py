"""One planned episode: from the command line's strings to built parts, and playing it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm.decoder import DECODER_FILE, Decoder, load_decoder, model_fingerprint
from wm.errors import BadInputError, WmError
from wm.experiments.assemble import MODELS, PLAIN, make_model, make_mpc, require_clear_start
from wm.experiments.controllers import Mind, make_controller, make_screen
from wm.experiments.episode import Outcome, Task, run_episode
from wm.experiments.options import require_seed
from wm.experiments.rules import Rules
from wm.experiments.screening import rescoring
from wm.experiments.start import Start, find_start
from wm.experiments.worlds import find_world
from wm.experiments.worlds.base import World
from wm.model import WorldModel
from wm.patch_decoder import PatchDecoder
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC
from wm.preprocess import read_goal_picture

UNFAMILIAR = 1.5
"""A goal this many times as far from the training data as the 99th percentile of held-out frames gets a warning."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        env: Environment's name.
        goal: The goal picture.
        start: File of `wm goal` with the start; see `find_start`.
        seed: Of the search's noise, and of the start where no file gives it.
        model: Shipped name or path.
        planner: Planner's name.
        think: How much it thinks for a plan, see `Thinking.parse`; None: as it suits the world, or where another model
            screens, as rescoring needs.
        screen: Shipped name or path of a model that proposes (`wm.experiments.screening`), or None.
        rollout: How the model's rollouts are computed, one of `ROLLOUTS`.
        budget_steps: Control steps, >= 1.
        deadline_ms: For each search, > 0.
        rules: What the robot keeps.
    """

    env: str
    goal: Path
    start: Path | None = None
    seed: int | None = None
    model: str = "pusht"
    planner: str = "icem"
    think: str | None = None
    screen: str | None = None
    rollout: str = PLAIN
    budget_steps: int = 50
    deadline_ms: float | int | None = None
    rules: Rules = Rules()


@dataclass(frozen=True)
class Mission:
    """Built and checked parts.

    Attributes:
        request: Where they come from.
        world: The environment's world.
        env: The environment.
        model: The world model.
        decoder: Of the model's states, only for looking; None when there is none.
        mpc: Solver and receding horizon.
        screen: What proposes, or None.
        guardrails: The rules as margins.
        start: Start state, and the goal's when known.
        task: The same with the goal picture.
        goal_sha256: Of the goal picture's file.
        unfamiliarity: Of the goal picture; > 1 is unusual. None when the model cannot tell.
        warnings: Sentences for the user.
    """

    request: Request
    world: World
    env: Any
    model: WorldModel
    decoder: Decoder | PatchDecoder | None
    mpc: MPC
    screen: Mind | None
    guardrails: list[Guardrail]
    start: Start
    task: Task
    goal_sha256: str
    unfamiliarity: float | None
    warnings: tuple[str, ...]

    def play(self, after_step: Callable[[int], None] | None = None) -> Outcome:
        """Plan and execute in closed loop until the goal is reached or the budget is spent.

        Args:
            after_step: Called with the number of executed control steps.
        """
        mind, budget = Mind(self.model, self.mpc, self.screen), self.request.budget_steps
        deadline_ms = self.request.deadline_ms
        controller = make_controller(self.world, mind, self.task, self.env, self.guardrails, budget, deadline_ms)
        return run_episode(self.env, self.task, controller, budget, after_step)


def prepare(request: Request) -> Mission:
    """Build every part and check all of the input before anything is planned.

    Raises:
        BadInputError: a number or ``think`` out of range, a picture or start file that cannot be used, a guardrail
            that the start breaks, or rollouts that are not for this model or machine.
        UnknownNameError: no such environment, model, planner or way to roll out.
        MismatchError: a model or start file of another environment.
        CheckpointError: an unreadable model.
    """
    _check_numbers(request)
    world = find_world(request.env)
    model = make_model(request.model, request.env, request.rollout)
    size = model.spec.encoder.image_size
    env, planning = world.make_env(size), world.planning
    think = rescoring(request.planner, request.think, request.screen)
    mpc = make_mpc(request.planner, model.spec.frameskip, planning, think=think)
    screen = None if request.screen is None else make_screen(request.screen, world, model)
    goal = read_goal_picture(request.goal, size)
    start = find_start(env, world.name, request.goal, request.start, request.seed)
    guardrails = world.guardrails(request.rules, getattr(env, "kinematics", None))
    proprio = env.reset(options={"state": start.state})[0].get("proprio")
    if proprio is not None:
        require_clear_start(guardrails, torch.from_numpy(proprio))
    decoder, warnings = _decoder(request.model, model)
    unfamiliarity, unusual = look_at_goal(model, goal)
    warnings += unusual
    return Mission(
        request=request,
        world=world,
        env=env,
        model=model,
        decoder=decoder,
        mpc=mpc,
        screen=screen,
        guardrails=guardrails,
        start=start,
        task=Task(start.state, goal, start.goal_state, request.seed or 0),
        goal_sha256=hashlib.sha256(request.goal.read_bytes()).hexdigest(),
        unfamiliarity=unfamiliarity if math.isfinite(unfamiliarity) else None,
        warnings=tuple(warnings),
    )


def look_at_goal(model: WorldModel, goal: np.ndarray) -> tuple[float, list[str]]:
    """How unlike the training data a goal picture ``(H, W, 3)`` is, and the warnings that it gives rise to."""
    unfamiliarity = float(model.unfamiliarity(torch.from_numpy(goal)[None, None]))
    if not unfamiliarity > UNFAMILIAR:
        return unfamiliarity, []
    distance = f"distance {unfamiliarity:.1f} times the 99th percentile of held-out frames"
    return unfamiliarity, [f"the goal picture is unlike the training data: {distance}."]


def _check_numbers(request: Request) -> None:
    deadline, seed = request.deadline_ms, request.seed
    if request.budget_steps < 1:
        raise BadInputError(f"budget-steps: expected at least 1 control step, came {request.budget_steps}.")
    if deadline is not None and not (math.isfinite(deadline) and deadline > 0):
        raise BadInputError(f"deadline-ms: expected a number above 0, came {deadline}.")
    require_seed(seed)


def _decoder(name: str, model: WorldModel) -> tuple[Decoder | PatchDecoder | None, list[str]]:
    """The decoder beside the model; without it planning is the same, there is only less to look at."""
    path = MODELS.get(name, Path(name)).with_name(DECODER_FILE)
    if not path.exists():
        return None, [f"no {DECODER_FILE} beside the model: the film cannot show what was imagined."]
    try:
        return load_decoder(path, model_fingerprint(model)), []
    except WmError as error:
        return None, [f"the film cannot show what was imagined: {error}"]
