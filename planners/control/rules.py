"""The guardrails' inequalities in numpy float64, on all instants at once, and their inner linearisations.

Margins here are those of `wm.planners.guardrails`, made safe between two instants as well. A guardrail without a form
here is refused when the shield is built; none is ever left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners.guardrails.acceleration import AccelerationLimit
from wm.planners.guardrails.base import Guardrail
from wm.planners.guardrails.jerk import JerkLimit
from wm.planners.guardrails.keep_out import KeepOutDiscs
from wm.planners.guardrails.keep_out_boxes import KeepOutBoxes
from wm.planners.guardrails.keep_out_polygons import KeepOutPolygons
from wm.planners.guardrails.motion import MotionGuardrail
from wm.planners.guardrails.speed import SpeedLimit
from wm.planners.guardrails.workspace import WorkspaceBox


@dataclass(frozen=True)
class Moves:
    """Positions at R instants, each with the simulation step that leads to it (R - 1 of them, row 0 being now).

    Attributes:
        place: ``(R, 2)``.
        before: ``(R - 1,)`` the row that the step of row 1, 2, … starts from.
        length: ``(R - 1,)`` of each step's chord.
        bulge: ``(R - 1,)`` how far the motion may leave the chord.
    """

    place: np.ndarray
    before: np.ndarray
    length: np.ndarray
    bulge: np.ndarray


class PlaceRule(ABC):
    """A rule on the position: M convex things that the robot's centre stays off, each 1-Lipschitz in the position."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def margins(self, moves: Moves) -> np.ndarray:
        """``(R - 1, M)`` lower bounds of the margin during each simulation step."""

    @abstractmethod
    def tangents(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half-planes that touch each thing where it is nearest: they lie inside what the rule allows.

        Args:
            place: ``(R, 2)``.

        Returns:
            ``(R, M, 2)`` unit normals, away from each thing; ``(R, M)`` distance to a convex core of the thing
            (infinite for a wall): the normal at a point that lies up to r away differs by at most asin(r / distance),
            because a point minus its projection on a convex set is a nonexpansive function of the point.
        """


class Walls(PlaceRule):
    """``low <= p <= high``: four half-planes. Convex, so a chord is inside when its ends are."""

    _NORMALS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])

    def __init__(self, name: str, low: np.ndarray, high: np.ndarray) -> None:
        super().__init__(name)
        self._offset = np.concatenate([low, -high])

    def margins(self, moves: Moves) -> np.ndarray:
        """See `PlaceRule`."""
        level = np.concatenate([moves.place, -moves.place], axis=1)
        return np.minimum(level[1:], level[moves.before]) - self._offset - moves.bulge[:, None]

    def tangents(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PlaceRule`."""
        return np.broadcast_to(self._NORMALS, (len(place), 4, 2)), np.full((len(place), 4), np.inf)


class Discs(PlaceRule):
    """``|p - c_m| >= reach_m``. A chord of length l whose ends are d away stays sqrt(d^2 - l^2 / 4) away."""

    def __init__(self, name: str, centers: np.ndarray, reach: np.ndarray) -> None:
        super().__init__(name)
        self._centers, self._reach = centers, reach

    def margins(self, moves: Moves) -> np.ndarray:
        """See `PlaceRule`."""
        apart = moves.place[:, None] - self._centers
        squared = np.einsum("rmx,rmx->rm", apart, apart)
        chord = np.minimum(squared[1:], squared[moves.before]) - (0.25 * moves.length**2)[:, None]
        return np.sqrt(np.maximum(chord, 0.0)) - self._reach - moves.bulge[:, None]

    def tangents(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PlaceRule`; the core is the centre."""
        apart = place[:, None] - self._centers
        distance = np.sqrt(np.einsum("rmx,rmx->rm", apart, apart))
        return apart / np.maximum(distance, 1e-12)[..., None], distance


class Polygons(PlaceRule):
    """``sd_m(p) >= radius``, signed distance to convex polygons.

    Being 1-Lipschitz, the margin on a chord of length l between margins a and b is at least (a + b - l) / 2.
    """

    def __init__(self, name: str, polygons: Sequence[np.ndarray], radius: float) -> None:
        super().__init__(name)
        most = max(len(polygon) for polygon in polygons)
        # All get the same number of edges: the last one repeated changes neither a minimum nor a maximum over edges.
        edges = [np.stack([p, np.roll(p, -1, 0)], 1)[np.minimum(np.arange(most), len(p) - 1)] for p in polygons]
        start, end = np.moveaxis(np.array(edges), 2, 0)  # (M, E, 2)
        self._start, self._length = start, np.linalg.norm(end - start, axis=-1)
        self._along = (end - start) / self._length[..., None]
        self._outward = np.stack([self._along[..., 1], -self._along[..., 0]], -1)  # vertices are counter-clockwise
        self._radius = radius

    def _measure(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Signed distance ``(R, M)``; across each edge ``(R, M, E)``; from its nearest point ``(R, M, E, 2)``."""
        apart = place[:, None, None] - self._start
        along = np.einsum("rmex,mex->rme", apart, self._along)
        across = np.einsum("rmex,mex->rme", apart, self._outward)
        reached = np.minimum(np.maximum(along, 0.0), self._length)
        away = apart - reached[..., None] * self._along
        outside = np.sqrt(np.einsum("rmex,rmex->rme", away, away).min(-1))
        inside = across.max(-1)
        return np.where(inside <= 0, inside, outside), across, away

    def margins(self, moves: Moves) -> np.ndarray:
        """See `PlaceRule`."""
        distance = self._measure(moves.place)[0]
        chord = 0.5 * (distance[1:] + distance[moves.before] - moves.length[:, None])
        return chord - self._radius - moves.bulge[:, None]

    def tangents(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PlaceRule`; the core is the bare polygon."""
        distance, across, away = self._measure(place)
        nearest = np.einsum("rmex,rmex->rme", away, away).argmin(-1)
        outward = np.take_along_axis(away, nearest[..., None, None], 2)[:, :, 0]
        outward = outward / np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-12)
        facing = self._outward[np.arange(across.shape[1]), across.argmax(-1)]
        return np.where((distance > 1e-9)[..., None], outward, facing), distance


@dataclass(frozen=True)
class NormRule:
    """``limit - |signal| >= 0`` on the velocity, acceleration or jerk.

    Attributes:
        name: Of the guardrail.
        signal: Key of `Response.signals`.
        limit: Largest Euclidean norm.
    """

    name: str
    signal: str
    limit: float


ShieldRule = PlaceRule | NormRule


def compile_rule(rule: Guardrail, robot: PointKinematics) -> ShieldRule:
    """The numpy form of a guardrail.

    Raises:
        BadInputError: there is none: it rests on something learned, is not known here, or limits another robot.
    """
    made = _FORMS.get(type(rule))
    if made is None:
        known = ", ".join(sorted(form.__name__ for form in _FORMS))
        raise BadInputError(
            f"the shield cannot certify guardrail '{getattr(rule, 'name', rule)}' of type {type(rule).__name__}. "
            f"It certifies: {known}."
        )
    if isinstance(rule, MotionGuardrail) and rule.kinematics != robot:
        raise BadInputError(
            f"guardrail '{rule.name}' was made for other kinematics: expected {robot}, came {rule.kinematics}."
        )
    return made(rule)


def _array(values: Tensor) -> np.ndarray:
    return values.double().numpy()


def _walls(rule: WorkspaceBox) -> ShieldRule:
    return Walls(rule.name, _array(rule.low) + rule.radius, _array(rule.high) - rule.radius)


def _discs(rule: KeepOutDiscs) -> ShieldRule:
    return Discs(rule.name, _array(rule.centers), _array(rule.radii) + rule.robot_radius)


def _boxes(rule: KeepOutBoxes) -> ShieldRule:
    (x0, y0), (x1, y1) = _array(rule.lows).T, _array(rule.highs).T
    corners = np.stack([np.stack(c, -1) for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], 1)
    return Polygons(rule.name, list(corners), rule.robot_radius)


def _polygons(rule: KeepOutPolygons) -> ShieldRule:
    return Polygons(rule.name, [_array(polygon) for polygon in rule.polygons], rule.robot_radius)


_FORMS: dict[type, Callable[..., ShieldRule]] = {
    WorkspaceBox: _walls,
    KeepOutDiscs: _discs,
    KeepOutBoxes: _boxes,
    KeepOutPolygons: _polygons,
    SpeedLimit: lambda rule: NormRule(rule.name, "velocity", rule.max_speed),
    AccelerationLimit: lambda rule: NormRule(rule.name, "acceleration", rule.max_acceleration),
    JerkLimit: lambda rule: NormRule(rule.name, "jerk", rule.max_jerk),
}
