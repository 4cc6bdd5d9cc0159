"""Training the patch form's predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wm.conftest import FRAMESKIP, GRID, HISTORY, WIDTH
from tests.wm.windows import with_observations
from wm.fit import FitConfig
from wm.joint import JointModel
from wm.logs import Log, LogWindows, Moments, draw_states
from wm.patch_dynamics import PatchDynamics
from wm.patch_head import PatchHead
from wm.probe import error_by_horizon
from wm.specs import PatchSizes
from wm.train import PROPRIO_WEIGHT, TrainConfig, field_weights, patch_config, train_patch_head, train_predictor

SIZES = PatchSizes(heads=2, head_width=8, proprio_embedding=4, action_embedding=4)
QUICK = FitConfig(steps=80, batch=16, learning_rate=2e-2, warmup=10, log_every=5, checkpoint_every=1000)
CONFIG = TrainConfig(
    form="patch", frameskip=FRAMESKIP, history=HISTORY, horizon=3, width=2, hidden=32, depth=1, patch=SIZES,
    predictor=QUICK,
)  # fmt: skip


def joint() -> JointModel[PatchHead]:
    torch.manual_seed(0)
    head = PatchHead(GRID, WIDTH, 2)
    return JointModel(head, PatchDynamics(GRID**2, 2, 1, FRAMESKIP * 2, HISTORY, 3, 32, 1, SIZES))


def prepared(windows: LogWindows, model: JointModel[PatchHead], out: Path) -> LogWindows:
    """Windows of the head's states, in half the precision as they are kept, of a robot that reports the dot's row."""
    bump = torch.as_tensor(windows.log.observations)
    train_patch_head(model.head, windows, CONFIG, out)
    row = (bump[:, 0, :1].abs().log() - bump[:, 12, :1].abs().log()).numpy()
    log = Log(bump, row, windows.log.actions)
    windows = LogWindows(log, windows.sampler, windows.action_moments, Moments.of(row))
    return with_observations(windows, model.head(bump).detach().flatten(1).bfloat16())


def test_predictor_training_beats_copying_at_every_horizon(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows]
) -> None:
    model = joint()
    windows = prepared(drifting_dot(), model, tmp_path)
    before, copy = error_by_horizon(model, windows, GRID**2 * 2, count=256)
    assert before == pytest.approx(copy, rel=1e-5)  # a fresh one copies
    train_predictor(model, windows, CONFIG, tmp_path)
    after, _ = error_by_horizon(model, windows, GRID**2 * 2, count=256)
    assert all(np.array(after) < 0.97 * np.array(copy)) and after[-1] < 0.9 * copy[-1]
    states, actions = draw_states(windows, HISTORY, np.random.default_rng(5), 64)
    assert states.dtype == torch.float32
    with torch.no_grad():
        imagined = model.predictor.prepare(states[:, :HISTORY])(actions[:, None, HISTORY - 1 :])[:, 0]
    read = (imagined - states[:, HISTORY:])[..., -1].square().mean()
    assert read < 0.2 * states[:, HISTORY:, -1].var()


def test_an_interrupted_run_ends_as_one_that_never_stopped(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, predictor=replace(QUICK, steps=9, checkpoint_every=3))
    whole, halves, resumed = joint(), joint(), joint()
    windows = prepared(drifting_dot(), whole, tmp_path / "whole")
    train_predictor(whole, windows, config, tmp_path / "whole")
    cut, calls = LogWindows.cut, []

    def failing(self: LogWindows, *place: np.ndarray) -> object:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return cut(self, *place)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogWindows, "cut", failing)
        train_predictor(halves, windows, config, tmp_path / "halves")
    train_predictor(resumed, windows, config, tmp_path / "halves")
    expected = whole.predictor.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in resumed.predictor.state_dict().items())


def test_errors_of_tokens_and_of_proprioception_count_as_means() -> None:
    weights, errors = field_weights(6, 8), torch.rand(8)
    expected = errors[:6].mean() + PROPRIO_WEIGHT * errors[6:].mean()
    assert float((weights * errors).mean()) == pytest.approx(float(expected))
    assert torch.equal(field_weights(6, 6), torch.ones(6))


def test_the_default_configuration_is_the_patch_form() -> None:
    config = patch_config()
    assert (config.form, config.history, config.horizon, config.frameskip) == ("patch", 3, 5, 5)
    assert config.patch == PatchSizes(read_out=32) and config.predictor.batch == 16
