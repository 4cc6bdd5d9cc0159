"""What has to be said about a foreign environment before it can be logged, learned and planned in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wm.envs import ENV_IDS
from wm.envs.foreign.fields import FUNCTION, NUMBER, TABLE, TEXT, TEXTS, WHOLE, WHOLES, Kind, check_fields
from wm.envs.foreign.own_code import one_line, own_code
from wm.errors import BadInputError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SET_HERE = ("id", "render_mode", "max_episode_steps", "disable_env_checker")  # by `make_foreign`


@dataclass(frozen=True)
class Proprio:
    """What the robot itself may feel.

    Attributes:
        keys: Sources of its numbers, e.g. ``("observation[0:4]",)``; see `wm.envs.foreign.sources`.
        names: One name per number; empty: made from the keys.

    Raises:
        BadInputError: a value of a wrong type.
    """

    KINDS: ClassVar[Mapping[str, Kind]] = {"keys": TEXTS, "names": TEXTS}

    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "proprio.")


@dataclass(frozen=True)
class Goal:
    """When a goal is reached: ‖now - goal‖ < tolerance, the angles' differences wrapped to [-π, π].

    Attributes:
        of: Sources of the numbers that are compared, e.g. ``("achieved_goal",)``.
        tolerance: Euclidean distance below which the goal is reached, > 0, in the numbers' unit.
        angles: Indices of those numbers that are angles, rad.

    Raises:
        BadInputError: a value of a wrong type or out of range.
    """

    KINDS: ClassVar[Mapping[str, Kind]] = {"of": TEXTS, "tolerance": NUMBER, "angles": WHOLES}

    of: tuple[str, ...]
    tolerance: float
    angles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "goal.")
        if not self.of:
            raise BadInputError('goal.of: expected at least one source of numbers, e.g. "achieved_goal", came none.')
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise BadInputError(f"goal.tolerance: expected a number > 0, came {self.tolerance}.")

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        """Euclidean distance between two ``(G,)`` arrays of the compared numbers."""
        difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
        angles = list(self.angles)
        difference[angles] = np.arctan2(np.sin(difference[angles]), np.cos(difference[angles]))
        return float(np.linalg.norm(difference))


@dataclass(frozen=True)
class ForeignWorld:
    """The declaration of a foreign environment; everything but `id` may be left out.

    Attributes:
        id: Gymnasium's id, with the module that registers it where there is one: ``"module:Id"``.
        name: Short name that datasets and models carry; by default made from the id.
        frameskip: Control steps per latent step, >= 1.
        repeat: The environment's own steps per control step, with one action, >= 1.
        control_hz: Control steps per second; by default ``metadata["render_fps"]``, or 10, divided by `repeat`.
        kwargs: Handed to `gymnasium.make`; not `render_mode` and what else is set here.
        proprio: What the robot feels; by default nothing.
        goal: When a goal is reached; without it there is no success test.
        hide: MuJoCo only: geoms and sites that are not drawn, by name, e.g. the marker of the environment's own goal.
        camera: MuJoCo only: `mjvCamera`'s fields, e.g. ``{"distance": 4.0, "elevation": -90.0}``, or the ``name`` of
            one of the model's cameras; by default the environment's own view.
        get_state: ``get_state(env) -> (R,)``: all that the bare environment's future and picture depend on.
        set_state: ``set_state(env, state)``: its inverse.
        is_success: ``is_success(now, goal) -> bool`` of two ``(G,)`` arrays of the goal's numbers, instead of the
            tolerance.
        source: Declaration file that it came from; filled in by `load_world`.

    Raises:
        BadInputError: a value of a wrong type or out of range, or one of `get_state` and `set_state` alone.
    """

    KINDS: ClassVar[Mapping[str, Kind]] = {
        "id": TEXT,
        "name": TEXT,
        "frameskip": WHOLE,
        "repeat": WHOLE,
        "control_hz": NUMBER,
        "kwargs": TABLE,
        "proprio": Proprio,
        "goal": Goal,
        "hide": TEXTS,
        "camera": TABLE,
        "get_state": FUNCTION,
        "set_state": FUNCTION,
        "is_success": FUNCTION,
    }

    id: str
    name: str = ""
    frameskip: int = 5
    repeat: int = 1
    control_hz: float | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    proprio: Proprio = field(default_factory=Proprio)
    goal: Goal | None = None
    hide: tuple[str, ...] = ()
    camera: Mapping[str, Any] = field(default_factory=dict)
    get_state: Callable[[Any], Any] | None = None
    set_state: Callable[[Any, np.ndarray], object] | None = None
    is_success: Callable[[np.ndarray, np.ndarray], Any] | None = None
    source: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.name:
            object.__setattr__(self, "name", default_name(self.id))
        if not _NAME.fullmatch(self.name):
            raise BadInputError(f"name: expected small letters, digits, '-' and '_', came '{self.name}'.")
        if self.name in ENV_IDS:
            raise BadInputError(f"name: '{self.name}' is a world of ours; expected another one.")
        for what, count in (("frameskip", self.frameskip), ("repeat", self.repeat)):
            if count < 1:
                raise BadInputError(f"{what}: expected a whole number >= 1, came {count}.")
        if self.control_hz is not None and not (math.isfinite(self.control_hz) and self.control_hz > 0):
            raise BadInputError(f"control_hz: expected a number > 0, came {self.control_hz}.")
        for name in _SET_HERE:
            if name in self.kwargs:
                raise BadInputError(f"kwargs.{name}: it is set here; expected other names than {', '.join(_SET_HERE)}.")
        if (self.get_state is None) != (self.set_state is None):
            raise BadInputError("get_state, set_state: expected both or neither, came one.")
        if self.is_success is not None and self.goal is None:
            raise BadInputError("is_success: expected a goal with the numbers that it compares, came none.")

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process reads a declaration file again: its functions could not travel."""
        if self.source.endswith(".py"):
            from wm.envs.foreign.load import load_world

            return load_world, (self.source,)
        return super().__reduce__()  # type: ignore[return-value]

    def at(self, field_name: str) -> str:
        """How messages call a field: ``"FILE: FIELD"``, or with the id where there is no file."""
        path, here = Path(self.source), Path.cwd()
        where = path.relative_to(here) if path.is_relative_to(here) else path
        return f"{where if self.source else self.id}: {field_name}"

    def reached(self, now: np.ndarray, goal: np.ndarray) -> bool:
        """Whether the goal's numbers ``(G,)`` are close enough to those of now.

        Raises:
            BadInputError: `is_success` raised, or gave something else than True or False.
        """
        assert self.goal is not None
        if self.is_success is None:
            return self.goal.distance(now, goal) < self.goal.tolerance
        what = self.at("is_success")
        with own_code(what):
            success = self.is_success(now.copy(), goal.copy())
            answer = np.asarray(success)
        if answer.dtype != bool or answer.size != 1:
            raise BadInputError(f"{what}: expected True or False, came {one_line(repr(success))}.")
        return bool(answer.item())


def default_name(env_id: str) -> str:
    """A short name out of an id: ``"gymnasium_robotics:PointMaze_UMaze-v3"`` gives ``"pointmaze_umaze"``."""
    bare = re.sub(r"-v\d+$", "", re.split(r"[:/]", env_id)[-1])
    return re.sub(r"[^a-z0-9_-]+", "-", bare.lower()).strip("-_")
