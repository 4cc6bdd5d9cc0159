from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm.encoders.base import fingerprint
from wm.encoders.tiny import TinyEncoder
from wm.fit import FitConfig
from wm.logs import LogWindows
from wm.objectives.acjepa import AcjepaConfig
from wm.pretrain import pretrain

SCHEDULE = FitConfig(steps=30, batch=16, learning_rate=3e-3, warmup=3, log_every=1, checkpoint_every=10)
CONFIG = AcjepaConfig(width=8, hidden=32, depth=1)


@pytest.fixture(params=[True, False], ids=["proprio", "no proprio"])
def windows(request: pytest.FixtureRequest, pushed_square: Callable[..., LogWindows]) -> LogWindows:
    return pushed_square(proprio=bool(request.param))


def log_of(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "pretrain.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def test_learns_and_keeps_the_state_alive(
    tmp_path: Path, windows: LogWindows, square_encoder: Callable[[], TinyEncoder]
) -> None:
    encoder = square_encoder()
    before = fingerprint(encoder)
    pretrain(encoder, windows, CONFIG, SCHEDULE, tmp_path)
    log = log_of(tmp_path)
    assert fingerprint(encoder) != before and not encoder.training
    assert log[-1]["loss"] < 0.7 * log[0]["loss"] and log[-1]["std"] > 0.3


def test_without_the_regulariser_the_state_dies(
    tmp_path: Path, windows: LogWindows, square_encoder: Callable[[], TinyEncoder]
) -> None:
    spread = {}
    for weight in (0.0, 3.0):
        pretrain(square_encoder(), windows, replace(CONFIG, regulariser=weight), SCHEDULE, tmp_path / str(weight))
        spread[weight] = log_of(tmp_path / str(weight))[-1]["std"]
    assert spread[0.0] < 0.5 * spread[3.0]


def test_an_interrupted_run_ends_as_one_that_never_stopped(
    tmp_path: Path, windows: LogWindows, square_encoder: Callable[[], TinyEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = replace(SCHEDULE, steps=14, checkpoint_every=5)
    whole = square_encoder()
    pretrain(whole, windows, CONFIG, schedule, tmp_path / "whole")
    draw: Callable[..., Any] = LogWindows.draw
    calls = []

    def failing(self: LogWindows, rng: np.random.Generator, n: int) -> Any:
        calls.append(n)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return draw(self, rng, n)

    halves = square_encoder()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogWindows, "draw", failing)
        pretrain(halves, windows, CONFIG, schedule, tmp_path / "halves")
    resumed = square_encoder()
    pretrain(resumed, windows, CONFIG, schedule, tmp_path / "halves")
    assert fingerprint(resumed) == fingerprint(whole) and log_of(tmp_path / "halves") == log_of(tmp_path / "whole")
