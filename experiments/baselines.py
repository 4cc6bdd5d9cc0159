"""Baselines that do not plan; an episode counts for them as for a planner."""

from __future__ import annotations

import numpy as np

from wm.planners.guardrails import Guardrail
from wm.specs import ActionSpec


class NoOp:
    """Does nothing: the zero action, which leaves a robot with relative actions where it is.

    Args:
        action: One control step's action.
    """

    def __init__(self, action: ActionSpec) -> None:
        self.action = action
        self.guardrails: list[Guardrail] = []

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Looks at nothing."""

    def plan(self) -> tuple[None, np.ndarray]:
        """No plan, and one zero action ``(1, W)``."""
        return None, np.zeros((1, self.action.width), np.float32)


class RandomActions:
    """Uniform in the action box, drawn anew for every control step (not held over a latent step).

    Args:
        action: One control step's action.
        seed: Of the draws.
    """

    def __init__(self, action: ActionSpec, seed: int) -> None:
        self.low, self.high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        self.rng = np.random.default_rng(seed)
        self.guardrails: list[Guardrail] = []

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Looks at nothing."""

    def plan(self) -> tuple[None, np.ndarray]:
        """No plan, and one random action ``(1, W)``, raw units."""
        return None, self.rng.uniform(self.low, self.high).astype(np.float32)[None]
