"""The benchmark's figures: measured, positive, and the median of its runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.experiments.place import Place
from wm.errors import UnknownNameError
from wm.experiments import bench
from wm.experiments.studies.race import processor


@pytest.mark.real_time
def test_seconds_is_the_median_and_the_first_run_does_not_count() -> None:
    sleeps = iter([0.2, 0.0, 0.02, 0.2])
    assert 0.015 < bench.seconds(lambda: time.sleep(next(sleeps)), runs=3) < 0.1


@pytest.mark.parametrize("measure", [bench.bench_push_t, bench.bench_store, bench.bench_chips, bench.bench_arm])
def test_rates_are_positive(measure: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "seconds", lambda work, runs=1: (work(), 0.5)[1])
    figures = measure()  # type: ignore[operator]
    assert figures and all(value > 0 for value in figures.values())


def test_the_model_s_figures_and_the_file(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one run takes is 2 s: rates count what it does, times are in milliseconds."""
    monkeypatch.setattr(bench, "seconds", lambda work: (work(), 2.0)[1])
    for other in ("push_t", "chips", "arm", "store"):
        monkeypatch.setattr(bench, f"bench_{other}", dict)
    bench.main(tmp_path, str(place.model))
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["machine"]["processor"] == processor() and found["machine"]["statistic"] == "median"
    planning = dict.fromkeys(("plan_ms_icem", "plan_ms_cem", "rollout_200x5_ms"), 2000.0)
    assert found["figures"] == {"encode_frames_per_s": 32.0} | planning


def test_an_unknown_model_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "bench_push_t", lambda: pytest.fail("measured"))
    with pytest.raises(UnknownNameError, match="nosuch"):
        bench.main(tmp_path, "nosuch")
    assert not any(tmp_path.iterdir())
