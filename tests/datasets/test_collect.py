from __future__ import annotations

import multiprocessing
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm.datasets.collect.pusht import BlockSeekingPolicy
from wm.datasets.collect.runner import Recording, episode_seed, record, record_episodes
from wm.datasets.reader import EpisodeStore
from wm.datasets.schema import DatasetSpec, Episode
from wm.datasets.writer import EpisodeWriter
from wm.envs.pusht.env import PushTEnv
from wm.errors import StoreError

make_env = partial(PushTEnv, image_size=16)


def recording(seed: int = 0, steps: int = 20, **changes: Any) -> Recording:
    return Recording(
        **{"make_env": make_env, "make_policy": BlockSeekingPolicy, "steps": steps, "seed": seed, **changes}
    )


def same(one: Episode, other: Episode) -> bool:
    return one.seed == other.seed and all(np.array_equal(a, other.arrays()[name]) for name, a in one.arrays().items())


def stored(path: Path, run: Recording, episodes: int, workers: int) -> str:
    """Record into a store, after what is already in it; its fingerprint."""
    spec = DatasetSpec(env=make_env().env_spec, image_size=16)
    with EpisodeWriter(path, spec, resume=True) as writer:
        for episode in record_episodes(run, len(writer), episodes, workers):
            writer.append(episode)
    return EpisodeStore(path).fingerprint()


@pytest.fixture(scope="module")
def played() -> list[Episode]:
    """Ten episodes of 100 control steps."""
    return list(record_episodes(recording(steps=100), 0, 10, 0))


def test_an_episode_holds_what_the_environment_did(played: list[Episode]) -> None:
    env = make_env()
    for episode in played[:3]:
        observation, info = env.reset(seed=episode.seed)
        for t in range(101):
            np.testing.assert_array_equal(episode.state[t], info["state"])
            np.testing.assert_array_equal(episode.frames[t], observation["image"])
            assert episode.proprio is not None
            np.testing.assert_array_equal(episode.proprio[t], observation["proprio"])
            if t < 100:
                observation, _, _, _, info = env.step(episode.actions[t])


def test_the_block_is_moved_in_most_of_the_time(played: list[Episode]) -> None:
    shift = [np.linalg.norm(e.state[-1, 2:4] - e.state[0, 2:4]) for e in played]
    moving = [np.abs(np.diff(e.state[:, 2:5], axis=0)).max(1) > 1e-3 for e in played]
    assert np.mean(shift) > 60.0 and np.mean(np.array(shift) > 20.0) >= 0.8
    assert np.mean(moving) > 0.25 and np.mean(moving) < 0.9  # there is free motion, too
    turned = [np.ptp(e.state[:, 4]) for e in played]
    assert np.mean(turned) > 0.5


def test_actions_are_in_bounds_and_the_pusher_stays_inside(played: list[Episode]) -> None:
    for episode in played:
        assert episode.actions.dtype == np.float32 and np.abs(episode.actions).max() <= 1.0
        assert episode.state[:, :2].min() >= 15.0 and episode.state[:, :2].max() <= 497.0
        assert ((episode.state[:, 2:4] > 0) & (episode.state[:, 2:4] < 512)).all()
    assert np.std([episode.actions for episode in played]) > 0.1


def test_the_policy_pushes_from_every_side(played: list[Episode]) -> None:
    directions = []
    for episode in played:
        steps = np.diff(episode.state[:, 2:4], axis=0)
        directions += [np.arctan2(dy, dx) for dx, dy in steps if np.hypot(dx, dy) > 1.0]
    counts, _ = np.histogram(directions, 4, (-np.pi, np.pi))
    assert counts.min() > 0.08 * counts.sum()


def test_policies_of_one_seed_agree_and_of_others_differ() -> None:
    state = np.array([100.0, 120.0, 300.0, 250.0, 0.3])
    actions = [np.stack([policy(state) for _ in range(30)]) for policy in map(BlockSeekingPolicy, (1, 1, 2))]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert np.abs(actions[0] - actions[2]).max() > 0.05


def test_noise_is_adjustable() -> None:
    state = np.array([100.0, 120.0, 300.0, 250.0, 0.3])
    calm, wild = (BlockSeekingPolicy(1, noise) for noise in (0.0, 0.4))
    spread = [np.abs(np.diff([policy(state) for _ in range(6)], axis=0)).mean() for policy in (calm, wild)]
    assert spread[0] < 1e-6 < spread[1]


def test_episode_seeds_depend_on_run_and_index() -> None:
    seeds = [episode_seed(run, index) for run in range(5) for index in range(40)]
    assert len(set(seeds)) == 200 and seeds == [episode_seed(run, index) for run in range(5) for index in range(40)]


def test_a_later_start_gives_the_same_later_episodes() -> None:
    whole = list(record_episodes(recording(), 0, 5, 0))
    rest = list(record_episodes(recording(), 3, 5, 0))
    assert len(whole) == 5 and len(rest) == 2
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))
    assert not same(whole[0], next(record_episodes(recording(seed=1), 0, 1, 0)))


def test_workers_and_interruptions_do_not_change_the_store(tmp_path: Path) -> None:
    alone = stored(tmp_path / "alone", recording(), 11, 0)
    assert stored(tmp_path / "workers", recording(), 2, 0) != alone
    assert stored(tmp_path / "workers", recording(), 11, 2) == alone
    EpisodeStore(tmp_path / "workers").verify()


def test_a_dead_worker_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(StoreError, match="a worker process died; the episodes recorded before are kept"):
        list(record_episodes(recording(make_env=partial(os._exit, 3)), 0, 3, 1))


def test_processes_of_others_survive_when_recording_ends_early() -> None:
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
    other.start()
    try:
        episodes = record_episodes(recording(steps=200), 0, 100, 1)
        next(episodes)
        assert len(multiprocessing.active_children()) == 2
        episodes.close()  # type: ignore[attr-defined]
        end = time.monotonic() + 30
        while multiprocessing.active_children() != [other] and time.monotonic() < end:
            time.sleep(0.01)  # not joined: the pool's own thread does, and the loser of the two knows no exit code yet
        assert multiprocessing.active_children() == [other]
    finally:
        other.kill()


def test_an_environment_without_proprioception() -> None:
    class Blind(PushTEnv):
        def _observation(self) -> dict[str, np.ndarray]:
            return {"image": self._picture()}

    assert record(Blind(image_size=16), BlockSeekingPolicy(0), 3, 0).proprio is None
