from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from wm.experiments.interval import wilson


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
