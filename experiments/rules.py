"""What the robot has to keep, as plain numbers: from the command line's options and from a rules file."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm.errors import BadInputError, UnknownNameError
from wm.kinematics import PointKinematics
from wm.planners.guardrails import (
    AccelerationLimit,
    Guardrail,
    JerkLimit,
    KeepOutBoxes,
    KeepOutDiscs,
    KeepOutPolygons,
    PathGuardrail,
    SpeedLimit,
    WorkspaceBox,
)

Disc = tuple[float, float, float]
Box = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]

ARENA: Box = (0.0, 0.0, 512.0, 512.0)
"""What the camera of push-T sees: x low, y low, x high, y high [px]."""


@dataclass(frozen=True)
class RobotShape:
    """What rules, messages and the watch over the camera have to know of a robot that moves in a plane.

    Attributes:
        radius: Of its disc [unit].
        unit: Of every length.
        arena: x low, y low, x high, y high that the whole disc stays in where no workspace is given [unit].
        pictured: Longest way in the plane from one side of the picture to the other [unit].
        walled: Its motion is cut off where the disc would leave the arena, which its kinematics do not say. No
            certified path may get there, so no workspace may be wider.
        digits: Decimals of a length in what people read.
    """

    radius: float
    unit: str
    arena: Box
    pictured: float
    walled: bool = False
    digits: int = 1


PUSHER = RobotShape(15.0, "px", ARENA, pictured=ARENA[2] - ARENA[0])
"""Push-T's."""


@dataclass(frozen=True)
class Rules:
    """Hard rules for a robot's disc, in its unit of length (push-T's px, the arm's m) and seconds.

    A workspace is always among them: outside of the picture the model has seen nothing, and the robot must stay in it.

    Attributes:
        keep_out: Forbidden discs x, y, radius.
        keep_out_boxes: Forbidden boxes x low, y low, x high, y high.
        keep_out_polygons: Forbidden convex polygons, corners x, y in order.
        workspace: x low, y low, x high, y high that the whole disc stays in; `ARENA`: the robot's own arena.
        max_speed: Length unit per second; None is no limit, as below.
        max_acceleration: Length unit per s^2.
        max_jerk: Length unit per s^3.
    """

    keep_out: tuple[Disc, ...] = ()
    keep_out_boxes: tuple[Box, ...] = ()
    keep_out_polygons: tuple[Polygon, ...] = ()
    workspace: Box = ARENA
    max_speed: float | int | None = None
    max_acceleration: float | int | None = None
    max_jerk: float | int | None = None

    def within(self, robot: RobotShape) -> Rules:
        """These rules for a robot: its arena is the workspace where none is given.

        Raises:
            BadInputError: a disc further from the robot's arena than that is wide, which guards nothing and most likely
                is in another unit; a workspace that reaches beyond the walls where the robot's motion is cut off.
        """
        low, high = robot.arena[:2], robot.arena[2:]
        for x, y, radius in self.keep_out:
            beyond = [max(a - v, v - b, 0.0) for v, a, b in zip((x, y), low, high, strict=True)]
            if radius >= 0 and math.hypot(*beyond) - radius > math.dist(low, high):
                raise BadInputError(
                    f"keep-out: expected a disc in or near the robot's arena {list(robot.arena)} {robot.unit}, "
                    f"came {[x, y, radius]} {robot.unit}."
                )
        if self.workspace == ARENA:
            return dataclasses.replace(self, workspace=robot.arena)
        (x0, y0, x1, y1), (low_x, low_y, high_x, high_y) = self.workspace, robot.arena
        if robot.walled and not (low_x <= x0 and low_y <= y0 and x1 <= high_x and y1 <= high_y):
            raise BadInputError(
                f"workspace: expected inside of {list(robot.arena)} {robot.unit}, at whose walls the robot's motion is "
                f"cut off, came {list(self.workspace)}."
            )
        return self

    def guardrails(self, kinematics: PointKinematics | None = None, robot: RobotShape = PUSHER) -> list[Guardrail]:
        """The rules as margins.

        Args:
            kinematics: The robot's motion, without which acceleration and jerk cannot be known.
            robot: Whose disc keeps them.

        Raises:
            BadInputError: as `within`, a number that a guardrail refuses, or a limit of acceleration or jerk without
                kinematics.
        """
        radius, unit, workspace = robot.radius, robot.unit, self.within(robot).workspace
        rules: list[Guardrail] = []
        if self.keep_out:
            rules.append(KeepOutDiscs([d[:2] for d in self.keep_out], [d[2] for d in self.keep_out], radius, unit))
        if self.keep_out_boxes:
            lows, highs = [box[:2] for box in self.keep_out_boxes], [box[2:] for box in self.keep_out_boxes]
            rules.append(KeepOutBoxes(lows, highs, radius, unit))
        if self.keep_out_polygons:
            rules.append(KeepOutPolygons(self.keep_out_polygons, radius, unit))
        rules.append(WorkspaceBox(workspace[:2], workspace[2:], radius, unit))
        if self.max_speed is not None:
            rules.append(SpeedLimit(self.max_speed, f"{unit}/s"))
        motion = ((self.max_acceleration, AccelerationLimit, "s^2"), (self.max_jerk, JerkLimit, "s^3"))
        for limit, kind, per in motion:
            if limit is None:
                continue
            if kinematics is None:
                raise BadInputError("rules: a limit of acceleration or jerk needs a robot with declared kinematics.")
            rules.append(kind(limit, kinematics, f"{unit}/{per}"))
        return rules

    def as_json(self) -> dict[str, Any]:
        """The numbers, for a record of what was kept."""
        return {name: value if value is None else _plain(value) for name, value in vars(self).items()}

    def joined(self, keep_out: Sequence[Disc], workspace: Box | None, max_speed: float | int | None) -> Rules:
        """These rules and those of the options beside them.

        Raises:
            BadInputError: workspace or speed limit are given by both.
        """
        for name, option, own, unset in (
            ("workspace", workspace, self.workspace, ARENA),
            ("max-speed", max_speed, self.max_speed, None),
        ):
            if option is not None and own != unset:
                raise BadInputError(f"--{name}: the rules file gives one too; expected one of them.")
        return dataclasses.replace(
            self,
            keep_out=(*self.keep_out, *keep_out),
            workspace=self.workspace if workspace is None else workspace,
            max_speed=self.max_speed if max_speed is None else max_speed,
        )


def on_states(rules: Sequence[Guardrail]) -> list[PathGuardrail]:
    """Those that can be read off a single state of the robot; acceleration and jerk take several."""
    return [rule for rule in rules if isinstance(rule, PathGuardrail)]


@dataclass(frozen=True)
class RulesFile:
    """What a rules file says.

    Attributes:
        rules: Hard rules.
        bounds: Stated errors and disturbances for the shield, by their names in `ShieldLimits`.
    """

    rules: Rules
    bounds: dict[str, float]


def read_rules(path: Path) -> RulesFile:
    """Read a rules file: TOML, the attributes of `Rules` as keys, and a table ``[bounds]`` for the shield.

    Raises:
        BadInputError: unreadable, not TOML, an unknown key, or a value of another form than its key's.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # no UTF-8, no TOML, or a number with more digits than Python reads
        raise BadInputError(f"rules file '{path}': {getattr(error, 'strerror', None) or error}.") from error
    bounds = content.pop("bounds", {})
    if not isinstance(bounds, dict):
        raise BadInputError(f"rules file '{path}': expected a table [bounds], came {bounds!r}.")
    rules = {key: _value(path, key, value, _FORMS) for key, value in content.items()}
    limits = {key: _value(path, key, value, _BOUNDS) for key, value in bounds.items()}
    return RulesFile(Rules(**rules), limits)


def _value(path: Path, key: str, value: Any, forms: dict[str, tuple[Callable[[Any], Any], str]]) -> Any:
    if key not in forms:
        raise UnknownNameError(f"key in the rules file '{path}'", key, forms)
    form, expected = forms[key]
    try:
        return form(value)
    except (TypeError, ValueError, OverflowError):
        raise BadInputError(f"rules file '{path}': {key}: expected {expected}, came {value!r}.") from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _bound(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError
    return number


def _tuple_of(count: int) -> Callable[[Any], tuple[float, ...]]:
    def form(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise ValueError
        return tuple(_number(each) for each in value)

    return form


def _list_of(form: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def forms(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError
        return tuple(form(each) for each in value)

    return forms


_FORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "keep_out": (_list_of(_tuple_of(3)), "a list of [x, y, radius]"),
    "keep_out_boxes": (_list_of(_tuple_of(4)), "a list of [x low, y low, x high, y high]"),
    "keep_out_polygons": (_list_of(_list_of(_tuple_of(2))), "a list of polygons [[x, y], …]"),
    "workspace": (_tuple_of(4), "[x low, y low, x high, y high]"),
    **dict.fromkeys(("max_speed", "max_acceleration", "max_jerk"), (_bound, "a number >= 0")),
}
_BOUNDS: dict[str, tuple[Callable[[Any], Any], str]] = dict.fromkeys(
    ("position_error", "velocity_error", "disturbance", "velocity_disturbance"), (_bound, "a number >= 0")
)
"""The bounds of `ShieldLimits` that a rules file gives, in their units."""


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
