from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wm.datasets.windows import WindowIndex, held_out_episodes
from wm.errors import BadInputError

small = st.integers(1, 4)
lengths = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(lengths=lengths, history=small, horizon=small, frameskip=small)
def test_windows_are_all_windows_and_stay_inside_their_episode(lengths, history, horizon, frameskip):
    span = (history - 1 + horizon) * frameskip
    expected = [(e, s) for e, t in enumerate(lengths) for s in range(t - span + 1)]
    assume(expected)
    index = WindowIndex(np.array(lengths), history, horizon, frameskip)
    episodes, starts = index.locate(np.arange(len(index)))
    assert list(zip(episodes.tolist(), starts.tolist(), strict=True)) == expected
    observations = [(e, t) for e, n in enumerate(lengths) for t in range(n + 1)]  # row of the whole: its place
    actions = [(e, t) for e, n in enumerate(lengths) for t in range(n)]
    rows = index.observation_index(episodes, starts)
    steps = index.action_index(episodes, starts)
    assert rows.shape == (len(index), history + horizon)
    assert steps.shape == (len(index), history + horizon - 1, frameskip)
    for w, (e, s) in enumerate(expected):
        assert [observations[r] for r in rows[w]] == [(e, s + k * frameskip) for k in range(history + horizon)]
        assert [actions[r] for r in steps[w].ravel()] == [(e, s + k) for k in range(span)]


def test_sampling_is_seeded_and_uniform():
    index = WindowIndex(np.array([10, 3, 30]), 2, 1, 2)
    first, again = (index.sample(np.random.default_rng(1), 20000) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    share = np.bincount(first[0], minlength=3) / 20000
    assert share[1] == 0.0
    assert share == pytest.approx([7 / 34, 0, 27 / 34], abs=0.015)


def test_split_is_by_episode_and_keeps_every_window():
    index = WindowIndex(np.full(50, 10), 2, 2, 2)
    train, held = index.split(0.2, seed=3)
    assert not set(train.episodes) & set(held.episodes)
    assert set(train.episodes) | set(held.episodes) == set(range(50))
    assert len(train) + len(held) == len(index)
    assert set(held.sample(np.random.default_rng(0), 1000)[0]) <= set(held.episodes)
    rows = held.observation_index(*held.sample(np.random.default_rng(0), 100))
    assert set((rows // 11).ravel()) <= set(held.episodes)  # the offsets are those of the whole store


@given(count=st.integers(100, 400), more=st.integers(1, 400), fraction=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_episodes_keep_their_side_when_the_store_grows(count, more, fraction, seed):
    before, after = held_out_episodes(count, fraction, seed), held_out_episodes(count + more, fraction, seed)
    assert np.array_equal(before, after[:count])
    assert before.mean() == pytest.approx(fraction, abs=0.25)


def test_both_sides_of_a_split_have_an_episode():
    for seed in range(50):
        assert sorted(held_out_episodes(2, 0.01, seed)) == [False, True]
        assert not held_out_episodes(5, 0.0, seed).any() and held_out_episodes(5, 1.0, seed).all()


def test_impossible_windows_are_refused():
    with pytest.raises(BadInputError, match="an episode of at least 30 control steps, came 29"):
        WindowIndex(np.array([29, 3]), 2, 5, 5)
    with pytest.raises(BadInputError, match="expected an episode of at least 5 control steps, came 0"):
        WindowIndex(np.array([], np.int64), 1, 1, 5)
    with pytest.raises(BadInputError, match="expected history >= 1, came 0"):
        WindowIndex(np.array([29]), 0, 5, 5)
    with pytest.raises(BadInputError, match="expected episodes in 0 … 0, came"):
        WindowIndex(np.array([29]), 1, 1, 1, np.array([1]))
    with pytest.raises(BadInputError, match="held-out fraction: expected 0 to 1, came 1.5"):
        WindowIndex(np.array([29, 29]), 1, 1, 1).split(1.5, 0)
