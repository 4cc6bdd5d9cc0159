from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from wm.experiments.interval import paired_difference, wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_agrees_with_scipy(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson(successes, trials)
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert math.isclose(low, expected.low, abs_tol=1e-9) and math.isclose(high, expected.high, abs_tol=1e-9)
    assert 0 <= low <= successes / trials <= high <= 1


def test_refuses_impossible_counts() -> None:
    with pytest.raises(ValueError, match="came 3 of 2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="came 0 of 0"):
        wilson(0, 0)


def test_paired_difference_is_the_plain_one_inside_its_interval() -> None:
    first, second = [True] * 8 + [False] * 2, [True] * 6 + [False] * 3 + [True]
    difference, (low, high) = paired_difference(first, second)
    assert difference == pytest.approx(0.1) and low < difference < high
    back, (lower, higher) = paired_difference(second, first)
    assert (back, lower, higher) == pytest.approx((-difference, -high, -low))


def test_pairs_that_agree_say_that_the_difference_is_small_and_more_of_them_that_it_is_smaller() -> None:
    widths = []
    for count in (10, 100, 1000):
        difference, (low, high) = paired_difference([True] * count, [True] * count)
        assert difference == 0 and low == pytest.approx(-high)
        widths.append(high - low)
    assert widths[0] > 3 * widths[1] > 9 * widths[2] > 0


def test_paired_difference_covers() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        first = rng.random(60) < 0.9
        second = np.where(rng.random(60) < 0.1, ~first, first)  # true difference: 0.1 * (0.9 - 0.1)
        low, high = paired_difference(first.tolist(), second.tolist())[1]
        covered += low <= 0.08 <= high
    assert covered / 400 > 0.92


def test_paired_difference_refuses_what_is_no_pair() -> None:
    with pytest.raises(ValueError, match="expected at least one pair, came none"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([True, False], [True])
