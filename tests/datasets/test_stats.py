from __future__ import annotations

import json

import numpy as np
import pytest

from wm.datasets.stats import Statistics, statistics
from wm.errors import BadInputError


def test_agrees_with_numpy_across_blocks(rng):
    array = rng.normal([0.0, 5.0, -100.0], [1.0, 1e-3, 30.0], (150_000, 3)).astype(np.float32)
    found = statistics(array)
    assert found.mean == pytest.approx(array.astype(np.float64).mean(axis=0), rel=1e-12)
    assert found.std == pytest.approx(array.astype(np.float64).std(axis=0), rel=1e-9)


def test_keeps_a_small_spread_on_a_large_offset(rng):
    array = 1e8 + rng.normal(size=(1000, 1))
    assert statistics(array).std[0] == pytest.approx(array.std(), rel=1e-6)


def test_normalising_gives_mean_zero_and_std_one(rng):
    array = rng.uniform(-3, 9, (5000, 4))
    found = statistics(array)
    again = statistics((array - found.mean) / found.std)
    assert again.mean == pytest.approx(np.zeros(4), abs=1e-12)
    assert again.std == pytest.approx(np.ones(4), rel=1e-12)


def test_a_column_that_never_changes_has_std_one():
    found = statistics(np.full((70_001, 2), [0.1, 255.3], np.float32))
    assert found.std.tolist() == [1.0, 1.0]
    assert statistics(np.full((999, 1), 0.1)).std.tolist() == [1.0]


def test_survives_json_exactly(rng):
    found = statistics(rng.normal(size=(10, 3)))
    again = Statistics.from_json(json.loads(json.dumps(found.to_json())))
    assert np.array_equal(again.mean, found.mean) and np.array_equal(again.std, found.std)


def test_numbers_that_are_not_finite_are_refused():
    array = np.zeros((70_000, 2))
    array[66_000, 1] = np.nan
    with pytest.raises(BadInputError, match="statistics of state: expected finite numbers, came nan in row 66000, col"):
        statistics(array, "state")


@pytest.mark.parametrize("shape", [(0, 3), (5,), (2, 3, 4)])
def test_what_is_not_a_table_is_refused(shape):
    with pytest.raises(BadInputError, match=r"expected shape \(rows, D\) with rows >= 1, came"):
        statistics(np.zeros(shape))


@pytest.mark.parametrize("data", [{"mean": [0.0]}, {"mean": [0.0], "std": [0.0]}, {"mean": [0.0], "std": [1.0, 1.0]}])
def test_broken_json_is_refused(data):
    with pytest.raises(BadInputError, match="statistics: expected"):
        Statistics.from_json(data)
