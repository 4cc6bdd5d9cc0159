from __future__ import annotations

import numpy as np
import pytest
import torch

from wm.datasets.windows import WindowIndex
from wm.logs import Log, LogWindows, Moments, WindowSampler


def windows(tensor: bool) -> LogWindows:
    """Two episodes of 9 and 7 actions; a row holds its own number."""
    rows, steps = 10 + 8, 9 + 7
    observations = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 3, 1)
    proprio = np.stack([np.arange(rows), -np.arange(rows)], 1).astype(np.float32)
    actions = np.stack([np.arange(steps), 100 + np.arange(steps)], 1).astype(np.float32)
    log = Log(torch.from_numpy(observations) if tensor else observations, proprio, actions)
    index = WindowIndex(np.array([9, 7]), history=2, horizon=2, frameskip=2)
    return LogWindows(log, index, Moments.of(actions), Moments.of(proprio))


def test_moments_normalise_and_restore() -> None:
    values = np.random.default_rng(0).normal([5.0, -300.0], [0.1, 40.0], (5000, 2)).astype(np.float32)
    moments = Moments.of(values)
    normal = moments.normalise(torch.from_numpy(values))
    assert normal.mean(0).abs().max() < 1e-3 and (normal.std(0) - 1).abs().max() < 1e-3
    torch.testing.assert_close(moments.restore(normal), torch.from_numpy(values), rtol=1e-5, atol=1e-4)


def test_a_constant_number_becomes_zero() -> None:
    moments = Moments.of(np.full((10, 1), 7.0, np.float32))
    assert moments.std.tolist() == [1.0] and moments.normalise(torch.tensor([[7.0]])).tolist() == [[0.0]]


@pytest.mark.parametrize("tensor", [False, True])
def test_a_window_holds_its_rows_and_the_normalised_actions_between(tensor: bool) -> None:
    data = windows(tensor)
    assert isinstance(data.sampler, WindowSampler)
    batch = data.cut(np.array([0, 1]), np.array([2, 1]))
    assert batch.observations[..., 0].tolist() == [[2, 4, 6, 8], [11, 13, 15, 17]]
    assert batch.proprio is not None and data.proprio_moments is not None
    raw = data.proprio_moments.restore(batch.proprio)
    torch.testing.assert_close(raw[..., 0], batch.observations[..., 0])
    torch.testing.assert_close(raw[..., 1], -batch.observations[..., 0])
    actions = data.action_moments.restore(batch.actions.unflatten(-1, (2, 2)))
    assert batch.actions.shape == (2, 3, 4)
    assert actions[0, :, :, 0].round().tolist() == [[2, 3], [4, 5], [6, 7]]
    assert actions[1, :, :, 1].round().tolist() == [[110, 111], [112, 113], [114, 115]]


def test_no_proprioception_stays_none() -> None:
    data = windows(False)
    bare = LogWindows(Log(data.log.observations, None, data.log.actions), data.sampler, data.action_moments, None)
    assert bare.cut(np.array([0]), np.array([0])).proprio is None


def test_draws_are_seeded_and_stay_inside_episodes() -> None:
    data = windows(True)
    one, same = (data.draw(np.random.default_rng(3), 200) for _ in range(2))
    assert torch.equal(one.observations, same.observations) and torch.equal(one.actions, same.actions)
    rows = one.observations[..., 0]
    assert bool(((rows < 10).all(1) | (rows >= 10).all(1)).all()) and len(rows.unique(dim=0)) == 6
