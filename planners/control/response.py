"""Every motion that a point robot may still make after an action is sent: linear in its state and in the actions.

Actions are sent once per control step and may begin to act up to L control steps late, by a delay that may change from
one control step to the next but never reorders them. So what acts in a control step is one of the last L + 1 actions
sent, and never an older one than in the step before. The tree of all such sequences, each ended by braking until rest,
is built once; a reading and an action turn it into positions, velocities, accelerations and jerks by one product.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wm.errors import BadInputError
from wm.kinematics import PointKinematics

MAX_DELAY = 4
"""Control steps of latency for which the tree is built; it grows about threefold with each."""

_AT_REST = 1e-4
"""Braking is followed until this share of the velocity is left; what remains is bounded (`Response.rest`)."""

_INVERTIBLE = 1e-3
"""Least |1 - kv dt| with which a simulation step is undone."""

NO_WEIGHT = 1e-9
"""Response below which an action cannot move a quantity."""


@dataclass(frozen=True)
class Signal:
    """One quantity at each of its R instants: ``coefficients @ inputs``.

    Attributes:
        coefficients: ``(R, K)``; the two axes do not interact and are alike, so inputs are ``(K, 2)``.
        gain: ``(R, 5)`` how much an error of the measured position and velocity, a disturbance's displacement and
            velocity, and an error of the base can change it at most (Euclidean norms).
        row: ``(R,)`` the row of place and velocity at that instant.
        rest: ``(R,)`` factor of the speed left in the end that bounds all change after it; 0 before the end.
        instant: ``(R,)`` simulation steps since the action was sent.
        steered: ``(S,)`` the instants to come at which the action to be sent moves it, in one way or the other
            (``sign``) and by so much per unit (``size``).
        sign: ``(S,)``.
        size: ``(S,)``.
    """

    coefficients: np.ndarray
    gain: np.ndarray
    row: np.ndarray
    rest: np.ndarray
    instant: np.ndarray
    steered: np.ndarray = field(init=False)
    sign: np.ndarray = field(init=False)
    size: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        weight = self.coefficients[:, -1]
        steered = np.nonzero((np.abs(weight) > NO_WEIGHT) & (self.instant > 0))[0]
        object.__setattr__(self, "steered", steered)
        object.__setattr__(self, "sign", np.sign(weight[steered]))
        object.__setattr__(self, "size", np.abs(weight[steered]))


class Response:
    """Linear response of every future of a `PointKinematics` with relative actions.

    Inputs, K = L + 5 rows of x and y: position and velocity now, the base (position one control step before now), the
    last L + 1 actions sent (oldest first; the oldest can have acted until now, no longer), the action to be sent.

    Row 0 of place and velocity is now; ``before[r]`` is the row one simulation step before row r.

    Args:
        robot: The kinematics (semi-implicit Euler, see there).
        delay: L, largest delay in control steps.

    Attributes:
        brake_steps: Control steps of braking that each future ends with.
        peak: Largest speed that one control step's action adds, per length unit of its target's distance [1/s].
        ends: For each number of control steps from 0 on, the rows where the futures are then (those at rest stay).

    Raises:
        BadInputError: actions are not relative, braking does not come to rest, or the delay is too long.
    """

    def __init__(self, robot: PointKinematics, delay: int) -> None:
        if not robot.relative:
            raise BadInputError("the shield certifies relative actions, where zero brakes; came absolute kinematics.")
        if not 0 <= delay <= MAX_DELAY:
            raise BadInputError(f"the shield certifies up to {MAX_DELAY} control steps of latency, came {delay}.")
        self.robot, self.delay, self.width = robot, delay, delay + 5
        self._last = np.eye(self.width)  # coefficients of each input on itself
        self._measure_braking()
        self._grow()
        self._differentiate()

    def inputs(self, place: np.ndarray, velocity: np.ndarray, base: np.ndarray, sent: np.ndarray) -> np.ndarray:
        """``(K, 2)`` inputs with the action to be sent left at zero, which is the stop."""
        return np.concatenate([place[None], velocity[None], base[None], sent, np.zeros((1, 2))])

    def _control_step(self, place: np.ndarray, velocity: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """Coefficients ``(substeps, K)`` of place and velocity in one control step: the kinematics' recurrence."""
        robot, target, places, velocities = self.robot, place + self.robot.scale * action, [], []
        for _ in range(robot.substeps):
            velocity = velocity + (robot.kp * (target - place) - robot.kv * velocity) * robot.dt
            place = place + velocity * robot.dt
            places.append(place)
            velocities.append(velocity)
        return np.array(places), np.array(velocities)

    def _measure_braking(self) -> None:
        """How many control steps come to rest, and what is left of place and velocity after them, per unit of speed."""
        unit = self._last[1]
        places, velocities = self._control_step(0 * unit, unit, 0 * unit)
        place, velocity = places @ unit, velocities @ unit
        left = abs(velocity[-1])
        if not (np.isfinite(place).all() and left < 0.9):
            raise BadInputError(f"braking must come to rest, but {left:.3g} of the speed is left a control step later.")
        self.brake_steps = max(1, int(np.ceil(np.log(_AT_REST) / np.log(max(left, _AT_REST)))))
        forever, dt = 1 / (1 - left), self.robot.dt
        change = np.abs(np.diff(velocity, prepend=1.0)).max() / dt * forever
        self.rest = {
            "place": (np.abs(place).max() + abs(place[-1])) * forever,
            "velocity": 1 + float(np.abs(velocity).max()),
            "acceleration": change,
            "jerk": 2 * change / dt,
        }

    def _grow(self) -> None:
        """The tree, control step by control step, and its nodes' first rows for the jerk across the start."""
        brake, now = self.delay + 2, self._last
        places, velocities, before, instant = [now[0]], [now[1]], [-1], [0]
        self.ends: list[list[int]] = [[0]]
        self._starts: list[tuple[int, int]] = []
        open_nodes = [(0, 0, 0)]  # (row where it ends, index of the action that acted, braking steps so far)
        for step in range(self.delay + 1 + self.brake_steps):
            following, at_rest = [], []
            for row, index, braked in open_nodes:
                if braked == self.brake_steps:
                    at_rest.append((row, index, braked))
                    continue
                for chosen in range(max(index, min(step + 1, brake)), min(step + self.delay + 1, brake) + 1):
                    action = now[3 + chosen] if chosen < brake else 0 * now[0]
                    path, speed = self._control_step(places[row], velocities[row], action)
                    first = len(places)
                    places.extend(path)
                    velocities.extend(speed)
                    before.extend([row, *range(first, first + len(path) - 1)])
                    instant.extend(step * self.robot.substeps + 1 + np.arange(len(path)))
                    following.append((len(places) - 1, chosen, braked + 1 if chosen == brake else 0))
                    if step == 0:
                        self._starts.append((first, chosen))
            open_nodes = following + at_rest
            self.ends.append([row for row, _, _ in open_nodes])
        self._leaves = self.ends[-1]
        self.peak = float(np.abs(np.array(velocities)[:, -1]).max() / self.robot.scale)
        self.before, self._instant = np.array(before), np.array(instant)
        self._place, self._velocity = np.array(places), np.array(velocities)

    def _differentiate(self) -> None:
        """Backward differences of the velocity at the simulation step: the PD control's acceleration, and its jerk.

        What a disturbance adds to the velocity itself is not the control's and does not count; what counts is by how
        much the control answers it. An acceleration sees it in the target's place, the place and the velocity, the
        jerk between two of them twice. Before a reading it is inferred: there a push just before counts too.
        """
        robot, before, inner = self.robot, self.before, np.nonzero(self.before > 0)[0]
        faster = (self._velocity[1:] - self._velocity[before[1:]]) / robot.dt
        jerk, rows = [(faster[inner - 1] - faster[before[inner] - 1]) / robot.dt], [inner]
        for first, chosen in self._starts:
            for acted in range(chosen + 1 if chosen <= self.delay else self.delay + 1):
                jerk.append((faster[first - 1] - self._acceleration_before(acted))[None] / robot.dt)
                rows.append(np.array([first]))
        every = np.arange(1, len(before))
        self.signals = {
            "place": self._signal("place", self._place, np.arange(len(before)), 1.0, 0.0),
            "velocity": self._signal("velocity", self._velocity, np.arange(len(before)), 0.0, 1.0),
            "acceleration": self._signal("acceleration", faster, every, 2 * robot.kp, robot.kv),
            "jerk": self._signal("jerk", np.concatenate(jerk), np.concatenate(rows), *self._disturbed_jerk(rows)),
        }

    def _disturbed_jerk(self, rows: list[np.ndarray]) -> np.ndarray:
        """Weights ``(2, R)`` of a disturbance's position and velocity in the jerk.

        Args:
            rows: Those between two simulation steps to come, then each one after the reading.
        """
        robot, kept = self.robot, abs(1 - self.robot.kv * self.robot.dt)
        inner = np.array([4 * robot.kp, 2 * robot.kv])
        undone = np.array([robot.kp, abs(robot.kv - robot.kp * robot.dt)]) / max(kept, _INVERTIBLE)
        first = 2 * np.maximum([robot.kp, robot.kv], undone)
        return np.repeat([inner, first], [len(rows[0]), len(rows) - 1], axis=0).T / robot.dt

    def _acceleration_before(self, acted: int) -> np.ndarray:
        """Coefficients of the acceleration in the simulation step that ended now, had sent action ``acted`` acted."""
        robot, (place, velocity, base) = self.robot, self._last[:3]
        gap = base + robot.scale * self._last[3 + acted] - (place - velocity * robot.dt)
        kept = 1 - robot.kv * robot.dt
        if abs(kept) < _INVERTIBLE:  # not invertible; `MotionGuardrail` refuses such a robot
            return 0 * place
        return (velocity - (velocity - robot.kp * gap * robot.dt) / kept) / robot.dt

    def _signal(
        self, kind: str, rows: np.ndarray, at: np.ndarray, moved: float | np.ndarray, pushed: float | np.ndarray
    ) -> Signal:
        """``moved`` and ``pushed``: weight of the disturbance's position and velocity in this quantity."""
        place, velocity, base = np.abs(rows[:, :3]).T
        rest = np.where(np.isin(at, self._leaves), self.rest[kind], 0.0)
        velocity = velocity + rest * np.abs(self._velocity[at, 1])
        weight = np.stack([np.broadcast_to(each, len(rows)) for each in (moved, pushed)], axis=1)
        return Signal(rows, np.column_stack([place, velocity, weight, base]), at, rest, self._instant[at])
