"""Baselines that do not plan; an episode counts for them as for a planner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wm.planners.guardrails import Guardrail
from wm.specs import ActionSpec


class NoOp:
    """Does nothing: always the action that stays.

    Args:
        rest: ``(W,)`` that action, raw units.
    """

    def __init__(self, rest: np.ndarray) -> None:
        self.rest = np.asarray(rest, np.float32)
        self.guardrails: list[Guardrail] = []

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Looks at nothing."""

    def plan(self) -> tuple[None, np.ndarray]:
        """No plan, and the action ``(1, W)``."""
        return None, self.rest[None].copy()


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


class StatePolicy:
    """A policy that is not learned and looks at the simulator's true state; no picture is used.

    Args:
        policy: From the state to an action ``(W,)``, raw units.
        state: Gives the simulator's state now.
    """

    def __init__(self, policy: Callable[[np.ndarray], np.ndarray], state: Callable[[], np.ndarray]) -> None:
        self.policy, self.state = policy, state
        self.guardrails: list[Guardrail] = []

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Looks at the simulator when it acts."""

    def plan(self) -> tuple[None, np.ndarray]:
        """No plan, and the policy's action ``(1, W)``."""
        return None, np.asarray(self.policy(self.state()), np.float32)[None]
