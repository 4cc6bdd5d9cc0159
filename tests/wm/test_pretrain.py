from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wm.datasets.windows import WindowIndex
from wm.encoders.base import fingerprint
from wm.encoders.tiny import TinyEncoder
from wm.fit import FitConfig
from wm.logs import Log, LogWindows, Moments
from wm.pretrain import PretrainConfig, pretrain

SCHEDULE = FitConfig(steps=30, batch=16, learning_rate=3e-3, warmup=3, log_every=1, checkpoint_every=10)
CONFIG = PretrainConfig(width=8, hidden=32, depth=1)


def small_encoder() -> TinyEncoder:
    """For 24 px pictures: a 2 x 2 grid."""
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    encoder.image_size, encoder.grid = 24, 2
    return encoder


@pytest.fixture(params=[True, False], ids=["proprio", "no proprio"])
def windows(request: pytest.FixtureRequest) -> LogWindows:
    """A bright square that the actions push about, in 24 px pictures."""
    rng, frames, actions, proprio = np.random.default_rng(0), [], [], []
    for _ in range(10):
        place, push = rng.uniform(4, 16, 2), rng.uniform(-2, 2, 2)
        for step in range(21):
            picture = np.full((24, 24, 3), 30, np.uint8)
            row, column = place.round().astype(int)
            picture[row : row + 5, column : column + 5] = (220, 120, 60)
            frames.append(picture)
            proprio.append(place)
            push = np.clip(0.8 * push + rng.normal(0, 0.7, 2), -2, 2)
            if step < 20:
                actions.append(push)
            place = np.clip(place + push, 0, 18)
    moves, places = np.array(actions, np.float32), np.array(proprio, np.float32)
    index = WindowIndex(np.full(10, 20), history=2, horizon=2, frameskip=2)
    has = bool(request.param)
    log = Log(np.stack(frames), places if has else None, moves)
    return LogWindows(log, index, Moments.of(moves), Moments.of(places) if has else None)


def log_of(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "pretrain.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def test_learns_and_keeps_the_state_alive(tmp_path: Path, windows: LogWindows) -> None:
    encoder = small_encoder()
    before = fingerprint(encoder)
    pretrain(encoder, windows, CONFIG, SCHEDULE, tmp_path)
    log = log_of(tmp_path)
    assert fingerprint(encoder) != before and not encoder.training
    assert log[-1]["loss"] < 0.7 * log[0]["loss"] and log[-1]["std"] > 0.3


def test_without_the_regulariser_the_state_dies(tmp_path: Path, windows: LogWindows) -> None:
    spread = {}
    for weight in (0.0, 3.0):
        pretrain(small_encoder(), windows, replace(CONFIG, regulariser=weight), SCHEDULE, tmp_path / str(weight))
        spread[weight] = log_of(tmp_path / str(weight))[-1]["std"]
    assert spread[0.0] < 0.5 * spread[3.0]


def test_an_interrupted_run_ends_as_one_that_never_stopped(
    tmp_path: Path, windows: LogWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = replace(SCHEDULE, steps=14, checkpoint_every=5)
    whole = small_encoder()
    pretrain(whole, windows, CONFIG, schedule, tmp_path / "whole")
    draw: Callable[..., Any] = LogWindows.draw
    calls = []

    def failing(self: LogWindows, rng: np.random.Generator, n: int) -> Any:
        calls.append(n)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return draw(self, rng, n)

    halves = small_encoder()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogWindows, "draw", failing)
        pretrain(halves, windows, CONFIG, schedule, tmp_path / "halves")
    resumed = small_encoder()
    pretrain(resumed, windows, CONFIG, schedule, tmp_path / "halves")
    assert fingerprint(resumed) == fingerprint(whole) and log_of(tmp_path / "halves") == log_of(tmp_path / "whole")
