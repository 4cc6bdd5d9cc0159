from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.encoders.base import fingerprint
from wm.encoders.tiny import TinyEncoder
from wm.fit import FitConfig
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.predictor import Predictor
from wm.refine import RefineConfig, refine
from wm.state_head import StateHead
from wm.train import states_of

CONFIG = RefineConfig(0.1, 2, FitConfig(steps=40, batch=16, learning_rate=2e-3, warmup=3, log_every=1))


def joint_model() -> JointModel[StateHead]:
    """Of six numbers a frame and two of proprioception, not trained."""
    torch.manual_seed(1)
    return JointModel(StateHead(2, 8, 1, 6), Predictor(8, 4, 2, 32, 1))


def anchors(encoder: TinyEncoder, head: StateHead, windows: LogWindows) -> Tensor:
    """The head's states, and an error that comes and goes from frame to frame."""
    states = states_of(encoder, head, torch.from_numpy(np.asarray(windows.log.observations)))
    return states / states.std(0) + 0.3 * torch.randn(states.shape, generator=torch.Generator().manual_seed(2))


def log_of(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "refine.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def test_states_become_predictable_near_where_they_were(
    tmp_path: Path, pushed_square: Callable[..., LogWindows], square_encoder: Callable[[], TinyEncoder]
) -> None:
    windows, encoder, joint = pushed_square(), square_encoder(), joint_model()
    before, targets = fingerprint(encoder), anchors(encoder, joint.head, windows)
    refine(encoder, joint, windows, targets, CONFIG, tmp_path)
    log = log_of(tmp_path)
    assert fingerprint(encoder) != before and not encoder.training
    assert not any(p.requires_grad for p in [*encoder.parameters(), *joint.parameters()])
    assert log[-1]["moved"] < 0.5 * log[0]["moved"] and log[-1]["share_of_copy"] < log[0]["share_of_copy"]


def test_a_weaker_anchor_moves_farther_and_predicts_better(
    tmp_path: Path, pushed_square: Callable[..., LogWindows], square_encoder: Callable[[], TinyEncoder]
) -> None:
    found = {}
    for weight in (0.0, 1.0):
        windows, encoder, joint = pushed_square(), square_encoder(), joint_model()
        targets = anchors(encoder, joint.head, windows)
        refine(encoder, joint, windows, targets, replace(CONFIG, anchor=weight), tmp_path / str(weight))
        found[weight] = log_of(tmp_path / str(weight))[-1]
    assert found[0.0]["moved"] > 2 * found[1.0]["moved"] and found[0.0]["prediction"] < found[1.0]["prediction"]


def test_an_interrupted_run_ends_as_one_that_never_stopped(
    tmp_path: Path,
    pushed_square: Callable[..., LogWindows],
    square_encoder: Callable[[], TinyEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(CONFIG, schedule=replace(CONFIG.schedule, steps=9, checkpoint_every=3))
    windows, cut, calls = pushed_square(), LogWindows.cut, []
    targets = anchors(square_encoder(), joint_model().head, windows)

    def run(out: Path) -> str:
        encoder, joint = square_encoder(), joint_model()
        refine(encoder, joint, windows, targets, config, out)
        return fingerprint(encoder) + fingerprint(joint)

    def failing(self: LogWindows, *place: np.ndarray) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return cut(self, *place)

    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogWindows, "cut", failing)
        run(tmp_path / "halves")
    assert run(tmp_path / "halves") == whole and log_of(tmp_path / "halves") == log_of(tmp_path / "whole")
