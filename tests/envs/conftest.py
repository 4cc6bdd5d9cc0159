from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gym_pusht  # noqa: F401  (registers its environments)
import gymnasium
import numpy as np
import pytest


class Reference:
    """gym-pusht itself, put into a state without the contacts that its own reset leaves behind."""

    def __init__(self, **options: Any) -> None:
        self.env = gymnasium.make("gym_pusht/PushT-v0", **options).unwrapped
        self.env.reset(seed=0)

    def put(self, state: np.ndarray) -> None:
        env = self.env
        env._setup()
        env.agent.position, env.agent.velocity = tuple(state[:2]), tuple(state[5:7])
        env.block.angle = state[4]  # before the position, which turning about the centre of gravity would move
        env.block.position, env.block.velocity = tuple(state[2:4]), (0, 0)
        for body in (env.agent, env.block):
            env.space.reindex_shapes_for_body(body)  # its picture shows the shapes as they were last indexed

    def state(self) -> np.ndarray:
        agent, block = self.env.agent, self.env.block
        numbers = [*agent.position, *block.position, block.angle, *agent.velocity, *block.velocity]
        return np.array([*numbers, block.angular_velocity])

    def picture(self) -> np.ndarray:
        return self.env.get_obs()


@pytest.fixture
def reference() -> Callable[..., Reference]:
    return Reference


@pytest.fixture
def towards_block() -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """An absolute target near the block's middle, so that most control steps are in contact."""

    def target(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        middle = state[2:4] + 45.0 * np.array([-np.sin(state[4]), np.cos(state[4])])
        return np.clip(middle + rng.normal(0.0, 60.0, 2), 20.0, 490.0)

    return target
