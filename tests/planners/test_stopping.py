from __future__ import annotations

import pytest
import torch

from wm.planners import stopping
from wm.planners.candidates import Best
from wm.planners.stopping import SOUNDING, Clock, Progress


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


def test_clock_expects_of_candidates_what_the_last_two_laps_took(time: FakeTime) -> None:
    clock = Clock(100.0)
    assert clock.room(300) == SOUNDING and clock.room(5) == 5  # nothing is known yet
    for candidates, milliseconds in ((16, 16.0), (10, 4.0), (30, 16.0)):
        time.now += milliseconds / 1e3
        clock.lap(candidates)
    assert clock.milliseconds() == pytest.approx(36.0)  # 64 are left, at 20 for 40
    assert clock.fits(127) and not clock.fits(129) and clock.room(127) == 127
    assert 63 <= clock.room(300) <= 64  # half of the time left
    time.now += 0.040
    assert clock.room(300) == SOUNDING
    time.now += 0.0202
    assert not clock.fits(1) and clock.room(300) == 0  # no lap took less than 4


def test_all_of_the_time_belongs_to_a_lap(time: FakeTime) -> None:
    clock = Clock(100.0)
    time.now += 0.010
    time.now += 0.010
    clock.lap(10)
    assert clock.fits(39) and not clock.fits(41)


def test_a_deadline_of_nothing_leaves_room_for_the_first_few(time: FakeTime) -> None:
    clock = Clock(0.0)
    time.now += 0.001
    assert clock.room(300) == SOUNDING
    clock.lap(SOUNDING)
    assert clock.room(300) == 0


@pytest.mark.parametrize("deadline", [None, float("inf")])
def test_clock_without_a_deadline_always_has_room(time: FakeTime, deadline: float | None) -> None:
    clock = Clock(deadline)
    assert clock.room(1000) == 1000
    time.now += 1e6
    clock.lap(1)
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


def test_all_are_enough_only_where_none_merely_converged() -> None:
    progress = Progress(best([0.1, 0.9], [0.0, 0.0]), rtol=0.1, patience=1, enough=0.2)
    assert not progress.all_enough
    progress.update(best([0.1, 0.9], [0.0, 0.0]))  # the second one falls no more
    assert not progress.any_active and not progress.all_enough
    progress = Progress(best([0.1, 0.9], [0.0, 0.0]), rtol=0.1, patience=1, enough=0.2)
    progress.update(best([0.1, 0.2], [0.0, 0.0]))
    assert not progress.any_active and progress.all_enough


def test_a_feasible_problem_ends_where_its_energy_is_enough() -> None:
    progress = Progress(best([0.2, 0.2, 0.4], [0.0, 1.0, 0.0]), rtol=0.0, patience=9, enough=0.2)
    assert progress.active.tolist() == [False, True, True]
    progress.update(best([0.2, 0.2, 0.1], [0.0, 0.0, 0.0]))
    assert progress.active.tolist() == [False, False, False]
    assert not progress.any_active
