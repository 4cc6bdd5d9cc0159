"""A policy for a robot of which nothing is known: slowly varying random actions."""

from __future__ import annotations

import numpy as np

from wm.specs import ActionSpec

_SCALES = (0.3, 2.0)  # standard deviation in half ranges; what exceeds the bounds is clipped, so full force is common
_PERSISTENCES = (1.0, 20.0)  # control steps after which an action is forgotten to 1/e


class WanderPolicy:
    """Ornstein-Uhlenbeck actions around the middle of the bounds, seeded.

    Each policy, and so each episode, draws for itself how strong its actions are (0.3 to 2 half ranges) and how long
    they persist (1 to 20 control steps), both log-uniform, so that a log has jitter and long moves, gentle and strong.

    Args:
        action_spec: The robot's action.
        seed: Seed of everything random in it.
    """

    name = "wander"

    def __init__(self, action_spec: ActionSpec, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.low, self.high = np.array(action_spec.low), np.array(action_spec.high)
        self.scale = float(np.exp(rng.uniform(*np.log(_SCALES))))
        self.memory = float(np.exp(-1.0 / np.exp(rng.uniform(*np.log(_PERSISTENCES)))))
        self.noise = rng.standard_normal(action_spec.width)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """The next action.

        Args:
            state: Ignored.

        Returns:
            ``(A,)`` float32 within the bounds, raw units.
        """
        action = (self.low + self.high) / 2 + self.scale * self.noise * (self.high - self.low) / 2
        fresh = self.rng.standard_normal(self.noise.shape)
        self.noise = self.memory * self.noise + np.sqrt(1.0 - self.memory**2) * fresh
        return np.clip(action, self.low, self.high).astype(np.float32)
