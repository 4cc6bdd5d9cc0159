"""Robots by name: ``sim:WORLD`` in this process, ``tcp:HOST:PORT`` behind a bridge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from wm.envs.bridge import BridgeRobot, BridgeStopper
from wm.envs.gym_robot import GymRobot, Impairments
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.worlds import WORLDS, find_world
from wm.experiments.worlds.base import World
from wm.robot import Robot, RobotObservation
from wm.specs import EnvSpec

LEAD_STEPS = 2
"""Control steps that a plan has time while the one before is executed, at 10 Hz and below."""


def world_of(env: str) -> World:
    """The world whose robot a model of ``env`` drives; push-T's is taken for that of an environment of one's own.

    A model's file is no place to name a module to import: only our own worlds are looked up.
    """
    return find_world(env if env in WORLDS else "pusht")


def known_robots(uncertified: bool = True) -> list[str]:
    """What a robot may be called; those alone whose actions can be certified, where others will not do."""
    names = [name for name in (*WORLDS, "arm") if uncertified or find_world(name).drivable]
    return [*(f"sim:{name}" for name in names), "tcp:HOST:PORT"]


class SimulatedRobot(GymRobot):
    """An environment as a robot, stepped; it also tells what only a simulator knows, for logs and reports alone.

    Args:
        env: With the state in its ``info["state"]``, and ``info["is_success"]`` where it was given a goal.
        options: As `GymRobot`.

    Attributes:
        reached: The environment's success test has passed at some control step since `connect`.
    """

    def __init__(self, env: Any, **options: Any) -> None:
        super().__init__(env, **options)
        self.reached = False
        self._read: tuple[int, np.ndarray] | None = None

    def connect(self) -> None:
        """As `GymRobot.connect`."""
        super().connect()
        self.reached = False

    def get_observation(self) -> RobotObservation:
        """As `GymRobot.get_observation`."""
        observation = super().get_observation()
        if self._read is None or self._read[0] != observation.sequence:
            self._read = observation.sequence, np.array(self.info["state"], np.float64)
        return observation

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """As `GymRobot.send_action`."""
        sent = super().send_action(action)
        self.reached = self.reached or bool(self.info.get("is_success", False))
        return sent

    def state_at(self, observation: RobotObservation) -> np.ndarray | None:
        """``(S,)`` the true state when the newest reading was taken; None for an older one."""
        return self._read[1] if self._read is not None and self._read[0] == observation.sequence else None


@dataclass(frozen=True)
class RobotName:
    """A robot's name, taken apart.

    Attributes:
        env: World of a simulated robot: the name of one of ours, or what names a foreign one; or None.
        address: Host and port of a robot behind a bridge, or None.
    """

    env: str | None = None
    address: tuple[str, int] | None = None

    @classmethod
    def parse(cls, text: str, uncertified: bool = False) -> RobotName:
        """``sim:ENV`` or ``tcp:HOST:PORT``.

        Args:
            text: The name.
            uncertified: Of a world that declares no kinematics, and of no other one.

        Raises:
            UnknownNameError: neither, or no such environment.
            BadInputError: no port, a host that none can be called, an environment that cannot be used, one without
                kinematics that is not ``uncertified``, or any other robot that is.
        """
        kind, _, rest = text.partition(":")
        if kind == "tcp":
            name, _, port = rest.rpartition(":")
            host = name.strip("[]")
            if not _is_host(host) or not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65536:
                raise BadInputError(f"robot {text!r}: expected tcp:HOST:PORT, e.g. tcp:127.0.0.1:5555.")
            if uncertified:
                raise BadInputError(f"--uncertified: expected a simulated robot (sim:…), came '{text}'.")
            return cls(address=(host, int(port)))
        if kind != "sim":
            raise UnknownNameError("robot", text, known_robots())
        try:
            world = find_world(rest)
        except UnknownNameError:
            raise UnknownNameError("robot", text, known_robots()) from None
        if uncertified and world.drivable:
            raise BadInputError(
                f"--uncertified: robot '{text}' declares its kinematics, so its actions are certified; leave it out."
            )
        if not world.drivable and world.planning.horizon * world.frameskip <= LEAD_STEPS:
            raise BadInputError(
                f"robot '{text}': plans of '{rest}' are {world.planning.horizon * world.frameskip} control step long; "
                f"expected more than the {LEAD_STEPS} that pass while the next one is made."
            )
        if not uncertified and not world.drivable:
            raise BadInputError(
                f"robot '{text}': '{rest}' declares no kinematics, so no action can be certified; expected one of "
                f"{', '.join(known_robots(False))} (--uncertified drives a simulation inside its actions' bounds "
                "alone)."
            )
        return cls(env=world.name if world.name in WORLDS else rest)


@dataclass(frozen=True)
class Rig:
    """A robot and what belongs to it.

    Attributes:
        robot: Not connected yet.
        make_stopper: For a supervisor in another process; None where the robot ends with this process.
        reading_age_s: How old a reading may be when an action is certified with it, where nothing else is asked for
            [s].
        action_delay_s: Longest time from certifying an action until it begins to act, on its way and in the robot [s].
    """

    robot: Robot
    make_stopper: Callable[[], Callable[[], None]] | None
    reading_age_s: float
    action_delay_s: float

    @property
    def late_s(self) -> float:
        """Longest time from a reading until an action acts, where nothing else is asked for: the sum of both [s]."""
        return self.reading_age_s + self.action_delay_s

    def reading_age_within(self, latency_s: float) -> float:
        """How old a reading may be [s], so that with the action's delay it makes no more than a stated latency [s].

        Raises:
            BadInputError: the action's delay alone is more.
        """
        left = latency_s - self.action_delay_s
        if left < -1e-9:
            raise BadInputError(
                f"latency: expected at least {1000 * self.action_delay_s:g} ms, in which an action begins to act, "
                f"came {1000 * latency_s:g} ms."
            )
        return max(0.0, left)

    @property
    def simulated(self) -> SimulatedRobot | None:
        """The robot if it is a simulated one."""
        return self.robot if isinstance(self.robot, SimulatedRobot) else None


def simulated_rig(
    env: Any,
    state: np.ndarray,
    goal_state: np.ndarray | None,
    late_s: float = 0.0,
    rest: np.ndarray | None = None,
) -> Rig:
    """A stepped simulation; its actions act late by so many whole control steps.

    One with kinematics starts at rest, and brakes to rest. Of any other one nobody knows whether it ever rests: it
    starts in the state as it is, and a stop is one control step of the rest action, after which it stands still until
    it is stepped again.

    Args:
        env: The environment.
        state: ``(S,)`` the start.
        goal_state: For its success test, or None.
        late_s: Time until an action acts [s].
        rest: ``(W,)`` the rest action; for an environment without kinematics.
    """
    impairments = Impairments(action_delay_steps=math.ceil(late_s * env.env_spec.action.control_hz - 1e-9))
    if rest is None:
        options = {"state": at_rest(state, env.env_spec), "goal_state": goal_state}
        return Rig(SimulatedRobot(env, impairments=impairments, reset_options=options), None, 0.0, late_s)
    robot = SimulatedRobot(
        env,
        impairments=impairments,
        reset_options={"state": state, "goal_state": goal_state},
        stay_action=lambda _: rest,
        stop_steps=1,
    )
    return Rig(robot, None, 0.0, late_s)


def at_rest(state: np.ndarray, spec: EnvSpec) -> np.ndarray:
    """The same state without the robot's velocity: a robot stands still when its loop begins."""
    moving = [name.endswith(("_vx", "_vy")) for name in spec.state_names]
    return np.where(moving[: len(state)], 0.0, state[: len(moving)])


def bridged_rig(host: str, port: int) -> Rig:
    """A robot behind a bridge, late by two control periods at most.

    A reading may be one period old when an action is certified with it, and the action acts up to one period later: it
    is assumed that the robot takes it up at its own next control step, the way there included.

    Raises:
        RobotError: nobody answers, or not with a robot.
    """
    robot = BridgeRobot.at(host, port)
    period = 1.0 / robot.action_spec.control_hz
    return Rig(robot, partial(BridgeStopper, host, port), reading_age_s=period, action_delay_s=period)


def _is_host(text: str) -> bool:
    """Some computer may be called so."""
    try:
        return bool(text.encode("idna"))
    except UnicodeError:
        return False


def logged_spec(rig: Rig, env: EnvSpec) -> EnvSpec:
    """What a log of the robot holds: the model's world, and true states only where a simulator tells them."""
    names = env.state_names if rig.simulated is not None else ()
    return EnvSpec(env.env, rig.robot.action_spec, rig.robot.observation_spec.proprio, names)
