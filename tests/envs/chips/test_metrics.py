from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from wm.envs.chips.metrics import SUCCESS_CHAMFER, chamfer, coverage, reached


def poses(places: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(3), np.column_stack([places, np.ones(len(places))]).ravel()])


def test_chamfer_of_known_sets() -> None:
    assert chamfer(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])) == pytest.approx(5.0)
    # to the other set: 0 and 1; back: 0
    assert chamfer(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0]])) == pytest.approx(0.25)


def test_chamfer_agrees_with_a_search_tree_and_is_symmetric(rng: np.random.Generator) -> None:
    one, other = rng.normal(size=(4, 30, 2)), rng.normal(size=(4, 20, 2))
    found = chamfer(one, other)
    np.testing.assert_allclose(found, chamfer(other, one), rtol=1e-12)
    for a, b, distance in zip(one, other, found, strict=True):
        expected = (cKDTree(b).query(a)[0].mean() + cKDTree(a).query(b)[0].mean()) / 2
        assert distance == pytest.approx(expected)
    shuffled = rng.permutation(one, axis=1)
    np.testing.assert_allclose(chamfer(one, shuffled), 0.0, atol=1e-12)


def test_success_is_a_small_chamfer_distance_whichever_chip_lies_where(rng: np.random.Generator) -> None:
    goal = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 0.1
    for scale, expected in ((0.99, True), (1.01, False)):
        state = rng.permutation(goal) + np.array([scale * SUCCESS_CHAMFER, 0.0])
        assert reached(poses(state), poses(goal)) == reached(poses(goal), poses(state)) == expected


def test_coverage_counts_the_targets_places_with_a_chip() -> None:
    target = np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])
    assert coverage(np.array([[0.0, 0.017], [0.1, 0.019], [0.3, 0.0], [0.3, 0.001]]), target) == 0.5
    assert coverage(target[::-1], target) == 1.0
