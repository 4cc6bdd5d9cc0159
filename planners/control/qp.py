"""The closest action to the one asked for, inside half-planes: a quadratic program of two variables."""

from __future__ import annotations

import numpy as np
import osqp
from scipy import sparse

HalfPlanes = tuple[np.ndarray, np.ndarray]
"""Normals ``(n, 2)`` and offsets ``(n,)``: actions u with ``normals @ u >= offsets``."""

_BY_HAND = 12
"""Half-planes that may come to bind one after the other before the problem is left to OSQP."""

_MOST = 40
"""Half-planes of one problem of OSQP: few, because each costs iterations."""

_BUFFER = 5e-5
"""How far inside the half-planes the solution is sought [action units], so that the solver's error stays inside."""

_ROUNDING = 1e-9
"""By how much an answer by hand may miss a half-plane [action units]; far less than the buffer."""

_FAR = 10.0
"""Widths of the action's range by which a target may be out of bounds."""

_TOLERANCE = 1e-5
"""Of the solver [action units]."""

_AXES = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])

_TIME_LIMIT = 0.02
"""Seconds after which a solution is given up; the iterations end before that unless the computer is overloaded."""


class ClosestAction:
    """``min |u - target|^2`` with ``low <= u <= high`` and ``normals @ u >= offsets``.

    In the plane few half-planes bind, and the answer is found by hand (`closest_by_hand`). Where many come to bind, it
    is left to the alternating direction method of OSQP (Stellato et al. 2020, doi 10.1007/s12532-020-00179-2), set up
    once; every call only changes its numbers. Nothing is promised of the answer: who uses it checks it.

    Args:
        low: ``(2,)`` lower bounds, raw units.
        high: ``(2,)`` upper bounds.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high, self._far = low, high, _FAR * (high - low)
        rows = _MOST + 2
        self._matrix = np.zeros((rows, 2))
        self._matrix[:2] = np.eye(2)
        self._lower, self._upper = np.full(rows, -np.inf), np.full(rows, np.inf)
        full = sparse.csc_matrix(np.ones((rows, 2)))  # every number stored, zeros too, so that all can be changed
        self._solver = osqp.OSQP()
        self._solver.setup(
            sparse.eye(2, format="csc"),
            np.zeros(2),
            full,
            np.full(rows, -1.0),
            np.full(rows, 1.0),
            verbose=False,
            eps_abs=_TOLERANCE,
            eps_rel=_TOLERANCE,
            scaling=0,  # the half-planes' normals have unit length already
            max_iter=1000,
            time_limit=_TIME_LIMIT,
            warm_starting=False,
        )

    def __call__(
        self, target: np.ndarray, planes: HalfPlanes, near: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray | None:
        """The closest action, or None when the solver found none in time.

        Args:
            target: ``(2,)``; one that is far out of bounds is brought nearer first.
            planes: Normals ``(n, 2)`` of unit length, offsets ``(n,)``. Those count that cut the deepest at the target
                or at ``near``.
            near: ``(2,)`` where a solution may lie.
            low: ``(2,)`` bounds of this call, inside the general ones.
            high: ``(2,)``.
        """
        target = np.clip(target, self._low - self._far, self._high + self._far)
        low, high = np.maximum(low, self._low), np.minimum(high, self._high)
        normals, offsets = planes[0], planes[1] + _BUFFER
        if not (np.isfinite(normals).all() and (offsets < np.inf).all() and np.isfinite(target).all()):
            return None
        if (low > high).any():
            return None
        sides = np.concatenate([_AXES, normals]), np.concatenate([low, -high, offsets])
        solved, action = closest_by_hand(target, sides)
        if not solved:
            action = self._iterate(target, (normals, offsets), near, low, high)
        return None if action is None else np.clip(action, low, high)

    def _iterate(
        self, target: np.ndarray, planes: HalfPlanes, near: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray | None:
        """OSQP's answer."""
        normals, offsets = planes
        if len(offsets) > _MOST:
            half = _MOST // 2
            first = np.argpartition(normals @ target - offsets, half)[:half]
            second = np.argpartition(normals @ near - offsets, half)[:half]
            chosen = np.concatenate([first, second])
            normals, offsets = normals[chosen], offsets[chosen]
        count = len(offsets)
        self._matrix[2:] = 0.0
        self._matrix[2 : 2 + count] = normals
        self._lower[2:] = -np.inf
        self._lower[2 : 2 + count] = offsets
        self._lower[:2], self._upper[:2] = low, high
        try:
            self._solver.update(q=-target, Ax=self._matrix.T.ravel(), l=self._lower, u=self._upper)
            answer = self._solver.solve(raise_error=False)
        except Exception:  # whatever a solver may raise: there is no answer
            return None
        if answer.info.status_val != osqp.SolverStatus.OSQP_SOLVED or answer.x is None:
            return None
        action = np.asarray(answer.x, np.float64)
        return action if np.isfinite(action).all() else None


def closest_by_hand(target: np.ndarray, planes: HalfPlanes) -> tuple[bool, np.ndarray | None]:
    """The point of the half-planes that is closest to a target; half-planes are added one by one, the deepest first.

    A closest point that a further half-plane does not hold is replaced by one on that half-plane's line (the distance
    is convex), where those added before leave an interval (Seidel 1991, doi 10.1007/BF02574699).

    Args:
        target: ``(2,)``.
        planes: Normals ``(n, 2)`` of unit length, offsets ``(n,)``.

    Returns:
        Whether the problem is solved, and the point: None where no point is inside all half-planes.
    """
    normals, offsets = planes
    point, added = target, np.zeros(0, np.int64)
    for _ in range(_BY_HAND):
        inside = normals @ point - offsets
        deepest = int(inside.argmin())
        if inside[deepest] >= -_ROUNDING:
            return True, point
        if (added == deepest).any():
            return False, None
        normal = normals[deepest]
        foot, along = target + (offsets[deepest] - normal @ target) * normal, np.array([-normal[1], normal[0]])
        rate, need = normals[added] @ along, offsets[added] - normals[added] @ foot  # rate * t >= need
        level = np.abs(rate) < _ROUNDING
        if (need[level] > _ROUNDING).any():
            return True, None
        at = need[~level] / rate[~level]
        least, most = at[rate[~level] > 0].max(initial=-np.inf), at[rate[~level] < 0].min(initial=np.inf)
        if least > most + _ROUNDING:
            return True, None
        point, added = foot + min(max(0.0, least), most) * along, np.append(added, deepest)
    return False, None
