from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from wm.datasets.collect.chips import RandomStrokePolicy
from wm.datasets.collect.runner import Recording, record_episodes
from wm.datasets.schema import Episode
from wm.envs.chips.env import ChipsEnv

make_env = partial(ChipsEnv, image_size=16, chips=30)


@pytest.fixture(scope="module")
def played() -> list[Episode]:
    """Five episodes of 20 strokes."""
    return list(record_episodes(Recording(make_env, RandomStrokePolicy, 20, 0), 0, 5, 0))


def test_most_strokes_move_chips(played: list[Episode]) -> None:
    moved = [
        np.linalg.norm(np.diff(e.state[:, 3:].reshape(21, 30, 3)[..., :2], axis=0), axis=-1).max(1) for e in played
    ]
    assert np.mean(np.array(moved) > 0.01) > 0.8


def test_strokes_go_everywhere_in_every_direction(played: list[Episode]) -> None:
    strokes = np.concatenate([episode.actions for episode in played])
    assert strokes.dtype == np.float32 and np.abs(strokes).max() <= 1.0
    way = strokes[:, 2:] - strokes[:, :2]
    counts, _ = np.histogram(np.arctan2(way[:, 1], way[:, 0]), 4, (-np.pi, np.pi))
    assert counts.min() > 0.1 * counts.sum()
    assert np.linalg.norm(way, axis=1).std() > 0.2 and strokes[:, :2].std() > 0.3


def test_policies_of_one_seed_agree_and_of_others_differ() -> None:
    state = make_env().reset(seed=0)[1]["state"]
    strokes = [np.stack([policy(state) for _ in range(10)]) for policy in map(RandomStrokePolicy, (1, 1, 2))]
    np.testing.assert_array_equal(strokes[0], strokes[1])
    assert np.abs(strokes[0] - strokes[2]).max() > 0.05
