from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Point, box

from wm.errors import BadInputError
from wm.planners.guardrails import KeepOutBoxes, KeepOutDiscs, KeepOutPolygons
from wm.types import Trajectory

NUMBER = st.floats(-600, 600, width=32)
LOWS, HIGHS = [[100.0, 50.0], [250.0, 300.0]], [[180.0, 90.0], [260.0, 420.0]]


def margin(rule: Any, x: float, y: float) -> float:
    return rule.margin_of(torch.tensor([x, y, 0.0, 0.0])).item()


@given(NUMBER, NUMBER)
def test_margin_is_the_signed_distance_of_an_independent_geometry(x: float, y: float) -> None:
    expected = []
    for low, high in zip(LOWS, HIGHS, strict=True):
        shape, point = box(*low, *high), Point(x, y)
        expected.append(-shape.exterior.distance(point) if shape.contains(point) else shape.distance(point))
    assert margin(KeepOutBoxes(LOWS, HIGHS, 15), x, y) == pytest.approx(min(expected) - 15, abs=1e-3)


@given(NUMBER, NUMBER, st.floats(0, 30, width=32))
def test_a_box_is_a_polygon_of_four_corners(x: float, y: float, radius: float) -> None:
    corners = [[lo, (hi[0], lo[1]), hi, (lo[0], hi[1])] for lo, hi in zip(LOWS, HIGHS, strict=True)]
    boxes, polygons = KeepOutBoxes(LOWS, HIGHS, radius), KeepOutPolygons(corners, radius)
    assert margin(boxes, x, y) == pytest.approx(margin(polygons, x, y), abs=1e-3)


@given(NUMBER, NUMBER)
def test_a_tiny_box_is_a_disc_of_no_radius(x: float, y: float) -> None:
    tiny, disc = KeepOutBoxes([[100, 100]], [[100.001, 100.001]], 20), KeepOutDiscs([[100, 100]], [0], 20)
    assert margin(tiny, x, y) == pytest.approx(margin(disc, x, y), abs=2e-3)


def test_margin_on_the_boundary_at_a_corner_and_in_the_middle() -> None:
    rule = KeepOutBoxes([[0, 0]], [[10, 20]], 5)
    assert margin(rule, -5, 7) == 0 and margin(rule, 13, 24) == 0 and margin(rule, 5, 10) == -10


def test_exposes_what_it_forbids() -> None:
    rule = KeepOutBoxes(LOWS, HIGHS, 7)
    assert (rule.lows.tolist(), rule.highs.tolist(), rule.robot_radius) == (LOWS, HIGHS, 7.0)
    assert (rule.name, rule.unit, rule.soft) == ("keep_out_boxes", "px", False)


@pytest.mark.parametrize("component", [0, 1])
@pytest.mark.parametrize("other", [100.0, float("nan"), float("inf"), float("-inf")])
def test_nan_never_looks_safe(component: int, other: float) -> None:
    path = torch.full((1, 1, 2, 3, 4), 700.0)
    path[0, 0, 1, 1, :2] = other
    path[0, 0, 1, 1, component] = torch.nan
    trajectory = Trajectory(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 1, 1), path=path)
    discs = KeepOutDiscs([[0, 0]], [10])
    polygons = KeepOutPolygons([[(0, 0), (9, 0), (0, 9)]])
    for rule in (KeepOutBoxes(LOWS, HIGHS), discs, polygons):
        assert (rule(trajectory) >= 0).tolist() == [[[True, False]]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 0]], [[10, 0]]), r"lows must be below highs, came lows \[\[0.0, 0.0\]\]"),
        (([[0, 0]], [[10, 10], [20, 20]]), "expected 1 highs, came 2"),
        (([0, 0], [10, 10]), r"lows must have the shape \(M, 2\), M >= 1, came \(2,\)"),
        (([[0, 0]], [[10, float("inf")]]), "guardrail 'keep_out_boxes': highs must be finite"),
        (([[0, 0]], [[10, 10]], -1), "robot_radius must be one number >= 0, came -1"),
    ],
)
def test_bad_settings_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        KeepOutBoxes(*arguments)
