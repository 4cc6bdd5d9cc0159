from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.checkpoint import load_tensors
from wm.encoders.base import fingerprint
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError
from wm.fit import FitConfig
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.losses import straightening
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


@pytest.mark.parametrize("options", [{}, {"straightening": 0.1, "inverse": 0.2}])
def test_an_interrupted_run_ends_as_one_that_never_stopped(
    options: dict[str, float],
    tmp_path: Path,
    pushed_square: Callable[..., LogWindows],
    square_encoder: Callable[[], TinyEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(CONFIG, schedule=replace(CONFIG.schedule, steps=9, checkpoint_every=3), **options)
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


def latents_of(encoder: TinyEncoder, joint: JointModel[StateHead], windows: LogWindows) -> Tensor:
    """Latents ``(10, 11, L)`` of the log's ten episodes, every other frame: a latent step is two control steps."""
    states = states_of(encoder, joint.head, torch.from_numpy(np.asarray(windows.log.observations)))
    return states.unflatten(0, (10, 21))[:, ::2].clone()


def test_without_the_options_nothing_of_them_is_there(
    tmp_path: Path,
    pushed_square: Callable[..., LogWindows],
    square_encoder: Callable[[], TinyEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wm.refine.straightening", None)
    monkeypatch.setattr("wm.refine.InverseDynamics", None)
    windows, encoder, joint = pushed_square(), square_encoder(), joint_model()
    config = replace(CONFIG, straightening=0.0, inverse=0.0, schedule=replace(CONFIG.schedule, steps=3))
    targets = anchors(encoder, joint.head, windows)
    drawn = torch.get_rng_state()
    refine(encoder, joint, windows, targets, config, tmp_path)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert log_of(tmp_path)[-1].keys() == {"loss", "prediction", "share_of_copy", "moved", "step"}
    names = load_tensors(tmp_path / "refine.ckpt.safetensors")[0]
    assert not any("inverse" in name for name in names)
    assert config.options() == {}


@pytest.mark.parametrize("name", ["straightening", "inverse"])
def test_an_option_adds_its_weighted_term_to_the_first_loss(
    name: str,
    tmp_path: Path,
    pushed_square: Callable[..., LogWindows],
    square_encoder: Callable[[], TinyEncoder],
) -> None:
    found = {}
    for weight in (0.0, 0.3):
        windows, encoder, joint = pushed_square(), square_encoder(), joint_model()
        targets = anchors(encoder, joint.head, windows)
        config = replace(CONFIG, schedule=replace(CONFIG.schedule, steps=2), **{name: weight})
        refine(encoder, joint, windows, targets, config, tmp_path / str(weight))
        found[weight] = log_of(tmp_path / str(weight))[0]
    assert found[0.3][name] > 0.1 and found[0.3]["prediction"] == found[0.0]["prediction"]
    assert found[0.3]["loss"] == pytest.approx(found[0.0]["loss"] + 0.3 * found[0.3][name], rel=1e-5)


def test_a_straightened_way_bends_less(
    tmp_path: Path, pushed_square: Callable[..., LogWindows], square_encoder: Callable[[], TinyEncoder]
) -> None:
    bends = {}
    for weight in (0.0, 100.0):  # the anchor is hundreds away at first
        windows, encoder, joint = pushed_square(), square_encoder(), joint_model()
        targets = anchors(encoder, joint.head, windows)
        refine(encoder, joint, windows, targets, replace(CONFIG, straightening=weight), tmp_path / str(weight))
        bends[weight] = float(straightening(latents_of(encoder, joint, windows)))
    assert bends[100.0] < 0.8 * bends[0.0]


def test_the_action_is_told_from_the_latents_alone(
    tmp_path: Path, pushed_square: Callable[..., LogWindows], square_encoder: Callable[[], TinyEncoder]
) -> None:
    windows, encoder, joint = pushed_square(), square_encoder(), joint_model()
    targets = anchors(encoder, joint.head, windows)
    refine(encoder, joint, windows, targets, replace(CONFIG, inverse=100.0), tmp_path)
    log = log_of(tmp_path)
    assert log[0]["inverse"] > 0.8 and log[-1]["inverse"] < 0.75 * log[0]["inverse"]
    first = load_tensors(tmp_path / "refine.ckpt.safetensors")[0]["module.inverse.layers.0.weight"]
    assert first.shape[1] == 2 * 6  # of the state vectors' eight numbers six are the latent


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["straightening", "inverse"])
def test_a_weight_out_of_range_is_refused_before_anything_is_written(
    name: str,
    value: float,
    tmp_path: Path,
    pushed_square: Callable[..., LogWindows],
    square_encoder: Callable[[], TinyEncoder],
) -> None:
    windows, encoder, joint = pushed_square(), square_encoder(), joint_model()
    targets = anchors(encoder, joint.head, windows)
    with pytest.raises(BadInputError, match=rf"^{name}: expected a finite number >= 0, came {value}\.$"):
        refine(encoder, joint, windows, targets, replace(CONFIG, **{name: value}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
