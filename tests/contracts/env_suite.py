"""What every registered environment promises. Derive, and parametrise with `env_id`."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

STEPS = 40


def make(env_id: str) -> Any:
    """The bare environment, without Gymnasium's wrappers."""
    return gymnasium.make(env_id, disable_env_checker=True).unwrapped


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

    def test_memory_stays_flat(self, env_id: str) -> None:
        env = make(env_id)

        def work(resets: int) -> None:
            for seed in range(resets):
                env.reset(seed=seed)
                for action in random_actions(env, STEPS, seed):
                    env.step(action)

        work(10)
        resident = resident_bytes()
        tracemalloc.start()
        try:
            work(1)
            before = tracemalloc.get_traced_memory()[0]
            work(50)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < 200_000
        assert resident_bytes() - resident < 16_000_000
