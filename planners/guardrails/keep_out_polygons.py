"""The robot's disc stays out of forbidden convex polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails.base import PlaceGuardrail, least, non_negative, pairs

_STRAIGHT = 1e-6
"""Sine of a turn below which a vertex counts as lying on the line through its neighbours (float32's rounding)."""


class KeepOutPolygons(PlaceGuardrail):
    """``margin = min_m (sd_m(p) - robot_radius) >= 0``, m over the forbidden convex polygons.

    ``sd_m`` is the signed distance to polygon m: outside, the distance to its nearest edge, ``min_e |p - q_e|`` with
    ``q_e`` the point of edge e nearest to p; inside, ``max_e n_e . (p - a_e)``, a_e on edge e and n_e its outward unit
    normal, which is minus the distance to the nearest edge. A shape that is not convex is given as several that are.

    Args:
        polygons: M >= 1 polygons, each ``(V, 2)`` vertices x, y in order, either way round [length unit of the path,
            e.g. px], V >= 3.
        robot_radius: Radius of the robot's disc [same], >= 0; push-T's pusher has 15 px.
        unit: Name of the length unit.
        name: Key of the margins.

    Attributes:
        polygons: The M polygons, each ``(V, 2)``, counter-clockwise (x right, y up).

    Raises:
        BadInputError: a number is not finite, the radius is negative, or a polygon has fewer than three corners, a
            repeated or superfluous vertex or no area, is not convex, or crosses itself.
    """

    def __init__(
        self,
        polygons: Sequence[object],
        robot_radius: float | int = 15.0,
        unit: str = "px",
        name: str = "keep_out_polygons",
    ) -> None:
        self.name, self.unit = name, unit
        self.robot_radius = non_negative(robot_radius, f"guardrail '{name}': robot_radius")
        self.polygons = [_convex(each, f"guardrail '{name}': polygon {m}") for m, each in enumerate(polygons)]
        if not self.polygons:
            raise BadInputError(f"guardrail '{name}': expected at least one polygon, came none.")
        self._edges = [_edges(polygon) for polygon in self.polygons]

    def margin_at(self, place: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
        """Distance of the robot's disc to the nearest forbidden polygon; negative inside."""
        x, y = place[..., 0], place[..., 1]
        return least([_signed_distance(x, y, edges) - self.robot_radius for edges in self._edges])


def _signed_distance(x: Tensor, y: Tensor, edges: list[tuple[float, ...]]) -> Tensor:
    """Of points to a polygon: >= 0 outside."""
    within, squared = [], []
    for ax, ay, ux, uy, length in edges:
        dx, dy = x - ax, y - ay
        along = dx * ux + dy * uy
        across = dx * uy - dy * ux  # > 0 is outside of this edge
        beyond = along - along.clamp(0.0, length)  # 0 beside the edge
        within.append(across)
        squared.append(across * across + beyond * beyond)
    outside, inside = least(squared).sqrt(), torch.stack(within).amax(0)
    return torch.where(inside <= 0, inside, outside)


def _edges(polygon: Tensor) -> list[tuple[float, ...]]:
    """Start x, y, unit direction x, y and length of every edge."""
    start = polygon.double()
    step = start.roll(-1, 0) - start
    length = torch.linalg.vector_norm(step, dim=1, keepdim=True)
    return [tuple(row) for row in torch.cat([start, step / length, length], dim=1).tolist()]


def _convex(vertices: object, what: str) -> Tensor:
    """Vertices ``(V, 2)``, counter-clockwise.

    Raises:
        BadInputError: see `KeepOutPolygons`.
    """
    polygon = pairs(vertices, what)
    if len(polygon) < 3:
        raise BadInputError(f"{what} must have at least three corners, came {polygon.tolist()}.")
    after = (polygon.roll(-1, 0) - polygon).double()  # (V, 2) edge that leaves each vertex
    before = after.roll(1, 0)
    lengths = torch.linalg.vector_norm(after, dim=1)
    if not bool((lengths > 0).all()):
        raise BadInputError(f"{what}: vertex {_first(lengths == 0)} is repeated, came {polygon.tolist()}.")
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    straight = cross.abs() <= _STRAIGHT * lengths * lengths.roll(1)
    if bool(straight.any()):
        raise BadInputError(
            f"{what}: vertex {_first(straight)} lies on the line through its neighbours; a corner is needed, "
            f"came {polygon.tolist()}."
        )
    left = cross > 0
    if bool(left.any()) and not bool(left.all()):
        minority = left if int(left.sum()) * 2 <= len(left) else ~left
        raise BadInputError(
            f"{what} must be convex and must not cross itself, but turns the other way at vertex {_first(minority)}; "
            f"split it into convex parts, came {polygon.tolist()}."
        )
    turned = float(torch.atan2(cross, (before * after).sum(1)).sum())
    if abs(abs(turned) - 2 * math.pi) > 1e-3:
        raise BadInputError(f"{what} crosses itself: it turns {round(math.degrees(abs(turned)))} degrees, not 360.")
    return polygon if turned > 0 else polygon.flip(0)


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0, 0])
