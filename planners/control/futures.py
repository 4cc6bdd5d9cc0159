"""The margins of everything that may follow an action, and the half-planes of actions that keep them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm.planners.control.qp import HalfPlanes
from wm.planners.control.response import NO_WEIGHT, Response
from wm.planners.control.rules import Moves, NormRule, PlaceRule, ShieldRule, Walls

_DIRECTIONS = 24
"""Sides of the polygon that stands inside a norm's circle for the QP: 0.9 % of the limit is given away."""

_SIDES = np.stack([f(np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)) for f in (np.cos, np.sin)], 1)

_INSIDE = 0.999 * float(np.cos(np.pi / _DIRECTIONS))
"""Share of a norm's limit that the polygon's sides are away: its corners lie just inside the circle."""


class Futures:
    """One reading's futures: quantities at all instants as affine functions of the action, and the rules on them.

    Args:
        response: Of the robot.
        rules: In numpy form.
        inputs: ``(K, 2)``, see `Response.inputs`.
        bounds: ``(5,)`` position error, velocity error [as the reading], the disturbance's displacement and velocity,
            and the error of the base: what every margin is tightened by.
        reach: Farthest target of an action [length unit].

    Attributes:
        response: As given.
        bounds: As given.
        base: ``(2,)`` where the robot was one control step ago.
        reserve: ``(R - 1,)`` further distance to things that an action keeps unless it leads away from them. Without a
            disturbance 0. With one, a push and the errors of a reading may use up the slack; the reserve is what is
            then needed to certify an action again, else the robot would stand there for good.
    """

    def __init__(
        self, response: Response, rules: Sequence[ShieldRule], inputs: np.ndarray, bounds: np.ndarray, reach: float
    ) -> None:
        self.response, self._rules = response, rules
        self.bounds, self.base = bounds, inputs[2]
        self._last: tuple[np.ndarray, list[np.ndarray]] | None = None
        self._norms: dict[str, HalfPlanes] = {}
        self._stopped = {k: response.signals[k].coefficients @ inputs for k in _needed(rules)}
        self._slack = {k: response.signals[k].gain @ bounds for k in self._stopped}
        before = response.before[1:]
        self._pair_slack = np.maximum(self._slack["place"][1:], self._slack["place"][before])
        robot, speed = response.robot, float(np.linalg.norm(inputs[1]))
        self._brim = (robot.kp * reach + robot.kv * speed) * robot.dt**2 / 4  # more than the bulge of `_moves`
        self.reserve = self._pair_slack + bounds[0] if bounds[2:4].any() else 0.0 * self._pair_slack

    def signal(self, kind: str, action: np.ndarray) -> np.ndarray:
        """``(R, 2)`` nominal values of a quantity when ``action`` is sent and then the stop."""
        return self._stopped[kind] + self.response.signals[kind].coefficients[:, -1:] * action

    def margins(self, action: np.ndarray) -> list[np.ndarray]:
        """Of each rule at every instant that is still to come, tightened, less the reserve.

        Place ``(R - 1, M)``, others ``(R',)``.
        """
        if self._last is not None and np.array_equal(self._last[0], action):
            return self._last[1]
        velocity = self.signal("velocity", action)
        speed, moves = np.sqrt(velocity[:, 0] ** 2 + velocity[:, 1] ** 2), None
        kept = self._pair_slack + self.reserve
        found: list[np.ndarray] = []
        for rule in self._rules:
            if isinstance(rule, PlaceRule):
                moves = moves or self._moves(self.signal("place", action), velocity, speed)
                found.append(rule.margins(moves) - kept[:, None])
            else:
                found.append(self._norm_margins(rule, action, velocity, speed))
        self._last = action.copy(), found
        return found

    def with_reserve(self, margins: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Margins that may use the reserve up."""
        rules = zip(self._rules, margins, strict=True)
        return [m + self.reserve[:, None] if isinstance(rule, PlaceRule) else m for rule, m in rules]

    def settled_slack(self, kind: str, action: np.ndarray) -> np.ndarray:
        """``(R,)`` as `slack` of place or velocity; in the end it includes all motion that is left."""
        signal, velocity = self.response.signals[kind], self.signal("velocity", action)
        return self._slack[kind] + signal.rest * np.sqrt(velocity[:, 0] ** 2 + velocity[:, 1] ** 2)

    def _moves(self, place: np.ndarray, velocity: np.ndarray, speed: np.ndarray) -> Moves:
        """Between two instants a uniformly accelerated motion, v0 to v1, stays close to its chord.

        Compared with the chord's point at the same time s it is off by ``|v1 - v0| s (dt - s) / (2 dt)``, at most
        ``|v1 - v0| dt / 8``; with the point at ``(s / dt)^2`` of the chord by ``|v0| s (1 - s / dt)``, at most
        ``|v0| dt / 4``; and from the end, ``|v1| dt / 4``. From rest it is on its chord.
        """
        before, dt = self.response.before[1:], self.response.robot.dt
        change, chord = velocity[1:] - velocity[before], place[1:] - place[before]
        slower = np.minimum(speed[1:], speed[before])
        bulge = np.minimum(np.sqrt(change[:, 0] ** 2 + change[:, 1] ** 2) * (dt / 8), slower * (dt / 4))
        bulge = bulge + self.response.signals["place"].rest[1:] * speed[1:]
        return Moves(place, before, np.sqrt(chord[:, 0] ** 2 + chord[:, 1] ** 2), bulge)

    def _norm_margins(self, rule: NormRule, action: np.ndarray, velocity: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """The velocity now is past; accelerations and jerks are all to come."""
        signal = self.response.signals[rule.signal]
        if rule.signal == "velocity":
            return rule.limit - (speed * (1 + signal.rest) + self._slack["velocity"])[1:]
        values = self.signal(rule.signal, action)
        left = signal.rest * speed[signal.row]
        return rule.limit - np.sqrt(values[:, 0] ** 2 + values[:, 1] ** 2) - self._slack[rule.signal] - left

    def first_broken(self, margins: Sequence[np.ndarray]) -> tuple[str, float] | None:
        """Name of the rule that is broken first in time, and by how much it is at worst; None when all are kept."""
        first: tuple[float, str, float] | None = None
        for rule, values in zip(self._rules, margins, strict=True):
            worst = values.min(initial=np.inf)
            if worst >= 0:
                continue
            broken = ~(values >= 0)  # NaN counts as broken
            rows = broken.any(1) if broken.ndim == 2 else broken
            instant = self._instants(rule)[rows].min()
            if first is None or instant < first[0]:
                first = (instant, rule.name, float(-worst) if np.isfinite(worst) else np.inf)
        return None if first is None else first[1:]

    def _instants(self, rule: ShieldRule) -> np.ndarray:
        kind = "place" if isinstance(rule, PlaceRule) else rule.signal
        instant = self.response.signals[kind].instant
        return instant[1:] if kind in ("place", "velocity") else instant

    def retreats(self, action: np.ndarray, margins: Sequence[np.ndarray]) -> bool:
        """True when ``action`` keeps, in all its futures, every rule that stopping keeps.

        Where its own margin is negative, it has to move the robot away from the thing, compared with stopping: let
        x be a true position while stopping, outside of a convex thing, and e the unit vector from the thing's point
        nearest to x. Sending u instead moves it to x + c u, c >= 0, and the distance to a convex set grows by at least
        ``c e . u``. Both positions have the same errors and disturbances, since the motion is linear. e is known up to
        an angle theta, ``sin theta = (error + step) / distance of the core`` (`PlaceRule.tangents`), so that
        ``n . u >= |u| sin theta`` with the nominal normal n is enough.

        Args:
            action: ``(2,)``.
            margins: Its margins.
        """
        for rule, values in zip(self._rules, margins, strict=True):
            kept = values >= 0
            if kept.all():
                continue
            if not isinstance(rule, PlaceRule):
                return False
            normals, spread, weight = self._escapes(rule)
            towards = np.sign(weight)[:, None, None] * normals @ action
            if not (kept | ((spread < 1) & (towards >= spread * np.linalg.norm(action)))).all():
                return False
        return True

    def _escapes(self, rule: PlaceRule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each simulation step of stopping: normals ``(R - 1, M, 2)``, sin theta ``(R - 1, M)``, c ``(R - 1,)``."""
        place, before = self._stopped["place"], self.response.before[1:]
        normals, core = rule.tangents(place[1:])
        reach = self._pair_slack + np.linalg.norm(place[1:] - place[before], axis=1)
        spread = np.where(core > 0, reach[:, None] / np.where(core > 0, core, 1.0), np.inf)
        every = self.response.signals["place"].coefficients[:, -1]
        weight, earlier = every[1:], every[before]
        spread[weight * earlier < 0] = np.inf  # pushed to and fro within one simulation step
        return normals, spread, weight

    def half_planes(
        self, around: np.ndarray, margins: Sequence[np.ndarray], back_off: Sequence[np.ndarray]
    ) -> tuple[HalfPlanes, HalfPlanes]:
        """Actions that keep every rule: half-planes for good, and tangents taken where ``around`` leads.

        Args:
            around: ``(2,)`` an action that keeps every rule.
            margins: Its margins.
            back_off: By how much more than needed a margin is kept, for what the half-planes do not see (how a path
                bends between two instants); norms need none.
        """
        straight: list[HalfPlanes] = []
        curved: list[HalfPlanes] = []
        signal = self.response.signals["place"]
        rows, sign, size = signal.steered, signal.sign[:, None], signal.size[:, None]
        place = self.signal("place", around)[rows]
        for rule, known, extra in zip(self._rules, margins, back_off, strict=True):
            if isinstance(rule, NormRule):
                straight.append(self._norm_planes(rule))
                continue
            normals = rule.tangents(place)[0] * sign[..., None]
            offsets = normals @ around - (known - extra)[rows - 1] / size
            if isinstance(rule, Walls):  # the same normals at every instant
                straight.append((normals[0], offsets.max(0)))
            else:
                curved.append((normals.reshape(-1, 2), offsets.reshape(-1)))
        return joined(straight), joined(curved)

    def retreat_planes(self, stopped: Sequence[np.ndarray], back_off: Sequence[np.ndarray]) -> HalfPlanes:
        """As `half_planes` around the stop; where its margins ``stopped`` are next to nothing, `retreats`' cone.

        In the plane a cone is two half-planes, their normals turned by theta to either side.
        """
        relaxed, pool = [], []
        for rule, values in zip(self._rules, stopped, strict=True):
            close = values < self._brim
            relaxed.append(np.where(close, np.inf, values) if isinstance(rule, PlaceRule) else values)
            if isinstance(rule, PlaceRule) and close.any():
                normals, spread, weight = self._escapes(rule)
                normals = normals * np.sign(weight)[:, None, None]
                chosen = close & (np.abs(weight) > NO_WEIGHT)[:, None]
                sine = np.minimum(spread[chosen], 1.0)[:, None]
                cosine, n = np.sqrt(1 - sine**2), normals[chosen]
                across = np.stack([-n[:, 1], n[:, 0]], 1)
                cone = np.concatenate([cosine * n + sine * across, cosine * n - sine * across])
                pool.append((cone, np.zeros(len(cone))))
        return joined([*self.half_planes(np.zeros(2), relaxed, back_off), *pool])

    def _norm_planes(self, rule: NormRule) -> HalfPlanes:
        """Actions that keep a norm's inscribed polygon at every instant."""
        if rule.signal not in self._norms:
            signal = self.response.signals[rule.signal]
            rows = signal.steered
            along = (self._stopped[rule.signal][rows] @ _SIDES.T) * signal.sign[:, None]
            limit = rule.limit * _INSIDE - self._slack[rule.signal][rows]
            room = (limit[:, None] - along) / signal.size[:, None]
            self._norms[rule.signal] = -_SIDES, -room.min(0)
        return self._norms[rule.signal]


def _needed(rules: Sequence[ShieldRule]) -> list[str]:
    asked = {rule.signal for rule in rules if isinstance(rule, NormRule)}
    return ["place", "velocity", *sorted(asked - {"velocity"})]


def joined(planes: Sequence[HalfPlanes]) -> HalfPlanes:
    """All of some half-planes."""
    normals = np.concatenate([np.zeros((0, 2)), *(n for n, _ in planes)])
    return normals, np.concatenate([np.zeros(0), *(b for _, b in planes)])
