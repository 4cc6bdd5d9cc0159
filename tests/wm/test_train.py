from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from wm.fit import FitConfig
from wm.joint import JointModel
from wm.logs import Log, LogWindows, Moments
from wm.probe import error_by_horizon
from wm.train import TrainConfig, state_table, train_joint, train_predictor, window_states, with_observations

QUICK = FitConfig(steps=120, batch=64, learning_rate=5e-3, warmup=10, log_every=5, checkpoint_every=1000)
CONFIG = TrainConfig(
    frameskip=2, history=2, horizon=3, tokens=1, width=8, hidden=32, depth=1, joint=QUICK, predictor=QUICK
)


def log_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_joint_training_learns_to_predict(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows, model = drifting_dot(), dot_model()
    train_joint(model, windows, CONFIG, tmp_path)
    log = log_of(tmp_path / "joint.jsonl")
    assert mean([line["loss"] for line in log[-4:]]) < 0.6 * log[0]["loss"]
    assert mean([line["share_of_copy"] for line in log[-4:]]) < 0.5


def test_the_regulariser_prevents_collapse(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows, spread = drifting_dot(), {}
    for weight in (0.0, 3.0):
        model = dot_model()
        train_joint(model, windows, replace(CONFIG, regulariser=weight), tmp_path / str(weight))
        states = state_table(model, torch.as_tensor(windows.log.observations))
        spread[weight] = float(states.std(0).mean())
    assert spread[0.0] < 0.2 * spread[3.0] and spread[3.0] > 0.5


def test_predictor_training_leaves_the_head_alone_and_beats_copying(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows, model = drifting_dot(), dot_model()
    train_joint(model, windows, CONFIG, tmp_path)
    head = {k: v.clone() for k, v in model.head.state_dict().items()}
    states = state_table(model, torch.as_tensor(windows.log.observations))
    windows = with_observations(windows, states)
    before, copy = error_by_horizon(model, windows, 8)
    train_predictor(model, windows, CONFIG, tmp_path)
    after, copy_after = error_by_horizon(model, windows, 8)
    assert all(torch.equal(v, head[k]) for k, v in model.head.state_dict().items())
    assert copy == copy_after and len(after) == 3
    assert all(a < b for a, b in zip(after, before, strict=True)) and all(np.array(after) < 0.4 * np.array(copy))
    log = log_of(tmp_path / "predictor.jsonl")
    assert log[-1]["share_of_copy"] < log[0]["share_of_copy"]


def test_state_table_is_the_head_frame_by_frame(dot_model: Callable[[], JointModel]) -> None:
    model, tokens = dot_model(), torch.randn(23, 16, 6)
    table = state_table(model, tokens.to(torch.bfloat16), batch=5)
    assert table.shape == (23, 8) and table.dtype == torch.float32
    torch.testing.assert_close(table[7:8], model.head(tokens[7:8].to(torch.bfloat16).float()).flatten(1))


def test_window_states_put_proprioception_behind(drifting_dot: Callable[..., LogWindows]) -> None:
    windows = drifting_dot()
    rows = len(windows.log.observations)
    other = with_observations(windows, torch.arange(rows).float()[:, None].expand(-1, 8))
    assert other.sampler is windows.sampler and other.log.actions is windows.log.actions
    place = np.array([1]), np.array([3])
    states, actions = window_states(other, *place)
    assert states[0, :, 0].tolist() == other.sampler.observation_index(*place)[0].tolist()
    assert torch.equal(actions, windows.cut(*place).actions)
    proprio = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    moments = Moments.of(proprio)
    full = LogWindows(
        Log(other.log.observations, proprio, other.log.actions), other.sampler, other.action_moments, moments
    )
    both, _ = window_states(full, *place)
    assert torch.equal(both[..., :8], states)
    torch.testing.assert_close(both[0, 1, 8:], moments.normalise(torch.from_numpy(proprio))[int(states[0, 1, 0])])
