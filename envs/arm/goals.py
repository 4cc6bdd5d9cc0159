"""States of the arm's world: their layout, starts, goals, and how far one is from another."""

from __future__ import annotations

import math

import numpy as np

from wm.envs.arm.scene import CUBE_SIDE, HIGH, LOW, TOOL_RADIUS, Task

SUCCESS_M = 0.05
"""Closer than this is a success, m; as in gymnasium-robotics' Fetch tasks."""
REACH_AT_LEAST = 0.12
"""How far a goal of the reach task is from the start at least, m."""
PUSH_BY = (0.08, 0.20)
"""How far a goal of the push task has the cube from its start, m."""

STATE_NAMES: dict[Task, tuple[str, ...]] = {
    "reach": ("tool_x", "tool_y", "tool_z", "tool_vx", "tool_vy", "tool_vz"),
    "push": ("tool_x", "tool_y", "object_x", "object_y", "object_angle", "tool_vx", "tool_vy"),
}
"""Numbers of `info["state"]`, m, rad, m/s."""

_PUSH_FIRST = [0, 1, 20, 21, 25, 3, 4]
FULL: dict[Task, list[int]] = {
    "reach": list(range(20)),
    "push": _PUSH_FIRST + [index for index in range(32) if index not in _PUSH_FIRST],
}
"""Where each number of `info["full_state"]` is in `ArmPhysics.state`; those of `info["state"]` come first."""

_CUBE_INSIDE = 0.07  # m that the cube's centre keeps from the workspace's walls, so that the tip gets behind it
_APART = 0.09  # m between the tip and the cube's centre at the start; they touch at 0.065 m at most
_GAP = 0.003  # m between the tip and the cube in a goal


def distance(task: Task, state: np.ndarray, goal: np.ndarray) -> float:
    """How far the tip (reach) or the cube's centre (push) is from the goal's, m; both are `state` or `full_state`."""
    compared = slice(0, 3) if task == "reach" else slice(2, 4)
    return float(np.linalg.norm(state[compared] - goal[compared]))


def random_state(task: Task, rng: np.random.Generator) -> np.ndarray:
    """A start `state` at rest: ``(6,)`` for reach, ``(7,)`` for push."""
    if task == "reach":
        return np.concatenate([rng.uniform(LOW[task], HIGH[task]), np.zeros(3)])
    low, high = _plane()
    while True:
        tip, cube = rng.uniform(low, high), rng.uniform(low + _CUBE_INSIDE, high - _CUBE_INSIDE)
        if np.linalg.norm(tip - cube) > _APART:
            return np.array([*tip, *cube, rng.uniform(-np.pi, np.pi), 0.0, 0.0])


def target_state(task: Task, start_state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A goal that a start is not at yet.

    Args:
        task: `"reach"`: any place of the workspace 12 cm or more from the start's. `"push"`: the cube 8 to 20 cm from
            the start's along a line, and the tip behind it, as after a push along that line.
        start_state: `state` or `full_state` that the episode starts from.
        rng: Of the choice.

    Returns:
        A `state` at rest, ``(6,)`` or ``(7,)``.
    """
    if task == "reach":
        while True:
            goal = random_state(task, rng)
            if distance(task, start_state, goal) >= REACH_AT_LEAST:
                return goal
    low, high = _plane()
    centre, angle = start_state[2:4], float(start_state[4])
    middle = (low + high) / 2
    for attempt in range(1000):
        heading = rng.uniform(-np.pi, np.pi)
        if attempt >= 500:  # a cube near a wall or behind it: pushed inwards
            heading = math.atan2(*(middle - centre)[::-1])
        along = np.array([math.cos(heading), math.sin(heading)])
        cube = centre + rng.uniform(*PUSH_BY) * along
        tip = cube - (_half_width(heading - angle) + TOOL_RADIUS + _GAP) * along
        inside = cube.clip(low + _CUBE_INSIDE, high - _CUBE_INSIDE)
        if attempt >= 999 or (np.array_equal(inside, cube) and (low <= tip).all() and (tip <= high).all()):
            break
    return np.array([*tip.clip(low, high), *cube, angle, 0.0, 0.0])


def _half_width(direction: float) -> float:
    """From the cube's centre to its side in a direction [rad, from a side's normal], m."""
    return CUBE_SIDE / 2 / max(abs(math.cos(direction)), abs(math.sin(direction)))


def _plane() -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner ``(2,)`` of where the tip pushes."""
    return np.array(LOW["push"][:2]), np.array(HIGH["push"][:2])
