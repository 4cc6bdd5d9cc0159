from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import Term, around_disc, point_robot, problem, rollout_actions
from wm.planners import stopping
from wm.planners.candidates import Scored, score
from wm.planners.pieces import score_in_time
from wm.planners.problem import Problem
from wm.planners.stopping import SOUNDING, Clock
from wm.types import Trajectory

COUNT = 100


class Machine:
    """A machine on which a rollout takes a time of its own, and a time for each candidate."""

    def __init__(
        self, overhead_ms: float, candidate_ms: float, model: Callable[[Tensor], Trajectory] = rollout_actions
    ) -> None:
        self.now, self.overhead_ms, self.candidate_ms, self.model = 0.0, overhead_ms, candidate_ms, model
        self.sizes: list[int] = []

    def perf_counter(self) -> float:
        return self.now

    def rollout(self, actions: Tensor) -> Trajectory:
        self.sizes.append(actions.shape[1])
        self.now += (self.overhead_ms + self.candidate_ms * actions.shape[1]) / 1e3
        return self.model(actions)

    @property
    def problem(self) -> Problem:
        return problem(self.rollout, [Term(lambda t: t.actions.square().mean((-2, -1)))])


def candidates(task: Problem) -> Tensor:
    drawn = torch.rand(task.batch, COUNT, task.horizon, task.width, generator=torch.Generator().manual_seed(0))
    return task.low + (task.high - task.low) * drawn


def equal(one: Scored, other: Scored, count: int) -> None:
    torch.testing.assert_close(one.actions, other.actions[:, :count], atol=0, rtol=0)
    for name in ("tokens", "energy", "violation"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name)[:, :count])
    for ours, theirs in ((one.terms, other.terms), (one.margins, other.margins)):
        assert set(ours) == set(theirs)
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name][:, :count])
    assert (one.gradient is None) == (other.gradient is None)
    if one.gradient is not None and other.gradient is not None:
        torch.testing.assert_close(one.gradient, other.gradient[:, :count])


@pytest.mark.parametrize("penalty", [None, 1.0])
def test_pieces_are_the_whole(penalty: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = [(100.0, 250.0), (60.0, 100.0)]
    machine = Machine(0.0, 1.0, point_robot(torch.tensor([[x, y, 0.0, 0.0] for x, y in starts])))
    task = dataclasses.replace(around_disc(starts), rollout=machine.rollout)
    monkeypatch.setattr(stopping, "time", machine)
    actions = candidates(task)
    whole = score(task, actions, penalty)
    equal(score_in_time(task, actions, penalty, Clock(1e6)), whole, COUNT)
    assert machine.sizes == [COUNT, SOUNDING, COUNT - SOUNDING]
    cut = score_in_time(task, actions, penalty, Clock(0.0))
    assert cut.energy.shape == (2, SOUNDING)
    equal(cut, whole, SOUNDING)


def test_without_a_deadline_all_are_rolled_out_at_once() -> None:
    machine = Machine(0.0, 0.0)
    score_in_time(machine.problem, candidates(machine.problem), None, Clock(None))
    assert machine.sizes == [COUNT]


def test_all_that_fit_are_scored_and_the_deadline_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(2.0, 1.0)
    monkeypatch.setattr(stopping, "time", machine)
    scored = score_in_time(machine.problem, candidates(machine.problem), None, Clock(70.0))
    assert machine.sizes[0] == SOUNDING and scored.energy.shape[1] == sum(machine.sizes) < COUNT
    assert 70.0 - (SOUNDING + 2.0) < 1e3 * machine.now <= 70.0


def test_a_rollout_that_takes_the_same_for_any_number_is_soon_trusted_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(20.0, 0.0)
    monkeypatch.setattr(stopping, "time", machine)
    scored = score_in_time(machine.problem, candidates(machine.problem), None, Clock(150.0))
    assert scored.energy.shape[1] == COUNT and len(machine.sizes) == 2


def test_a_machine_that_slows_down_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0.0, 0.1)
    monkeypatch.setattr(stopping, "time", machine)
    clock = Clock(30.0)
    score_in_time(machine.problem, candidates(machine.problem), None, clock)
    machine.candidate_ms, before = 10.0, machine.now
    machine.now += 0.0199  # 0.1 ms is left: nothing fits, the first few are scored nevertheless
    scored = score_in_time(machine.problem, candidates(machine.problem), None, clock)
    assert scored.energy.shape[1] == SOUNDING and machine.now > before
