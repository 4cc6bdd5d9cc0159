"""A policy for push-T that actually moves the block.

The pusher walks to a random place beside the block, then pushes through a random point of it, then again. That gives
logs full of contact from every side, and stretches of free motion between them.
"""

from __future__ import annotations

import numpy as np

_WORLD = 512.0
_MARGIN = 25.0
_REACH_PX = 100.0  # one action unit
_CLEARANCE_PX = 90.0  # kept from the block's middle while going round it
_INNER_PX = 90.0  # further from the centre than this the block is pushed back


class BlockSeekingPolicy:
    """Noisy block-seeking, seeded.

    It alternates two phases. *Approach*: walk, round the block, to a point 70 to 150 px from the block's middle, at a
    random angle (from outside when the block has strayed from the centre), for at most 16 control steps. *Push*: aim
    at a point within 35 px of the block's middle and drive through it at a random speed for 6 to 19 control steps.
    Ornstein-Uhlenbeck noise is added throughout, and with probability 0.15 a phase is a walk to anywhere.

    Args:
        seed: Seed of everything random in it.
        noise: Standard deviation of the action noise, action units (100 px).
    """

    name = "block-seeking"

    def __init__(self, seed: int, noise: float = 0.1) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        self.drift = np.zeros(2)
        self.left = 0
        self.going_round = False
        self.pushing = bool(self.rng.random() < 0.5)
        self.waypoint = np.full(2, _WORLD / 2)
        self.speed = 1.0

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Action for a state.

        Args:
            state: ``(>= 5,)``: pusher x, y, block x, y [px], block angle [rad].

        Returns:
            ``(2,)`` float32 relative displacement in [-1, 1], 100 px per unit.
        """
        agent, middle = state[:2], _middle(state)
        arrived = not self.pushing and np.linalg.norm(self.waypoint - agent) < 25.0
        if self.left <= 0 or arrived:
            self._next_phase(agent, middle)
        self.left -= 1
        self.drift = 0.7 * self.drift + self.noise * np.sqrt(1 - 0.7**2) * self.rng.standard_normal(2)
        wanted = (self.waypoint - agent) / _REACH_PX
        if self.going_round:
            wanted = _around(wanted, agent - middle)
        length = np.linalg.norm(wanted)
        if length > self.speed:
            wanted = wanted * (self.speed / length)
        inside = np.clip(agent + _REACH_PX * (wanted + self.drift), _MARGIN, _WORLD - _MARGIN)
        return np.clip((inside - agent) / _REACH_PX, -1.0, 1.0).astype(np.float32)

    def _next_phase(self, agent: np.ndarray, middle: np.ndarray) -> None:
        rng = self.rng
        self.pushing = not self.pushing
        self.going_round = not self.pushing
        self.speed = rng.uniform(0.1, 0.5)
        if rng.random() < 0.15:
            self.waypoint, self.left = rng.uniform(_MARGIN, _WORLD - _MARGIN, 2), int(rng.integers(4, 12))
            self.going_round = False
        elif self.pushing:
            aim = middle + rng.uniform(-35.0, 35.0, 2)
            heading = (aim - agent) / (np.linalg.norm(aim - agent) + 1e-6)
            self.waypoint, self.left = aim + heading * rng.uniform(0.0, 80.0), int(rng.integers(6, 20))
        else:
            outward = middle - _WORLD / 2
            angle = rng.uniform(-np.pi, np.pi)
            if np.linalg.norm(outward) > _INNER_PX:  # come from outside, so that the push leads back inside
                angle = np.arctan2(outward[1], outward[0]) + rng.uniform(-1.2, 1.2)
            beside = rng.uniform(70.0, 150.0) * np.array([np.cos(angle), np.sin(angle)])
            self.waypoint, self.left = middle + beside, 16
        self.waypoint = np.clip(self.waypoint, _MARGIN, _WORLD - _MARGIN)


def _around(wanted: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Bend a step so that it slides around the block instead of into it; `away` points from the block to the pusher."""
    distance = float(np.linalg.norm(away)) + 1e-6
    if distance > _CLEARANCE_PX:
        return wanted
    outward = away / distance
    inward = min(0.0, float(wanted @ outward))
    tangent = wanted - inward * outward
    tangent += np.array([-outward[1], outward[0]]) * -inward * 0.5  # head-on: choose a side
    return tangent + outward * (1.0 - distance / _CLEARANCE_PX)


def _middle(state: np.ndarray) -> np.ndarray:
    """The block's centre of gravity: 45 px from its origin, along the stem."""
    return state[2:4] + 45.0 * np.array([-np.sin(state[4]), np.cos(state[4])])
