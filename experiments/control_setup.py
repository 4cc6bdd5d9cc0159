"""From the command line's strings to a robot that is ready to be driven: everything is checked before it moves."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import wm
from wm.encoders.base import fingerprint
from wm.errors import BadInputError, RobotError
from wm.experiments.assemble import find_model, make_model, make_mpc, require_clear_start
from wm.experiments.delayed_planner import PlannerSetup
from wm.experiments.mission import look_at_goal
from wm.experiments.options import require_seed
from wm.experiments.robots import LEAD_STEPS, Rig, RobotName, bridged_rig, simulated_rig, world_of
from wm.experiments.rules import PUSHER, RobotShape, Rules
from wm.experiments.start import find_start
from wm.experiments.worlds import WORLDS, find_world
from wm.experiments.worlds.base import World
from wm.model import WorldModel
from wm.planners.control.arming import unsafe_stop
from wm.planners.control.bounds_filter import BoundsFilter
from wm.planners.control.parts import Certifier, HasLatch
from wm.planners.control.settings import LoopSettings
from wm.planners.control.shield import Shield, ShieldLimits
from wm.planners.guardrails import Guardrail
from wm.preprocess import read_goal_picture
from wm.specs import require_equal

LEAD_S = 0.2
"""Seconds that a plan has time at higher rates, in at most half of the control steps that it plans."""

REPLAN_EVERY = 5
"""Control steps from one plan to the next."""

STALE_PERIODS, TIMEOUT_LEADS = 2.5, 3
"""Of a slow robot: control periods after which an observation is stale, and times a plan's lead without any plan that
are a fault."""

PICTURE_PIXELS = 2.0
"""Way of the robot, in pixels of the picture, after which a camera that is alive must show another picture: its edge
has then passed over whole pixels, whatever the camera averages or rounds."""

LONGEST_S = 86_400.0
LATEST_MS = 10_000.0

UNCERTIFIED = "no action is certified: no kinematics are declared, and nothing but the actions' bounds is kept."


@dataclass(frozen=True)
class ControlRequest:
    """What the command line asks for.

    Attributes:
        robot: ``sim:ENV`` or ``tcp:HOST:PORT``.
        goal: The goal picture.
        rate: Control steps per second, which has to be the robot's; None takes the robot's.
        start: Of a simulated robot, see `find_start`.
        seed: Of the search, and of a simulated start that no file gives.
        model: Shipped name or path; None: the simulated robot's world, if it is ours, or push-T behind a bridge.
        planner: Planner's name.
        think: How much it thinks for a plan, see `Thinking.parse`; None: as it suits the world.
        rules: What the robot keeps.
        bounds: Errors and disturbances that the shield certifies for, by their names in `ShieldLimits`.
        duration_s: Seconds, > 0 and at most `LONGEST_S`.
        latency_ms: Longest time until an action begins to act [ms]; a simulated robot is made that late. None: none in
            a simulation, two control periods behind a bridge.
        log: Folder of the episode store, or None.
        until_reached: End when the simulator finds the goal reached.
        reset: Release a stop of a robot behind a bridge that others asked for, or its deadman.
        uncertified: Drive a simulation that declares no kinematics inside its actions' bounds alone.
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
    uncertified: bool = False


@dataclass(frozen=True)
class Drive:
    """Built and checked parts; the robot is connected and stands.

    Attributes:
        request: Where they come from.
        rig: The robot.
        shape: Its disc and unit of length; None where nothing is certified.
        model: The world model.
        setup: Builds the planner in its process.
        shield: Certifies every action; a `BoundsFilter` none.
        guardrails: What planner and shield keep.
        settings: Of the loop.
        goal_sha256: Of the goal picture's file.
        goal_known: The simulator can tell whether the goal is reached.
        warnings: Sentences for the user.
    """

    request: ControlRequest
    rig: Rig
    shape: RobotShape | None
    model: WorldModel
    setup: PlannerSetup
    shield: Certifier
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
    name = RobotName.parse(request.robot, request.uncertified)
    request = dataclasses.replace(request, model=request.model or _usual_model(name))
    model, rig, goal_known = _simulated(request, name.env) if name.env else _bridged(request, name)
    world = find_world(name.env) if name.env else world_of(model.spec.env.env)
    robot, size = rig.robot, model.spec.encoder.image_size
    if request.rate is not None:
        require_equal("control rate [Hz]", robot.action_spec.control_hz, request.rate, "--rate")
    goal = read_goal_picture(request.goal, size)
    mpc = make_mpc(request.planner, model.spec.frameskip, world.planning, request.think)
    request, shield, guardrails = _certifier(request, rig, world)
    age_s, planned = rig.reading_age_within(shield.limits.latency), mpc.horizon * mpc.frameskip
    settings = loop_settings(robot.action_spec.control_hz, size, shield.limits, age_s, world.robot, planned)
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
        world=name.env,
    )
    _, warnings = look_at_goal(model, goal)
    warnings = [UNCERTIFIED, *warnings] if request.uncertified else warnings
    sha256 = hashlib.sha256(request.goal.read_bytes()).hexdigest()
    _require_clear(rig, shield, guardrails, request.reset)
    return Drive(
        request, rig, world.robot, model, setup, shield, guardrails, settings, sha256, goal_known, tuple(warnings)
    )


def _usual_model(name: RobotName) -> str:
    if name.env is not None and name.env not in WORLDS:
        raise BadInputError(f"--model: expected the path of a model of '{name.env}', for which none is shipped.")
    return name.env or "pusht"


def _certifier(request: ControlRequest, rig: Rig, world: World) -> tuple[ControlRequest, Certifier, list[Guardrail]]:
    """The request with the rules for its robot, what certifies them, and the rules as margins."""
    robot = rig.robot
    late_s = rig.late_s if request.latency_ms is None else request.latency_ms / 1000
    if request.uncertified:
        refuse_rules(request.rules != Rules() or bool(request.bounds))
        return request, BoundsFilter(robot.action_spec, ShieldLimits(late_s), world.rest_action()), []
    if robot.kinematics is None or world.robot is None:
        raise BadInputError(f"robot '{request.robot}': it declares no kinematics, so no action can be certified.")
    request = dataclasses.replace(request, rules=request.rules.within(world.robot))
    guardrails = world.guardrails(request.rules, robot.kinematics)
    limits = ShieldLimits(late_s, **request.bounds)
    return request, Shield(robot.kinematics, robot.action_spec, guardrails, limits), guardrails


def refuse_rules(given: bool) -> None:
    """Where nothing is certified no rule is kept.

    Raises:
        BadInputError: one is given.
    """
    if given:
        raise BadInputError(
            "--uncertified: no rule can be kept without kinematics; expected none of --keep-out, --workspace, "
            "--max-speed, --rules."
        )


def loop_settings(
    rate_hz: float | int,
    image_size: int,
    limits: ShieldLimits,
    reading_age_s: float | None = None,
    robot: RobotShape | None = PUSHER,
    planned_steps: int = 25,
) -> LoopSettings:
    """Rates and times of `wm control`; ``reading_age_s`` as in `LoopSettings`.

    A picture of push-T shows 512 px of the world, 5.3 px in each of its 96 pixels; the arm's at most 1.2 cm. After
    twice that it must have changed; a robot that stands still only seems to move, by twice the stated error of its
    position. Of a robot without a shape nobody knows how it moves in the picture, which is then not watched.

    Args:
        rate_hz: Control steps per second.
        image_size: Side of the picture [px].
        limits: Stated bounds.
        reading_age_s: As in `LoopSettings`.
        robot: What moves in the picture, or None.
        planned_steps: Control steps of a plan.

    Raises:
        BadInputError: a plan is over before the next one is made.
    """
    lead = max(LEAD_STEPS, min(math.ceil(LEAD_S * rate_hz - 1e-9), planned_steps // 2))
    if planned_steps <= lead:
        raise BadInputError(
            f"robot: a plan is {planned_steps} control step(s) long; expected more than the {lead} that pass while the "
            "next one is made."
        )
    travel = None if robot is None else PICTURE_PIXELS * robot.pictured / image_size + 2 * limits.position_error
    return LoopSettings(
        rate_hz,
        lead_steps=lead,
        replan_every=REPLAN_EVERY,
        stale_after_s=max(LoopSettings.stale_after_s, STALE_PERIODS / rate_hz),
        plan_timeout_s=max(LoopSettings.plan_timeout_s, TIMEOUT_LEADS * lead / rate_hz),
        picture_travel=travel,
        reading_age_s=reading_age_s,
    )


def run_info(parts: Drive) -> dict[str, Any]:
    """What a run is made of, as JSON values."""
    request, limits = parts.request, dataclasses.asdict(parts.shield.limits)
    return {
        "robot": request.robot,
        "certified": not request.uncertified,
        "goal": {"path": str(request.goal), "sha256": parts.goal_sha256},
        "model": {"name": request.model, "fingerprint": fingerprint(parts.model)},
        "planner": request.planner,
        "think": request.think,
        "seed": parts.setup.seed,
        "rules": None if request.uncertified else request.rules.as_json(),
        "shield_limits": {"latency": limits["latency"]} if request.uncertified else limits,
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
    assert request.model is not None
    model, world = make_model(request.model, env_name), find_world(env_name)
    env = world.make_env(model.spec.encoder.image_size)
    start = find_start(env, world.name, request.goal, request.start, request.seed)
    if request.until_reached and start.goal_state is None:
        raise BadInputError("until-reached: the goal's state is not known; give --start with the file of `wm goal`.")
    late_s = (request.latency_ms or 0.0) / 1000
    rest = world.rest_action() if request.uncertified else None
    rig = simulated_rig(env, start.state, start.goal_state, late_s, rest)
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


def _require_clear(rig: Rig, shield: Certifier, guardrails: Sequence[Guardrail], reset: bool) -> None:
    """Connect, and refuse a robot that somebody else has stopped, or that stands where it may not."""
    try:
        rig.robot.connect()
        if isinstance(rig.robot, HasLatch):
            _release(rig.robot, reset)
        if shield.kinematics is None:
            return
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
