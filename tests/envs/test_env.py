from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import wm.envs
from wm.envs.pusht.draw import draw
from wm.envs.pusht.env import PushTEnv, push_t_spec, random_state
from wm.envs.pusht.physics import BAR, STEM
from wm.envs.pusht.success import block_reached, reached
from wm.errors import BadInputError

STATE = [150.0, 160.0, 300.0, 280.0, 0.7]


def distance_to_block(state: np.ndarray) -> float:
    """From the pusher's centre to the nearest point of the T, px."""
    cos, sin = np.cos(state[4]), np.sin(state[4])
    local = np.array([[cos, sin], [-sin, cos]]) @ (state[:2] - state[2:4])
    gaps = [np.maximum(0.0, np.maximum(r.min(0) - local, local - r.max(0))) for r in (BAR, STEM)]
    return float(min(np.linalg.norm(gap) for gap in gaps))


def test_passes_gymnasiums_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unbounded proprioception
        check_env(gymnasium.make("wm/PushT-v0").unwrapped)


def test_relative_actions_are_displacements_of_100_px(towards_block: Callable[..., np.ndarray]) -> None:
    relative, absolute = PushTEnv(image_size=16), PushTEnv(image_size=16, action_mode="absolute")
    rng = np.random.default_rng(0)
    for env in (relative, absolute):
        env.reset(options={"state": STATE})
    for _ in range(60):
        position = absolute.get_state()[:2]
        target = towards_block(absolute.get_state(), rng)
        action = np.clip((target - position) / 100.0, -1.0, 1.0)
        relative.step(action)
        absolute.step(position + 100.0 * action)
        np.testing.assert_allclose(relative.get_state(), absolute.get_state(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("mode", "far", "edge"), [("relative", 35.0, 1.0), ("absolute", 9000.0, 512.0)])
def test_actions_are_clipped_to_the_box(mode: Any, far: float, edge: float) -> None:
    one, other = (PushTEnv(image_size=16, action_mode=mode) for _ in range(2))
    one.reset(options={"state": STATE})
    other.reset(options={"state": STATE})
    one.step(np.array([far, far]))
    other.step(np.array([edge, edge]))
    np.testing.assert_array_equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("action", [[np.nan, 0.0], [0.0, np.inf], [0.0], [0.0, 0.0, 0.0], 0.5])
def test_refuses_an_unusable_action_and_stays_where_it_was(action: Any) -> None:
    env = PushTEnv(image_size=16)
    env.reset(options={"state": STATE})
    before = env.get_state()
    with pytest.raises(BadInputError, match="action: expected 2 finite numbers, came"):
        env.step(np.array(action))
    np.testing.assert_array_equal(env.get_state(), before)


@pytest.mark.parametrize("state", [[1.0] * 4, [1.0] * 6, [1.0] * 11, [[1.0] * 5], [1, 2, 3, 4, np.nan], "abc", None])
def test_refuses_an_unusable_state(state: Any) -> None:
    env = PushTEnv(image_size=16)
    env.reset(seed=0)
    with pytest.raises(BadInputError, match="push-T state: expected 5, 7 or 10 (finite )?numbers, came"):
        env.set_state(state)
    if state is not None:
        with pytest.raises(BadInputError, match="push-T goal_state: expected 5, 7 or 10 (finite )?numbers, came"):
            env.reset(options={"goal_state": state})


@pytest.mark.parametrize(("index", "value"), [(0, 1e6), (3, -1e6), (4, 1e30)])
def test_refuses_a_state_that_is_far_from_the_table(index: int, value: float) -> None:
    env, state = PushTEnv(image_size=16), np.array([100.0, 100.0, 300.0, 300.0, 0.5])
    state[index] = value
    with pytest.raises(BadInputError, match="expected (positions|the angle) from .* to .*, came"):
        env.reset(options={"state": state})


def test_refuses_unknown_settings() -> None:
    with pytest.raises(BadInputError, match="action_mode: expected 'relative' or 'absolute', came 'polar'"):
        inspect.unwrap(PushTEnv.__init__)(PushTEnv.__new__(PushTEnv), action_mode="polar")  # not typed, as a user's
    with pytest.raises(BadInputError, match="image_size: expected 16 to 1024 pixels, came 8"):
        PushTEnv(image_size=8)


def test_same_seed_same_start_and_other_seed_other_start() -> None:
    env = PushTEnv(image_size=16)
    starts = [env.reset(seed=seed)[1]["state"] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert np.abs(starts[0] - starts[2]).max() > 1.0
    follow_up = [env.reset()[1]["state"] for _ in range(2)]
    assert np.abs(follow_up[0] - follow_up[1]).max() > 1.0


def test_starts_are_at_rest_apart_and_in_range() -> None:
    drawn = np.stack([random_state(np.random.default_rng(seed)) for seed in range(300)])
    assert min(distance_to_block(state) for state in drawn) > 15.9
    assert (drawn[:, :2] >= 50).all() and (drawn[:, :2] < 450).all()
    assert (drawn[:, 2:4] >= 100).all() and (drawn[:, 2:4] < 400).all()
    assert (np.abs(drawn[:, 4]) <= math.pi).all()
    np.testing.assert_allclose(drawn[:, 2:4].mean(0), 250.0, atol=20.0)
    env = PushTEnv(image_size=16)
    assert not env.reset(seed=0)[1]["full_state"][5:].any()


def test_observation_and_info_describe_the_state() -> None:
    env = PushTEnv(image_size=32)
    observation, info = env.reset(options={"state": [*STATE, 10.0, -20.0]})
    for _ in range(3):
        state = env.get_state()
        np.testing.assert_array_equal(info["full_state"], state)
        np.testing.assert_array_equal(info["state"], state[:7])
        np.testing.assert_array_equal(observation["proprio"], state[[0, 1, 5, 6]].astype(np.float32))
        np.testing.assert_array_equal(observation["image"], draw(state, 32))
        np.testing.assert_array_equal(env.render(), observation["image"])
        assert set(info) == {"state", "full_state"}
        observation, reward, terminated, truncated, info = env.step(np.array([0.5, 0.2]))
        assert reward == 0.0 and not terminated and not truncated
    assert PushTEnv(render_mode=None, image_size=32).render() is None
    assert len(info["state"]) == len(env.env_spec.state_names)


def test_reports_success_only_with_a_goal() -> None:
    env, goal = PushTEnv(image_size=16), [150.0, 160.0, 300.0, 280.0, 0.7 + 2 * math.pi]
    _, info = env.reset(options={"state": STATE, "goal_state": goal})
    assert info["is_success"] and info["is_block_success"]
    env.set_state([150.0, 190.0, 300.0, 280.0, 0.7])
    _, reward, terminated, _, info = env.step(np.zeros(2))
    assert not info["is_success"] and info["is_block_success"] and reward == 0.0 and not terminated
    rewards = []
    while not terminated and len(rewards) < 10:
        _, reward, terminated, _, info = env.step(np.array([0.0, -0.2]))
        state = env.get_state()
        assert info["is_success"] == reached(state, np.array(goal)) == terminated
        assert info["is_block_success"] == block_reached(state, np.array(goal))
        rewards.append(reward)
    assert terminated and rewards == [0.0] * (len(rewards) - 1) + [1.0]
    assert "is_success" not in env.reset(seed=0)[1]


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_kinematics_tell_the_pushers_path_even_in_contact(mode: Any, towards_block: Callable[..., np.ndarray]) -> None:
    env, rng = PushTEnv(image_size=16, action_mode=mode), np.random.default_rng(5)
    env.reset(options={"state": [*STATE, 30.0, -40.0]})
    begin, visited, actions = env.get_state(), [], []
    for _ in range(10):
        state = env.get_state()
        target = towards_block(state, rng)
        action = target if mode == "absolute" else np.clip((target - state[:2]) / 100.0, -1, 1)
        env.step(action)
        actions.append(action)
        visited.append(env.get_state()[[0, 1, 5, 6]])
    path = env.kinematics.path(
        torch.from_numpy(begin[None, [0, 1, 5, 6]]), torch.from_numpy(np.array(actions).reshape(1, 1, 2, 10)), 5
    )
    ends = path.reshape(10, 10, 4)[:, -1].numpy()  # after each control step
    np.testing.assert_allclose(ends, np.array(visited), rtol=0, atol=1e-6)
    assert np.linalg.norm(env.get_state()[2:4] - begin[2:4]) > 1.0


def test_spec_states_units_and_bounds() -> None:
    relative, absolute = push_t_spec(), push_t_spec("absolute")
    assert relative.action.low == (-1.0, -1.0) and relative.action.unit == "100 px"
    assert absolute.action.high == (512.0, 512.0) and absolute.action.unit == "px"
    assert relative.proprio is not None and relative.proprio.units == ("px", "px", "px/s", "px/s")
    assert wm.envs.ENV_IDS[relative.env] == "wm/PushT-v0"
