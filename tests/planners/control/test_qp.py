from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm.planners.control import qp
from wm.planners.control.qp import ClosestAction, closest_by_hand

LOW, HIGH = np.array([-1.0, -0.8]), np.array([1.0, 0.9])


def random_planes(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    angles = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angles), np.sin(angles)], 1), rng.uniform(-1.2, 0.3, count)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 12))
def test_by_hand_is_what_the_iterations_find(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    planes, target = random_planes(rng, count), rng.uniform(-2, 2, 2)
    with pytest.MonkeyPatch.context() as patch:
        found = ClosestAction(LOW, HIGH)(target, planes, np.zeros(2), LOW, HIGH)
        patch.setattr(qp, "_BY_HAND", 0)
        iterated = ClosestAction(LOW, HIGH)(target, planes, np.zeros(2), LOW, HIGH)
    if found is None:
        assert iterated is None
        return
    assert (planes[0] @ found >= planes[1]).all() and (found >= LOW).all() and (found <= HIGH).all()
    if iterated is not None:  # where room is scarce the iterations may find none in time
        assert np.abs(found - iterated).max() < 1e-3


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_no_point_of_a_grid_is_closer_than_the_one_by_hand(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    normals, offsets = random_planes(rng, count)
    target, axis = rng.uniform(-2, 2, 2), np.linspace(-3, 3, 121)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    inside = grid[(grid @ normals.T >= offsets).all(1)]
    solved, point = closest_by_hand(target, (normals, offsets))
    if not solved:
        return
    if point is None:
        assert len(inside) == 0
        return
    assert (normals @ point >= offsets - 1e-8).all()
    assert len(inside) == 0 or np.linalg.norm(inside - target, axis=1).min() >= np.linalg.norm(point - target) - 1e-9


def test_a_target_inside_is_itself_the_closest() -> None:
    planes = np.array([[1.0, 0.0]]), np.array([-0.5])
    assert np.array_equal(ClosestAction(LOW, HIGH)(np.array([0.2, 0.1]), planes, np.zeros(2), LOW, HIGH), [0.2, 0.1])


def test_parallel_half_planes_with_nothing_between_have_no_answer() -> None:
    planes = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.3, -0.2])
    assert ClosestAction(LOW, HIGH)(np.zeros(2), planes, np.zeros(2), LOW, HIGH) is None
    assert closest_by_hand(np.zeros(2), planes) == (True, None)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_have_no_answer(wrong: float) -> None:
    planes = np.array([[1.0, 0.0]]), np.array([wrong])
    assert ClosestAction(LOW, HIGH)(np.zeros(2), planes, np.zeros(2), LOW, HIGH) is None
    normal = np.array([[wrong, 0.0]]), np.array([0.0])
    assert ClosestAction(LOW, HIGH)(np.zeros(2), normal, np.zeros(2), LOW, HIGH) is None
    fine = np.array([[1.0, 0.0]]), np.array([0.0])
    assert ClosestAction(LOW, HIGH)(np.array([np.nan, 0.0]), fine, np.zeros(2), LOW, HIGH) is None
