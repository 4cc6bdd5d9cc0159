"""The arm's collection policies in the arm's world."""

from __future__ import annotations

import numpy as np

from wm.datasets.collect.arm import PushPolicy, ReachPolicy
from wm.envs.arm.env import ArmEnv


def episode(env: ArmEnv, policy: PushPolicy | ReachPolicy, seed: int, steps: int = 50) -> np.ndarray:
    """``(steps + 1, len(state))`` states."""
    states = [env.reset(seed=seed)[1]["state"]]
    for _ in range(steps):
        action = policy(states[-1])
        assert action.dtype == np.float32 and env.action_space.contains(action)
        states.append(env.step(action)[4]["state"])
    return np.array(states)


def test_pushing_moves_the_cube_and_keeps_it_in_the_workspace() -> None:
    env, moved = ArmEnv("push", image_size=16), []
    low, high = (corner[:2] for corner in env.physics.workspace)
    for seed in range(12):
        cube = episode(env, PushPolicy(seed), seed)[:, 2:4]
        moved.append(np.linalg.norm(cube - cube[0], axis=1).max() > 0.02)
        assert (cube > low - 0.04).all() and (cube < high + 0.04).all()
    assert np.mean(moved) >= 0.8
    env.close()


def test_reaching_visits_the_whole_workspace() -> None:
    env = ArmEnv("reach", image_size=16)
    low, high = env.physics.workspace
    places = np.concatenate([episode(env, ReachPolicy(seed), seed)[:, :3] for seed in range(8)])
    assert ((places.max(0) - places.min(0)) > 0.8 * (high - low)).all()
    env.close()


def test_the_same_seed_acts_the_same_and_names_differ() -> None:
    state = np.array([0.4, 0.0, 0.5, 0.1, 0.0, 0.0, 0.0])
    for policy in (PushPolicy, ReachPolicy):
        one, same, other = policy(1), policy(1), policy(2)
        actions = np.array([[each(state) for each in (one, same, other)] for _ in range(10)])
        np.testing.assert_array_equal(actions[:, 0], actions[:, 1])
        assert not np.array_equal(actions[:, 0], actions[:, 2])
    assert PushPolicy.name != ReachPolicy.name
