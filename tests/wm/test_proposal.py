from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.datasets.windows import WindowIndex
from wm.fit import FitConfig
from wm.logs import Log, LogWindows, Moments
from wm.proposal import Proposal, train_proposal

HORIZON = 3
SCHEDULE = FitConfig(steps=400, batch=128, learning_rate=3e-3, warmup=20, log_every=10, checkpoint_every=200)


def two_ways() -> LogWindows:
    """A point on a line that the actions move; each move is made in one of two ways, the second number ±1 at random.

    So the first number of a step's action can be told from start and goal, the second cannot, and its mean is no way.
    """
    rng = np.random.default_rng(0)
    moves, places = [], []
    for _ in range(60):
        place = rng.uniform(-1, 1)
        push = rng.uniform(-1, 1)
        places.append(place)
        for _ in range(20):
            moves.append([push, rng.choice([-1.0, 1.0])])
            place += 0.3 * push
            places.append(place)
    actions = np.array(moves, np.float32)
    log = Log(torch.tensor(places, dtype=torch.float32)[:, None], None, actions)
    index = WindowIndex(np.full(60, 20), history=2, horizon=HORIZON, frameskip=1)
    return LogWindows(log, index, Moments(torch.zeros(2), torch.ones(2)), None)


def proposal() -> Proposal:
    torch.manual_seed(0)
    return Proposal(1, 1, 2, history=2, sequences=4, horizon=HORIZON, hidden=48)


@torch.no_grad()
def proposed(model: Proposal, place: float, goal: float, steps: int) -> Tensor:
    """``(K, H, 2)``"""
    history = torch.full((1, 2, 1), place)
    return model(history, torch.tensor([[goal]]), torch.tensor([float(steps)]))[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Proposal:
    model = proposal()
    train_proposal(model, two_ways(), 2, SCHEDULE, tmp_path_factory.mktemp("proposal"))
    return model


def test_sequences_lead_to_the_goal_in_the_steps_asked_for(trained: Proposal) -> None:
    for steps in (1, 2, 3):
        for way in (-0.2, 0.2):
            moved = 0.3 * proposed(trained, 0.1, 0.1 + way, steps)[:, :steps, 0].sum(1)
            assert (moved - way).abs().min() < 0.08


def test_sequences_are_ways_that_were_gone_and_not_their_mean(trained: Proposal) -> None:
    ways = proposed(trained, 0.0, 0.2, 1)[:, 0, 1]
    assert (ways - 1).abs().min() < 0.2 and (ways + 1).abs().min() < 0.2


def test_learning_lowers_the_nearest_error_below_the_mean(tmp_path: Path) -> None:
    model = proposal()
    train_proposal(model, two_ways(), 2, replace(SCHEDULE, steps=100), tmp_path)
    log = [json.loads(line) for line in (tmp_path / "proposal.jsonl").read_text().splitlines()]
    assert log[-1]["nearest"] < 0.6 * log[0]["nearest"] and log[-1]["nearest"] < log[-1]["mean"]
    assert not model.training


def test_an_interrupted_run_ends_as_one_that_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, cut, calls = replace(SCHEDULE, steps=9, checkpoint_every=3), LogWindows.cut, []

    def failing(self: LogWindows, *place: np.ndarray) -> object:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return cut(self, *place)

    whole, halves, resumed = proposal(), proposal(), proposal()
    train_proposal(whole, two_ways(), 2, schedule, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogWindows, "cut", failing)
        train_proposal(halves, two_ways(), 2, schedule, tmp_path / "halves")
    train_proposal(resumed, two_ways(), 2, schedule, tmp_path / "halves")
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())
