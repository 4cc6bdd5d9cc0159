from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from shapely.geometry import MultiPoint, Point, Polygon

from wm.errors import BadInputError
from wm.planners.guardrails import KeepOutDiscs, KeepOutPolygons

NUMBER = st.floats(-600, 600, width=32)
CORNER = st.tuples(st.integers(0, 512), st.integers(0, 512))
TRIANGLE = [(100, 100), (300, 120), (180, 260)]


def margins(rule: Any, points: np.ndarray) -> np.ndarray:
    path = np.concatenate([points, np.zeros_like(points)], axis=1).astype(np.float32)
    return rule.margin_of(torch.from_numpy(path)).numpy()


def signed_distance(shape: Polygon, point: np.ndarray) -> float:
    place = Point(*point.astype(np.float32).astype(float))
    away = shape.exterior.distance(place)
    return -away if shape.contains(place) else away


@given(st.lists(CORNER, min_size=3, max_size=9), st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=20))
def test_margin_is_the_signed_distance_of_an_independent_geometry(
    corners: list[tuple[int, int]], points: list[tuple[float, float]]
) -> None:
    hull = MultiPoint(corners).convex_hull
    assume(hull.geom_type == "Polygon" and hull.area > 20)
    vertices = list(hull.exterior.coords)[:-1]
    places = np.array(points + [tuple(hull.centroid.coords[0])], np.float32)
    expected = [signed_distance(hull, place) - 15 for place in places]
    for order in (vertices, vertices[::-1]):
        np.testing.assert_allclose(margins(KeepOutPolygons([order]), places), expected, atol=2e-3)


@given(NUMBER, NUMBER)
def test_the_nearest_polygon_counts(x: float, y: float) -> None:
    other = [(-300, -300), (-200, -300), (-200, -100), (-300, -100)]
    both = margins(KeepOutPolygons([TRIANGLE, other], 5), np.array([[x, y]]))
    single = [margins(KeepOutPolygons([each], 5), np.array([[x, y]])) for each in (TRIANGLE, other)]
    assert both == min(single)


@given(NUMBER, NUMBER)
def test_a_polygon_of_many_corners_is_a_disc(x: float, y: float) -> None:
    corners, radius = 96, 80.0
    angle = np.arange(corners) * 2 * math.pi / corners
    polygon = np.stack([250 + radius * np.cos(angle), 260 + radius * np.sin(angle)], 1)
    point = np.array([[x, y]])
    gap = margins(KeepOutPolygons([polygon], 15), point) - margins(KeepOutDiscs([[250, 260]], [radius], 15), point)
    assert -1e-3 <= gap.item() <= radius * (1 - math.cos(math.pi / corners)) + 1e-3  # inscribed: never nearer


@given(st.floats(0, 1), st.sampled_from(range(3)), st.floats(-5, 5))
def test_crossing_an_edge_changes_the_margin_by_the_way_across(along: float, edge: int, way: float) -> None:
    """Rounding included: a place within float32's resolution of the wall is judged to within 1e-4 px."""
    start, end = np.array(TRIANGLE[edge], float), np.array(TRIANGLE[(edge + 1) % 3], float)
    step = end - start
    normal = np.array([step[1], -step[0]]) / np.linalg.norm(step)
    inside = 0.2 + 0.6 * along  # away from the corners
    point = (start + inside * step + way * normal)[None]
    assert margins(KeepOutPolygons([TRIANGLE], 0), point).item() == pytest.approx(way, abs=1e-4)


@given(st.tuples(NUMBER, NUMBER), st.tuples(st.floats(-20, 20), st.floats(-20, 20)))
def test_margin_changes_by_no_more_than_the_place(place: tuple[float, float], step: tuple[float, float]) -> None:
    points = np.array([place, np.add(place, step)])
    first, second = margins(KeepOutPolygons([TRIANGLE]), points)
    assert abs(first - second) <= np.linalg.norm(step) + 1e-3


def test_either_way_round_is_stored_counter_clockwise() -> None:
    one, other = KeepOutPolygons([TRIANGLE], 3), KeepOutPolygons([TRIANGLE[::-1]], 3)
    for rule in (one, other):
        x, y = rule.polygons[0].unbind(1)
        assert (x * y.roll(-1) - y * x.roll(-1)).sum() > 0 and rule.robot_radius == 3 and not rule.soft
    assert sorted(one.polygons[0].tolist()) == sorted(other.polygons[0].tolist())


PENTAGRAM = [(math.cos(a), math.sin(a)) for a in (4 * math.pi * k / 5 for k in range(5))]


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([], "expected at least one polygon, came none"),
        ([[(0, 0), (1, 1)]], "polygon 0 must have at least three corners"),
        ([TRIANGLE, [(0, 0), (9, 0), (9, 0), (0, 9)]], "polygon 1: vertex 1 is repeated"),
        ([[(0, 0), (9, 0), (0, 9), (0, 0)]], "vertex 3 is repeated"),
        ([[(0, 0), (5, 5), (9, 9)]], "vertex 0 lies on the line through its neighbours"),
        ([[(0, 0), (4, 0), (9, 0), (0, 9)]], "vertex 1 lies on the line through its neighbours; a corner is needed"),
        ([[(0, 0), (9, 0), (2, 2), (0, 9)]], "convex .* turns the other way at vertex 2; split it into convex parts"),
        ([[(0, 0), (9, 9), (9, 0), (0, 9)]], "must not cross itself, but turns the other way"),
        ([PENTAGRAM], "crosses itself: it turns 720 degrees, not 360"),
        ([[(0, 0), (float("nan"), 0), (0, 9)]], "polygon 0 must be finite"),
        ([[0, 1, 2]], r"polygon 0 must have the shape \(M, 2\)"),
        (["round"], "polygon 0 must be numbers, came 'round'"),
    ],
)
def test_what_is_no_convex_polygon_is_refused(polygons: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        KeepOutPolygons(polygons)
