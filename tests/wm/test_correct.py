from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.correct import CorrectConfig, correct
from wm.datasets.windows import WindowIndex
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError
from wm.fit import FitConfig
from wm.logs import Log, LogWindows, Moments, WindowSampler, draw_states
from wm.losses import rollout_loss
from wm.model import WorldModel, build_model
from wm.rollout import rollout
from wm.specs import EnvSpec, ModelSpec

FIT = FitConfig(60, 32, learning_rate=5e-3, warmup=5, log_every=1, checkpoint_every=10)


def model_of(env: EnvSpec) -> WorldModel:
    """A place in the plane as two numbers; the predictor begins with "nothing moves"."""
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    spec = ModelSpec(
        replace(env, proprio=None), encoder.spec(), frameskip=2, history=2, tokens=1, width=2, hidden=16, depth=1,
        reach=2,
    )  # fmt: skip
    return build_model(spec, encoder, Moments.none(2), None)


def moved(gain: float, seed: int) -> LogWindows:
    """Windows of places that actions move, `gain` for each unit, around a place that depends on the gain."""
    rng, places, actions = np.random.default_rng(seed), [], []
    for _ in range(8):
        pushes = rng.uniform(-1, 1, (20, 2))
        places.append(10 * gain + np.concatenate([np.zeros((1, 2)), gain * np.cumsum(pushes, axis=0)]))
        actions.append(pushes)
    log = Log(torch.tensor(np.concatenate(places)).float(), None, np.concatenate(actions).astype(np.float32))
    return LogWindows(log, WindowIndex(np.full(8, 20), 2, 2, 2), Moments.none(2), None)


def error(model: WorldModel, windows: LogWindows) -> float:
    states, actions = draw_states(windows, 2, np.random.default_rng(0), 200)
    imagined = rollout(model.joint.predictor, states[:, :2], actions[:, None, 1:])[:, 0]
    return float(rollout_loss(imagined, states[:, 2:], torch.ones(2)))


def weights(model: WorldModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def log_of(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "correct.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def test_the_predictor_learns_from_both_and_nothing_else_changes(tmp_path: Path, toy_env: EnvSpec) -> None:
    model, logged, played = model_of(toy_env), moved(0.1, 0), moved(0.3, 1)
    before, errors = weights(model), (error(model, logged), error(model, played))
    correct(model, logged, played, CorrectConfig(0.5, FIT), tmp_path)
    assert error(model, logged) < 0.6 * errors[0] and error(model, played) < 0.5 * errors[1]
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("joint.predictor.") for name in changed)
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    first, last = log_of(tmp_path)[0], log_of(tmp_path)[-1]
    assert first["logged_share_of_copy"] == pytest.approx(1.0, abs=1e-3) and last["played_share_of_copy"] < 0.5


def test_the_more_of_the_played_the_better_it_is_known(tmp_path: Path, toy_env: EnvSpec) -> None:
    found = {}
    for share in (0.05, 0.95):
        model = model_of(toy_env)
        correct(model, moved(0.1, 0), moved(0.3, 1), CorrectConfig(share, FIT), tmp_path / str(share))
        found[share] = error(model, moved(0.1, 2)), error(model, moved(0.3, 3))
    assert found[0.95][1] < found[0.05][1] and found[0.05][0] < found[0.95][0]


@dataclass(frozen=True)
class Counting:
    """Notes how many windows are drawn."""

    sampler: WindowSampler
    drawn: list[int]

    def sample(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        self.drawn.append(n)
        return self.sampler.sample(rng, n)

    def observation_index(self, episodes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return self.sampler.observation_index(episodes, starts)

    def action_index(self, episodes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return self.sampler.action_index(episodes, starts)


@pytest.mark.parametrize(("share", "batch"), [(0.25, 40), (0.02, 8)])
def test_batches_take_their_share_from_what_was_played(
    tmp_path: Path, toy_env: EnvSpec, share: float, batch: int
) -> None:
    drawn: tuple[list[int], list[int]] = ([], [])
    logged, played = (
        replace(windows, sampler=Counting(windows.sampler, counts))
        for windows, counts in zip((moved(0.1, 0), moved(0.3, 1)), drawn, strict=True)
    )
    correct(model_of(toy_env), logged, played, CorrectConfig(share, replace(FIT, batch=batch)), tmp_path)
    total = FIT.steps * batch
    assert sum(drawn[0]) + sum(drawn[1]) == total and min(drawn[0] + drawn[1]) > 0
    assert abs(sum(drawn[1]) - share * total) < 4 * math.sqrt(share * (1 - share) * total)


def test_an_interrupted_training_ends_in_the_same_weights(
    tmp_path: Path, toy_env: EnvSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wm.fit

    def run(out: Path) -> dict[str, Tensor]:
        model = model_of(toy_env)
        correct(model, moved(0.1, 0), moved(0.3, 1), CorrectConfig(0.5, FIT), out)
        return weights(model)

    whole, real, taken = run(tmp_path / "whole"), wm.fit._step, []

    def failing(*arguments: Any) -> dict[str, float]:
        taken.append(1)
        if len(taken) == 25:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr("wm.fit._step", failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halves")
    again = run(tmp_path / "halves")
    assert all(torch.equal(value, again[name]) for name, value in whole.items()) and len(taken) == 25 + 40
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "halves")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, math.nan])
def test_a_share_of_nothing_or_of_all_is_refused(share: float) -> None:
    with pytest.raises(BadInputError, match=f"share: expected more than 0 and less than 1, came {share}"):
        CorrectConfig(share)
