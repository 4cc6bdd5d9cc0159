"""Controllers of a world's tasks, as `wm plan` and `wm eval` build them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from wm.experiments.assemble import make_model, make_screening
from wm.experiments.episode import Controller, Task
from wm.experiments.screening import ScreenedController
from wm.experiments.worlds.base import World
from wm.kinematics import PointKinematics
from wm.model import WorldModel
from wm.planners.guardrails import Guardrail
from wm.planners.mpc import MPC
from wm.specs import require_equal


@dataclass(frozen=True)
class Mind:
    """What plans: a model, and its solver in a receding horizon.

    Attributes:
        model: The world model.
        mpc: Solver and receding horizon; its state is one controller's at a time.
        screen: A cheaper model that proposes, see `wm.experiments.screening`; None: the model plans alone.
    """

    model: WorldModel
    mpc: MPC
    screen: Mind | None = None


def make_screen(name: str, world: World, model: WorldModel) -> Mind:
    """A screening model by shipped name or path, with the search of `make_screening`.

    Raises:
        UnknownNameError, CheckpointError: as `make_model`.
        MismatchError: a model of another world or robot, or of other latent steps or pictures than the model it is for.
    """
    screen = make_model(name, world.name)
    require_equal("frameskip of the screening model", model.spec.frameskip, screen.spec.frameskip, name)
    sizes = model.spec.encoder.image_size, screen.spec.encoder.image_size
    require_equal("picture size of the screening model", *sizes, name)
    return Mind(screen, make_screening(screen.spec.frameskip, world.planning))


def controller_options(
    world: World,
    guardrails: list[Guardrail],
    kinematics: PointKinematics | None,
    budget: int | None,
    seed: int,
    deadline_ms: float | None = None,
) -> dict[str, Any]:
    """What whoever plans a world's task is told beside model, solver and goal (`wm.experiments.episode.LatentPlanner`).

    Args:
        world: Says how distances are weighted and what resting is.
        guardrails: On the robot's path.
        kinematics: Of the robot, where its path is known.
        budget: Control steps of the episode; None: without end.
        seed: Of the search.
        deadline_ms: For each search; None: none, or each request brings its own.
    """
    return {
        "guardrails": guardrails,
        "kinematics": kinematics,
        "earlier_weight": world.planning.earlier_weight,
        "robot_weight": world.planning.robot_weight,
        "budget": budget,
        "deadline_ms": deadline_ms,
        "seed": seed,
        "rest": world.rest_action(),
    }


def make_controller(
    world: World,
    mind: Mind,
    task: Task,
    env: Any,
    guardrails: list[Guardrail],
    budget: int | None,
    deadline_ms: float | None,
    kind: type[Controller] = Controller,
) -> Controller:
    """A controller towards a task's goal picture.

    Args:
        world: Says how distances are weighted and what resting is.
        mind: What plans.
        task: Its goal picture and seed are used.
        env: Declares the robot's kinematics, or none.
        guardrails: On the robot's path.
        budget: Control steps of the episode; None: without end.
        deadline_ms: For each search.
        kind: Class of the controller where the model plans alone.
    """
    options = controller_options(world, guardrails, getattr(env, "kinematics", None), budget, task.seed, deadline_ms)
    goal = mind.model.encode(torch.from_numpy(task.goal_image)[None, None])
    if mind.screen is None:
        return kind(mind.model, mind.mpc, goal, **options)
    screen = make_controller(world, mind.screen, task, env, guardrails, budget, deadline_ms)
    return ScreenedController(mind.model, mind.mpc, goal, screen=screen, **options)
