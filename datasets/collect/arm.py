"""Policies for the arm: one goes from place to place, the other pushes the cube from every side."""

from __future__ import annotations

import numpy as np

_LOW, _HIGH = np.array([0.22, -0.25, 0.05]), np.array([0.66, 0.25, 0.45])  # m, where the tip may be
_REACH_M = 0.1  # one action unit
_CLEARANCE_M = 0.085  # kept from the cube's middle while going round it
_EDGE_M = 0.08  # nearer to a wall than this the cube is pushed inwards
_KEPT_M = 0.06  # a push ends where the cube would come nearer to a wall than this
_TOUCHING_M = 0.05  # between the tip and the cube's middle, about
_NOISE_KEPT = 0.7  # share of the noise that is left after a control step


class ReachPolicy:
    """Straight to a random place of the workspace at a random speed, then to the next, seeded.

    A place is given up after 25 control steps; now and then the tip rests at one. Ornstein-Uhlenbeck noise is added.

    Args:
        seed: Seed of everything random in it.
        noise: Standard deviation of the action noise, action units (0.1 m).
    """

    name = "random places"

    def __init__(self, seed: int, noise: float = 0.15) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        self.drift = np.zeros(3)
        self.left = 0
        self.waypoint, self.speed = np.zeros(3), 1.0

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Action for a state.

        Args:
            state: ``(>= 3,)``: the tip's x, y, z [m].

        Returns:
            ``(3,)`` float32 relative displacement in [-1, 1], 0.1 m per unit.
        """
        rng, tip = self.rng, state[:3]
        if self.left <= 0 or np.linalg.norm(self.waypoint - tip) < 0.01:
            self.waypoint, self.speed = rng.uniform(_LOW, _HIGH), rng.uniform(0.3, 1.6)
            self.left = int(rng.integers(5, 26))
        self.left -= 1
        self.drift = _drifted(self.drift, self.noise, rng)
        return _action(tip, _at_most((self.waypoint - tip) / _REACH_M, self.speed) + self.drift)


class PushPolicy:
    """Noisy cube-seeking, seeded.

    It alternates two phases. *Approach*: go, round the cube, to a point 80 to 120 mm from its middle at a random angle
    (from outside when the cube is near a wall), for at most 16 control steps. *Push*: aim at a point within 20 mm of
    the cube's middle and drive through it at a random speed for 4 to 14 control steps, or until the cube comes near a
    wall. Ornstein-Uhlenbeck noise is added throughout, and with probability 0.15 a phase is a walk to anywhere.

    Args:
        seed: Seed of everything random in it.
        noise: Standard deviation of the action noise, action units (0.1 m).
    """

    name = "cube-seeking"

    def __init__(self, seed: int, noise: float = 0.1) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        self.drift = np.zeros(2)
        self.left = 0
        self.going_round = False
        self.pushing = bool(self.rng.random() < 0.3)
        self.waypoint, self.speed = (_LOW[:2] + _HIGH[:2]) / 2, 1.0

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Action for a state.

        Args:
            state: ``(>= 4,)``: the tip's x, y and the cube's x, y [m].

        Returns:
            ``(2,)`` float32 relative displacement in [-1, 1], 0.1 m per unit.
        """
        tip, cube = state[:2], state[2:4]
        arrived = not self.pushing and np.linalg.norm(self.waypoint - tip) < 0.02
        if self.left <= 0 or arrived or (self.pushing and self._leaving(tip, cube)):
            self._next_phase(tip, cube)
        self.left -= 1
        self.drift = _drifted(self.drift, self.noise, self.rng)
        wanted = (self.waypoint - tip) / _REACH_M
        if self.going_round:
            wanted = _around(_at_most(wanted, self.speed), tip - cube)
        return _action(tip, _at_most(wanted, self.speed) + self.drift)

    def _leaving(self, tip: np.ndarray, cube: np.ndarray) -> bool:
        """Whether the push, at the cube by now, drives it on towards a wall that it is already near."""
        way = self.waypoint - tip
        near_low, near_high = cube < _LOW[:2] + _KEPT_M, cube > _HIGH[:2] - _KEPT_M
        towards = bool((near_low & (way < 0)).any() or (near_high & (way > 0)).any())
        return towards and float(np.linalg.norm(tip - cube)) < _TOUCHING_M + 0.03

    def _next_phase(self, tip: np.ndarray, cube: np.ndarray) -> None:
        rng = self.rng
        self.pushing = not self.pushing
        self.going_round = not self.pushing
        self.speed = rng.uniform(0.25, 1.0)
        if rng.random() < 0.15:
            self.waypoint, self.left = rng.uniform(_LOW[:2], _HIGH[:2]), int(rng.integers(4, 12))
            self.pushing = self.going_round = False
        elif self.pushing:
            aim = cube + rng.uniform(-0.02, 0.02, 2)
            heading = (aim - tip) / (np.linalg.norm(aim - tip) + 1e-6)
            self.waypoint, self.left = aim + heading * rng.uniform(0.0, 0.12), int(rng.integers(4, 15))
        else:
            self.speed = rng.uniform(0.6, 1.3)
            beside = rng.uniform(0.08, 0.12) * _side(cube, rng)
            self.waypoint, self.left = cube + beside, 16
        self.waypoint = np.clip(self.waypoint, _LOW[:2], _HIGH[:2])


def _side(cube: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A direction ``(2,)`` to approach from: any, or one from outside where the cube is near a wall."""
    angle = rng.uniform(-np.pi, np.pi)
    outward = (cube > _HIGH[:2] - _EDGE_M).astype(float) - (cube < _LOW[:2] + _EDGE_M)
    if outward.any():
        angle = np.arctan2(outward[1], outward[0]) + rng.uniform(-0.9, 0.9)
    return np.array([np.cos(angle), np.sin(angle)])


def _around(wanted: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Bend a step so that it slides around the cube instead of into it; `away` points from the cube to the tip."""
    distance = float(np.linalg.norm(away)) + 1e-6
    if distance > _CLEARANCE_M + 0.03:
        return wanted
    outward = away / distance
    inward = min(0.0, float(wanted @ outward))
    across = np.array([-outward[1], outward[0]])
    side = 1.0 if float(wanted @ across) >= 0 else -1.0
    slide = wanted - inward * outward - 0.7 * inward * side * across
    return slide + outward * max(0.0, 1.5 * (1.0 - distance / _CLEARANCE_M))


def _drifted(drift: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The next value of Ornstein-Uhlenbeck noise with this standard deviation."""
    fresh = rng.standard_normal(len(drift))
    return _NOISE_KEPT * drift + noise * np.sqrt(1 - _NOISE_KEPT**2) * fresh


def _at_most(wanted: np.ndarray, speed: float) -> np.ndarray:
    length = float(np.linalg.norm(wanted))
    return wanted if length <= speed else wanted * (speed / length)


def _action(tip: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The action for a wanted displacement in action units: its target in the workspace, itself in the action box."""
    low, high = _LOW[: len(tip)], _HIGH[: len(tip)]
    inside = np.clip(tip + _REACH_M * wanted, low, high)
    return np.clip((inside - tip) / _REACH_M, -1.0, 1.0).astype(np.float32)
