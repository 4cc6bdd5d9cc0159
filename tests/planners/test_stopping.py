from __future__ import annotations

import pytest
import torch

from wm.planners import stopping
from wm.planners.candidates import Best
from wm.planners.stopping import Clock, Progress


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(stopping, "time", fake)
    return fake


def test_clock_predicts_with_the_slower_of_the_last_two_iterations(time: FakeTime) -> None:
    clock = Clock(100.0)
    for milliseconds in (50.0, 10.0):
        time.now += milliseconds / 1e3
        clock.lap()
    assert clock.milliseconds() == pytest.approx(60.0)
    assert not clock.fits(1)  # the first took 50
    time.now += 0.010
    clock.lap()
    assert clock.fits(1) and clock.fits(2) and not clock.fits(4)  # 70 so far, the last two took 10


def test_clock_without_a_deadline_always_fits(time: FakeTime) -> None:
    clock = Clock(None)
    time.now += 1e6
    clock.lap()
    assert clock.fits(1000)


def best(energy: list[float], violation: list[float]) -> Best:
    zeros = torch.zeros(len(energy), 1, 1)
    return Best(zeros, zeros[..., None], torch.tensor(energy), {}, {}, torch.tensor(violation))


def test_progress_ends_per_problem_when_the_energy_stops_falling() -> None:
    progress = Progress(best([1.0, 1.0], [0.0, 0.0]), rtol=0.1, patience=2)
    progress.update(best([0.95, 0.5], [0.0, 0.0]))  # 5 % is no progress, 50 % is
    assert progress.active.tolist() == [True, True]
    progress.update(best([0.91, 0.3], [0.0, 0.0]))
    assert progress.active.tolist() == [False, True]
    assert progress.any_active and not progress.all_active
    progress.update(best([0.1, 0.3], [0.0, 0.0]))  # once converged, always
    assert progress.active.tolist() == [False, True]


def test_slow_progress_adds_up() -> None:
    progress = Progress(best([1.0], [0.0]), rtol=0.1, patience=3)
    for energy in (0.96, 0.92, 0.88, 0.84, 0.80, 0.76):
        progress.update(best([energy], [0.0]))
        assert progress.any_active


def test_less_violation_is_progress_whatever_the_energy_does() -> None:
    progress = Progress(best([1.0], [5.0]), rtol=0.1, patience=1)
    progress.update(best([9.0], [4.0]))
    assert progress.any_active
    progress.update(best([float("inf")], [0.0]))
    assert progress.any_active
    progress.update(best([3.0], [0.0]))  # from infinite to finite
    assert progress.any_active
    progress.update(best([3.0], [0.0]))
    assert not progress.any_active
