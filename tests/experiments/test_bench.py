"""The benchmark's figures: measured, positive, and the median of its runs."""

from __future__ import annotations

import time

import pytest

from wm.experiments import bench


def test_seconds_is_the_median_and_the_first_run_does_not_count() -> None:
    sleeps = iter([0.2, 0.0, 0.02, 0.2])
    assert 0.015 < bench.seconds(lambda: time.sleep(next(sleeps)), runs=3) < 0.1


@pytest.mark.parametrize("measure", [bench.bench_push_t, bench.bench_store, bench.bench_chips, bench.bench_arm])
def test_rates_are_positive(measure: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "seconds", lambda work, runs=1: (work(), 0.5)[1])
    figures = measure()  # type: ignore[operator]
    assert figures and all(value > 0 for value in figures.values())
