from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from wm.envs.pusht.env import random_state
from wm.envs.pusht.physics import FULL_STATE_NAMES, STATE_NAMES, PushTPhysics


def start(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([random_state(rng), rng.normal(0.0, 50.0, 2), np.zeros(3)])


@pytest.mark.parametrize("seed", range(6))
def test_follows_gym_pusht_through_contacts(
    seed: int, reference: Callable[..., Any], towards_block: Callable[..., np.ndarray]
) -> None:
    rng, ours, theirs = np.random.default_rng(seed), PushTPhysics(), reference(obs_type="state")
    ours.set_state(start(seed))
    theirs.put(start(seed))
    moved = 0
    for _ in range(100):
        before, target = ours.state(), towards_block(ours.state(), rng)
        ours.step(tuple(target.tolist()))
        theirs.env.step(target)
        np.testing.assert_allclose(ours.state(), theirs.state(), rtol=0, atol=1e-6)
        moved += np.abs(ours.state()[2:5] - before[2:5]).max() > 1e-2
    assert moved >= 30


def test_a_state_of_the_simulation_is_given_back_to_the_last_bit(towards_block: Callable[..., np.ndarray]) -> None:
    physics, other = PushTPhysics(), PushTPhysics()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        physics.set_state(start(seed))
        for _ in range(30):
            physics.step(tuple(towards_block(physics.state(), rng).tolist()))
            other.set_state(physics.state())
            np.testing.assert_array_equal(other.state(), physics.state())
    assert FULL_STATE_NAMES[:7] == STATE_NAMES and len(FULL_STATE_NAMES) == 10


def test_any_state_is_given_back_to_rounding() -> None:
    physics, rng = PushTPhysics(), np.random.default_rng(0)
    for _ in range(50):
        state = rng.uniform(60, 450, 10)
        state[4] = rng.uniform(-7.0, 7.0)
        physics.set_state(state)
        np.testing.assert_allclose(physics.state(), state, rtol=0, atol=1e-12)


def test_missing_velocities_are_zero() -> None:
    physics = PushTPhysics()
    physics.set_state(np.arange(100.0, 110.0))
    physics.set_state(np.array([60.0, 70.0, 200.0, 210.0, 1.0]))
    np.testing.assert_array_equal(physics.state(), [60, 70, 200, 210, 1, 0, 0, 0, 0, 0])
    physics.set_state(np.array([60.0, 70.0, 200.0, 210.0, 1.0, 5.0, -6.0]))
    np.testing.assert_array_equal(physics.state(), [60, 70, 200, 210, 1, 5, -6, 0, 0, 0])


def test_what_happened_before_set_state_leaves_no_trace(towards_block: Callable[..., np.ndarray]) -> None:
    used, fresh, rng = PushTPhysics(), PushTPhysics(), np.random.default_rng(1)
    used.set_state(start(1))
    for _ in range(60):
        target = towards_block(used.state(), rng)
        used.step(tuple(target.tolist()))
    state = used.state()
    used.set_state(state)
    fresh.set_state(state)
    for _ in range(40):
        target = towards_block(fresh.state(), rng)
        used.step(tuple(target.tolist()))
        fresh.step(tuple(target.tolist()))
        np.testing.assert_array_equal(used.state(), fresh.state())
    assert np.linalg.norm(fresh.state()[2:4] - state[2:4]) > 5.0


def test_restoring_a_state_seldom_changes_the_next_step(towards_block: Callable[..., np.ndarray]) -> None:
    """The solver's cached contacts are forgotten, which matters only where the block is jammed."""
    whole, restored, differences = PushTPhysics(), PushTPhysics(), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        whole.set_state(start(seed))
        for _ in range(30):
            state = whole.state()
            push = towards_block(state, rng) - state[:2]
            target = tuple((state[:2] + 40.0 * push / np.linalg.norm(push)).tolist())
            restored.set_state(state)
            whole.step(target)
            restored.step(target)
            differences.append(np.abs(whole.state()[:4] - restored.state()[:4]).max())
    assert np.quantile(differences, 0.8) < 0.2, np.quantile(differences, [0.5, 0.8, 0.9, 1])
