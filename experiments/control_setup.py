"""From the command line's strings to a robot that is ready to be driven: everything is checked before it moves."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import wm
from wm.encoders.base import fingerprint
from wm.errors import BadInputError, RobotError
from wm.experiments.assemble import find_model, make_env, make_model, make_mpc, require_clear_start
from wm.experiments.delayed_planner import PlannerSetup
from wm.experiments.mission import look_at_goal
from wm.experiments.options import require_seed
from wm.experiments.robots import Rig, RobotName, bridged_rig, simulated_rig, world_of
from wm.experiments.rules import PUSHER, RobotShape, Rules
from wm.experiments.start import find_start
from wm.model import WorldModel
from wm.planners.control.arming import unsafe_stop
from wm.planners.control.parts import HasLatch
from wm.planners.control.settings import LoopSettings
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.guardrails import Guardrail
from wm.preprocess import read_goal_picture
from wm.specs import require_equal

LEAD_STEPS = 2
"""Control steps that a plan has time."""

REPLAN_EVERY = 5
"""Control steps from one plan to the next."""

PICTURE_PIXELS = 2.0
"""Way of the robot, in pixels of the picture, after which a camera that is alive must show another picture: its edge
has then passed over whole pixels, whatever the camera averages or rounds."""

LONGEST_S = 86_400.0
LATEST_MS = 10_000.0


@dataclass(frozen=True)
class ControlRequest:
    """What the command line asks for.

    Attributes:
        robot: ``sim:ENV`` or ``tcp:HOST:PORT``.
        goal: The goal picture.
        rate: Control steps per second, which has to be the robot's; None takes the robot's.
        start: Of a simulated robot, see `find_start`.
        seed: Of the search, and of a simulated start that no file gives.
        model: Shipped name or path; None: the simulated robot's world, or push-T behind a bridge.
        planner: Planner's name.
        think: How much it thinks for a plan, see `Thinking.parse`; None: as it is by itself.
        rules: What the robot keeps.
        bounds: Errors and disturbances that the shield certifies for, by their names in `ShieldLimits`.
        duration_s: Seconds, > 0 and at most `LONGEST_S`.
        latency_ms: Longest time until an action begins to act [ms]; a simulated robot is made that late. None: none in
            a simulation, two control periods behind a bridge.
        log: Folder of the episode store, or None.
        until_reached: End when the simulator finds the goal reached.
        reset: Release a stop of a robot behind a bridge that others asked for, or its deadman.
    """

    robot: str
    goal: Path
    rate: float | int | None = None
    start: Path | None = None
    seed: int | None = None
    model: str | None = None
    planner: str = "icem"
    think: str | None = None
    rules: Rules = Rules()
    bounds: Mapping[str, float] = field(default_factory=dict)
    duration_s: float | int = 30.0
    latency_ms: float | int | None = None
    log: Path | None = None
    until_reached: bool = False
    reset: bool = False


@dataclass(frozen=True)
class Drive:
    """Built and checked parts; the robot is connected and stands.

    Attributes:
        request: Where they come from.
        rig: The robot.
        shape: Its disc and unit of length.
        model: The world model.
        setup: Builds the planner in its process.
        shield: Certifies every action.
        guardrails: What planner and shield keep.
        settings: Of the loop.
        goal_sha256: Of the goal picture's file.
        goal_known: The simulator can tell whether the goal is reached.
        warnings: Sentences for the user.
    """

    request: ControlRequest
    rig: Rig
    shape: RobotShape
    model: WorldModel
    setup: PlannerSetup
    shield: Shield
    guardrails: list[Guardrail]
    settings: LoopSettings
    goal_sha256: str
    goal_known: bool
    warnings: tuple[str, ...]


def prepare(request: ControlRequest) -> Drive:
    """Build every part, connect, and check all of the input before anything moves.

    Raises:
        BadInputError: a number out of range, a picture or start that cannot be used, a start that breaks a guardrail.
        UnknownNameError: no such robot, model or planner.
        MismatchError: another rate than the robot's, a model of another robot, a start of another environment.
        RobotError: nobody answers.
        CheckpointError: an unreadable model.
    """
    _check_numbers(request)
    name = RobotName.parse(request.robot)
    request = dataclasses.replace(request, model=request.model or name.env or "pusht")
    model, rig, goal_known = _simulated(request, name.env) if name.env else _bridged(request, name)
    world = world_of(model.spec.env.env)
    robot, size = rig.robot, model.spec.encoder.image_size
    if request.rate is not None:
        require_equal("control rate [Hz]", robot.action_spec.control_hz, request.rate, "--rate")
    if robot.kinematics is None or world.robot is None:
        raise BadInputError(f"robot '{request.robot}': it declares no kinematics, so no action can be certified.")
    goal = read_goal_picture(request.goal, size)
    make_mpc(request.planner, model.spec.frameskip, world.planning, request.think)
    request = dataclasses.replace(request, rules=request.rules.within(world.robot))
    guardrails = world.guardrails(request.rules, robot.kinematics)
    late_s = rig.late_s if request.latency_ms is None else request.latency_ms / 1000
    shield = Shield(robot.kinematics, robot.action_spec, guardrails, ShieldLimits(late_s, **request.bounds))
    age_s = rig.reading_age_within(late_s)
    settings = loop_settings(robot.action_spec.control_hz, size, shield.limits, age_s, world.robot)
    assert request.model is not None
    setup = PlannerSetup(
        model=request.model,
        planner=request.planner,
        think=request.think,
        goal_image=goal,
        kinematics=robot.kinematics,
        rules=request.rules,
        budget_steps=max(1, round(request.duration_s * settings.rate_hz)),
        seed=request.seed or 0,
    )
    _, warnings = look_at_goal(model, goal)
    sha256 = hashlib.sha256(request.goal.read_bytes()).hexdigest()
    _require_clear(rig, shield, guardrails, request.reset)
    return Drive(
        request, rig, world.robot, model, setup, shield, guardrails, settings, sha256, goal_known, tuple(warnings)
    )


def loop_settings(
    rate_hz: float | int,
    image_size: int,
    limits: ShieldLimits,
    reading_age_s: float | None = None,
    robot: RobotShape = PUSHER,
) -> LoopSettings:
    """Rates and times of `wm control`; ``reading_age_s`` as in `LoopSettings`.

    A picture of push-T shows 512 px of the world, 5.3 px in each of its 96 pixels; the arm's at most 1.2 cm. After
    twice that it must have changed; a robot that stands still only seems to move, by twice the stated error of its
    position.
    """
    travel = PICTURE_PIXELS * robot.pictured / image_size + 2 * limits.position_error
    return LoopSettings(
        rate_hz,
        lead_steps=LEAD_STEPS,
        replan_every=REPLAN_EVERY,
        picture_travel=travel,
        reading_age_s=reading_age_s,
    )


def run_info(parts: Drive) -> dict[str, Any]:
    """What a run is made of, as JSON values."""
    request, limits = parts.request, parts.shield.limits
    return {
        "robot": request.robot,
        "goal": {"path": str(request.goal), "sha256": parts.goal_sha256},
        "model": {"name": request.model, "fingerprint": fingerprint(parts.model)},
        "planner": request.planner,
        "think": request.think,
        "seed": parts.setup.seed,
        "rules": request.rules.as_json(),
        "shield_limits": dataclasses.asdict(limits),
        "settings": dataclasses.asdict(parts.settings),
        "wm": wm.__version__,
    }


def _check_numbers(request: ControlRequest) -> None:
    duration, latency, seed = request.duration_s, request.latency_ms, request.seed
    if not 0 < duration <= LONGEST_S:
        raise BadInputError(f"duration: expected a number of seconds above 0, at most {LONGEST_S:g}, came {duration}.")
    if latency is not None and not 0 <= latency <= LATEST_MS:
        raise BadInputError(f"latency-ms: expected a number of at least 0, at most {LATEST_MS:g}, came {latency}.")
    require_seed(seed)


def _simulated(request: ControlRequest, env_name: str) -> tuple[WorldModel, Rig, bool]:
    """Model, robot, and whether the goal's state is known."""
    model = make_model(request.model or env_name, env_name)
    env = make_env(env_name, model.spec.encoder.image_size)
    start = find_start(env, env_name, request.goal, request.start, request.seed)
    if request.until_reached and start.goal_state is None:
        raise BadInputError("until-reached: the goal's state is not known; give --start with the file of `wm goal`.")
    rig = simulated_rig(env, start.state, start.goal_state, (request.latency_ms or 0.0) / 1000)
    return model, rig, start.goal_state is not None


def _bridged(request: ControlRequest, name: RobotName) -> tuple[WorldModel, Rig, bool]:
    """As `_simulated`; whether the goal is reached is for nobody to tell."""
    if request.start is not None or request.until_reached:
        option = "--start" if request.start is not None else "--until-reached"
        raise BadInputError(f"{option}: expected a simulated robot (sim:…), came '{request.robot}'.")
    assert name.address is not None
    assert request.model is not None
    model, path = find_model(request.model)
    rig = bridged_rig(*name.address)
    action, observation = rig.robot.action_spec, rig.robot.observation_spec
    require_equal("model of another robot: action", action, model.spec.env.action, path)
    require_equal("model of another robot: proprioception", observation.proprio, model.spec.env.proprio, path)
    size = model.spec.encoder.image_size
    require_equal("picture size [px]", size, observation.image_size, f"the robot {request.robot}")
    return model, rig, False


def _require_clear(rig: Rig, shield: Shield, guardrails: Sequence[Guardrail], reset: bool) -> None:
    """Connect, and refuse a robot that somebody else has stopped, or that stands where it may not."""
    try:
        rig.robot.connect()
        if isinstance(rig.robot, HasLatch):
            _release(rig.robot, reset)
        proprio = rig.robot.get_observation().proprio
        if proprio is None:
            raise BadInputError("the robot reports no proprioception, so no action can be certified.")
        require_clear_start(guardrails, torch.from_numpy(np.asarray(proprio, np.float32)))
        why = unsafe_stop(shield, proprio)
        if why is not None:
            raise BadInputError(why)
    except BaseException:
        rig.robot.disconnect()
        raise


def _release(robot: HasLatch, force: bool) -> None:
    try:
        robot.reset(force=force)
    except RobotError as error:
        raise RobotError(f"{error} (--reset releases it, once its cause is gone)") from error
