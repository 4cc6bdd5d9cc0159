"""What every registered environment promises. Derive, and parametrise with `env_id`."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import time
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import wm.envs  # noqa: F401  (registers its environments, in worker processes as well)
from wm.errors import BadInputError

STEPS = 40

GOLDEN_TOLERANCE = 2.0
"""Levels of 255 by which a patch's mean colour may differ from the recorded one: drivers round edges differently."""

_PUSHT = (
    "d1d8dfeaedf0fdfdfdfdfdfdfbfbfbe7ebeefcfdfdf7f9fefafbfffdfdfdfdfdfdfffffffffffffffffffdfdfd"
    "fdfdfdfffffffffffffffffffdfdfdfbfbfbfdfdfdfdfdfdfdfdfdfbfbfb"
)
_CHIPS = (
    "c4c0b8d5cec7d2c3bad3c9c1c2b7afd3c6bee9dfd7e5d1c8eae1d9d6d2cad5d0c8e8dcd3eae1dae8dcd3d3c8c0"
    "d5cec7eae1d9e8dad2e8dbd2d5cfc7c3bbb4d5cec6d5cec7d3c6bdc4bfb8"
)
_CHIPS_GL = (
    "bfbab3d2cbc4cfc2b9d1c7bfbdb3abd0c5bdeae0d8e6d3caeae2dad3cfc8d2cdc5e9ddd5eae2dbe9ded6d1c7bf"
    "d2cbc4eae3dbe8dcd4e8dcd3d2ccc4beb7afd2cbc4d2ccc4d0c3bbbfbab3"
)
_ARM_REACH = (
    "fffffff4f7fba9a3afd7beb1789cd2ffffffe5ccbddfdbdee6e6e63d4550fffffff3efeceae7e3bbbbbb77777b"
    "ffffffeae6dae0d6c5cbc7bdd1d1d3fffffff1efe6e2ddcce6e2d6fbfbf9"
)
_ARM_PUSH = (
    "ffffffc4ac9cfefdfdffffff939396fafaf7d5d4cec8d0e1e5e5e2808084e2decdddc7b8d5d4cbe1ddcdb1b0ac"
    "e8e5d9e3decde3decde3decde5e1d1f2f1ebe3decdddd8c8e2ded2eae8e1"
)

GOLDEN: dict[str, list[tuple[dict[str, str], str]]] = {
    "wm/PushT-v0": [({}, _PUSHT)],
    "wm/Chips-v0": [
        ({"renderer": "raster"}, _CHIPS),
        ({"renderer": "egl"}, _CHIPS_GL),
        ({"renderer": "osmesa"}, _CHIPS_GL),
    ],
    "wm/ArmReach-v0": [({}, _ARM_REACH)],
    "wm/ArmPush-v0": [({}, _ARM_PUSH)],
}
"""Environment to its ways of drawing, each with the `fingerprint` of its first picture with seed 0, as hex."""


def make(env_id: str, **options: Any) -> Any:
    """The bare environment, without Gymnasium's wrappers."""
    return gymnasium.make(env_id, disable_env_checker=True, **options).unwrapped


def random_actions(env: Any, count: int, seed: int = 0) -> np.ndarray:
    """``(count, A)`` uniform in the action box, slowly varying, so that something is pushed."""
    rng, box = np.random.default_rng(seed), env.action_space
    corners = rng.uniform(box.low, box.high, (count // 8 + 2, *box.shape))
    return np.repeat(corners, 8, axis=0)[:count].astype(box.dtype)


def play(env: Any, actions: np.ndarray) -> list[tuple[np.ndarray, dict[str, np.ndarray], float]]:
    """Full state, observation and reward after each action."""
    steps = []
    for action in actions:
        observation, reward, _, _, _ = env.step(action)
        steps.append((env.get_state(), observation, reward))
    return steps


def require_same(one: list[Any], other: list[Any]) -> None:
    """Two plays are equal to the last bit, pictures included."""
    assert len(one) == len(other) > 0
    for (state, observation, reward), (state_, observation_, reward_) in zip(one, other, strict=True):
        np.testing.assert_array_equal(state, state_)
        assert reward == reward_ and observation.keys() == observation_.keys()
        for key in observation:
            np.testing.assert_array_equal(observation[key], observation_[key])


def fingerprint(picture: np.ndarray) -> np.ndarray:
    """``(5, 5, 3)`` uint8 mean colours of the picture's patches."""
    return cv2.resize(picture, (5, 5), interpolation=cv2.INTER_AREA)


def first_picture(env_id: str, options: dict[str, str]) -> np.ndarray | str:
    """The picture of seed 0, or why this machine cannot draw it."""
    try:
        env = make(env_id, **options)
    except BadInputError as error:
        return str(error)
    return env.reset(seed=0)[0]["image"]


def episode_digest(env_id: str, seed: int) -> str:
    """SHA-256 of every state and picture of an episode."""
    env, digest = make(env_id), hashlib.sha256()
    env.reset(seed=seed)
    for state, observation, _ in play(env, random_actions(env, STEPS, seed)):
        digest.update(state.tobytes() + observation["image"].tobytes())
    return digest.hexdigest()


def in_new_processes(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The results of `work` in spawned processes, one for each tuple of arguments."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        return [job.result() for job in [pool.submit(work, *each) for each in arguments]]


def exercise(env: Any, resets: int, steps: int) -> None:
    """So many episodes of so many steps."""
    for seed in range(resets):
        env.reset(seed=seed)
        for action in random_actions(env, steps, seed):
            env.step(action)


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class EnvContract:
    """Derive, and give every test an `env_id`."""

    def test_same_seed_and_actions_give_the_same_episode(self, env_id: str) -> None:
        one, other = make(env_id), make(env_id)
        actions = random_actions(one, STEPS)
        plays = []
        for env in (one, other):
            env.reset(seed=11)
            plays.append(play(env, actions))
        require_same(*plays)
        one.reset(seed=12)
        assert not np.array_equal(play(one, actions)[0][0], plays[0][0][0])

    def test_observations_are_inside_their_space(self, env_id: str) -> None:
        env = make(env_id)
        observation, _ = env.reset(seed=0)
        for seen in [observation, *(step[1] for step in play(env, random_actions(env, STEPS)))]:
            assert env.observation_space.contains(seen)
            assert seen["image"].dtype == np.uint8
            assert all(np.isfinite(value).all() for value in seen.values())
            assert seen["image"].std() > 1.0

    def test_spec_tells_the_widths_and_bounds(self, env_id: str) -> None:
        env = make(env_id)
        observation, info = env.reset(seed=0)
        spec = env.env_spec
        np.testing.assert_array_equal(env.action_space.low, np.float32(spec.action.low))
        np.testing.assert_array_equal(env.action_space.high, np.float32(spec.action.high))
        assert env.action_space.shape == (spec.action.width,)
        assert (env.action_space.low < env.action_space.high).all() and spec.action.control_hz > 0
        assert info["state"].shape == (len(spec.state_names),)
        assert ("proprio" in observation) == (spec.proprio is not None)
        if spec.proprio is not None:
            assert (
                observation["proprio"].shape == (spec.proprio.width,) and len(spec.proprio.units) == spec.proprio.width
            )

    def test_actions_outside_the_box_are_clipped(self, env_id: str) -> None:
        inside, outside = make(env_id), make(env_id)
        span = inside.action_space.high - inside.action_space.low
        inside.reset(seed=1)
        outside.reset(seed=1)
        at_bound = play(inside, inside.action_space.high[None])
        require_same(play(outside, (outside.action_space.high + 10 * span)[None]), at_bound)

    def test_set_state_restores_the_state_and_the_picture(self, env_id: str) -> None:
        env = make(env_id)
        env.reset(seed=2)
        actions = random_actions(env, STEPS, seed=2)
        *_, (state, observation, _) = play(env, actions)
        env.set_state(env.get_state())
        np.testing.assert_array_equal(env.get_state(), state)
        np.testing.assert_array_equal(env.render(), observation["image"])
        first = play(env, actions)
        fresh = make(env_id)
        fresh.reset(seed=99)
        fresh.set_state(state)
        require_same(first, play(fresh, actions))
        env.reset(options={"state": state})
        require_same(first, play(env, actions))

    def test_environments_in_one_process_do_not_disturb_each_other(self, env_id: str) -> None:
        alone, together, other = make(env_id), make(env_id), make(env_id)
        alone.reset(seed=3)
        together.reset(seed=3)
        other.reset(seed=4)
        actions = random_actions(alone, STEPS, seed=3)
        expected, interleaved = play(alone, actions), []
        for action in actions:
            interleaved += play(together, action[None])
            play(other, -action[None])
        require_same(interleaved, expected)

    def test_observations_and_states_are_copies(self, env_id: str) -> None:
        env = make(env_id)
        observation, info = env.reset(seed=5)
        state, picture = env.get_state(), env.render()
        for array in (*observation.values(), info["state"], env.get_state(), env.render()):
            array[...] = 0
        np.testing.assert_array_equal(env.get_state(), state)
        np.testing.assert_array_equal(env.render(), picture)

    def test_passes_gymnasiums_checker(self, env_id: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unbounded proprioception
            check_env(make(env_id))

    def test_success_is_symmetric_and_knows_no_full_turns(self, env_id: str) -> None:
        env = make(env_id)
        angles = [i for i, name in enumerate(env.env_spec.state_names) if name.endswith("angle")]
        states = []
        for seed in range(3):
            states.append(env.reset(seed=seed)[1]["state"])
            states += [state[: len(states[0])] for state, _, _ in play(env, random_actions(env, 5, seed))]
        verdicts = set()
        for one in states:
            for other in states:
                verdict = self.is_success(env, one, other)
                turned = one.copy()
                turned[angles] += 2 * math.pi * np.resize([1, -2, 3], len(angles))
                assert verdict == self.is_success(env, other, one) == self.is_success(env, turned, other)
                verdicts.add(verdict)
        assert verdicts == {True, False}

    @staticmethod
    def is_success(env: Any, state: np.ndarray, goal: np.ndarray) -> bool:
        return bool(env.reset(options={"state": state, "goal_state": goal})[1]["is_success"])

    def test_pictures_are_the_recorded_ones(self, env_id: str) -> None:
        ways = GOLDEN.get(env_id, [({}, "")])
        drawn = in_new_processes(first_picture, *[(env_id, options) for options, _ in ways])
        assert not isinstance(drawn[0], str), drawn[0]
        for (options, recorded), picture in zip(ways, drawn, strict=True):
            if isinstance(picture, str):
                warnings.warn(f"{env_id}: not checked, {picture}", stacklevel=1)
                continue
            found = fingerprint(picture)
            assert len(recorded) == 2 * found.size, f"record for {env_id} {options}: {found.tobytes().hex()}"
            expected = np.frombuffer(bytes.fromhex(recorded), np.uint8).reshape(found.shape)
            difference = np.abs(found.astype(float) - expected)
            assert difference.max() <= GOLDEN_TOLERANCE, f"{env_id} {options}: {found.tobytes().hex()}"

    def test_worker_processes_see_the_same_episodes(self, env_id: str) -> None:
        seeds = (6, 7)
        there = in_new_processes(episode_digest, *[(env_id, seed) for seed in seeds])
        assert there == [episode_digest(env_id, seed) for seed in seeds] and there[0] != there[1]

    def test_rates_are_recorded(self, env_id: str, record_property: Callable[[str, object], None]) -> None:
        env = make(env_id)
        env.reset(seed=8)
        actions = random_actions(env, 50, 8)
        begun = time.perf_counter()
        play(env, actions)
        stepped = time.perf_counter()
        for _ in actions:
            env.render()
        drawn = time.perf_counter()
        rates = {"steps_per_s": 50 / (stepped - begun), "pictures_per_s": 50 / (drawn - stepped)}
        for name, rate in rates.items():
            record_property(name, rate)
        print(f"{env_id}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))

    def test_memory_stays_flat(self, env_id: str) -> None:
        env = make(env_id)
        exercise(env, 10, STEPS)
        resident = resident_bytes()
        tracemalloc.start()
        try:
            exercise(env, 1, STEPS)
            before = tracemalloc.get_traced_memory()[0]
            exercise(env, 30, STEPS // 4)  # tracing makes every step slower
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 200_000
        assert resident_bytes() - resident < 16_000_000

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_memory_stays_flat_over_10_000_steps_and_200_resets(self, env_id: str) -> None:
        env = make(env_id, image_size=32)  # pictures that are kept would still be 30 MB
        exercise(env, 20, 50)
        resident = resident_bytes()
        exercise(env, 200, 50)
        assert resident_bytes() - resident < 16_000_000
