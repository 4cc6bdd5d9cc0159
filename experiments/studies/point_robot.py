"""A point robot that does what its kinematics say, with late actions, pushes and wrong readings, each up to a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wm.kinematics import PointKinematics
from wm.planners.control.shield import ShieldLimits
from wm.specs import ActionSpec

PUSHER = PointKinematics(kp=100.0, kv=20.0, dt=0.01, substeps=10, scale=100.0, relative=True)
"""Push-T's pusher: px, px/s, actions of 100 px."""

PUSHER_ACTION = ActionSpec(("dx", "dy"), "100 px", (-1.0, -1.0), (1.0, 1.0), 10.0)

PUSH_SPEED = 5.0
"""A push by d px changes the pusher's later velocity by at most this many d per second (kp t e^(-10 t), and a rest)."""

KICK_TRAVEL = 0.0342
"""A kick by V px/s displaces the pusher later by at most this many V [s], at whichever simulation step it comes."""

Errors = Literal["random", "constant", "flattering"]

Push = Literal["shove", "kick"]
"""What a push changes at once: the place by the whole stated disturbance, or the velocity by its stated one."""


@dataclass(frozen=True)
class Troubles:
    """How the true robot departs from what the shield is told; the shield's limits say by how much at most.

    Attributes:
        limits: Stated bounds. Errors of readings have exactly these sizes.
        errors: Direction of the reading's errors: anew each time; always the same; or away from the nearest hazard
            and slower than true.
        late: Control steps that pass besides: a number, or None for one that changes all the time.
        excess: What a push really has, as a share of the stated disturbance; above 1 the bound is broken.
        pushes: Kinds of push that come. What each brings about later has to be within the other's bound
            (`PUSH_SPEED`, `KICK_TRAVEL`).
        aged: So many of these control steps at most are the age of a reading; by the others actions are late.
    """

    limits: ShieldLimits
    errors: Errors = "random"
    late: int | None = 0
    excess: float = 1.0
    pushes: tuple[Push, ...] = ("shove", "kick")
    aged: int = 0


class PointRobot:
    """The true robot.

    A push comes before or after any simulation step, also just before a reading or just after it; only while the robot
    is moving, and not again before it could have come to rest. It goes towards the nearest hazard, with what the
    control does or against it.

    Args:
        place: ``(2,)`` where it stands.
        hazards: ``(M, 2)`` points that pushes and flattering errors aim at.
        troubles: See there.
        rng: Of the errors, delays and pushes.
    """

    def __init__(self, place: np.ndarray, hazards: np.ndarray, troubles: Troubles, rng: np.random.Generator) -> None:
        self.place, self.velocity = place.astype(float), np.zeros(2)
        self._driven = np.zeros(2)  # velocity that the control alone has given it
        self._hazards, self._troubles, self._rng = hazards, troubles, rng
        self._delay = round(np.ceil(troubles.limits.latency * PUSHER_ACTION.control_hz - 1e-9))
        self._oldest = min(troubles.aged, self._delay)
        self._sent = [np.zeros(2)] * (self._delay + 1)
        self._newest = 0  # index, in the order sent, of the action that acted last
        self._since_push, self._since_moving = 100, 100
        self._biases = _on_circle(rng), _on_circle(rng)
        self._past = [(self.place, self.velocity)]  # at the start of every control step
        self._age = 0  # of the last reading, in control steps

    def reading(self) -> np.ndarray:
        """``(4,)`` float32 x, y, vx, vy with errors of the stated size; to be called once per control step."""
        limits = self._troubles.limits
        self._age = min(self._late(0, self._oldest), self._age + 1, len(self._past) - 1)
        place, velocity = self._past[-1 - self._age]
        if self._troubles.errors == "random":
            ways = _on_circle(self._rng), _on_circle(self._rng)
        elif self._troubles.errors == "constant":
            ways = self._biases
        else:
            ways = -self._towards_hazard(), -velocity / max(float(np.linalg.norm(velocity)), 1e-9)
        return np.concatenate(
            [place + limits.position_error * ways[0], velocity + limits.velocity_error * ways[1]]
        ).astype(np.float32)

    def step(self, action: np.ndarray) -> np.ndarray:
        """One control step after ``action`` was sent.

        Returns:
            ``(substeps + 1, 6)`` true x, y, vx, vy, the state before it first, and the velocity that the control alone
            has given the robot, whose differences are the control's accelerations: without pushes the same as vx, vy.
        """
        self._sent.append(np.asarray(action, float))
        late = self._late(self._oldest, self._delay)
        self._newest = max(self._newest, len(self._sent) - 1 - late)
        acting = self._sent[self._newest]
        self._since_moving = 0 if acting.any() else self._since_moving + 1
        push_at, states = self._push_at(), []
        target = self.place + PUSHER.scale * acting
        for k in range(PUSHER.substeps + 1):
            if k > 0:
                change = self._control(target) * PUSHER.dt
                self._driven, self.velocity = self._driven + change, self.velocity + change
                self.place = self.place + self.velocity * PUSHER.dt
            if k == push_at:
                self._push(self._control(target))
            states.append(np.concatenate([self.place, self.velocity, self._driven]))
        self._past.append((self.place, self.velocity))
        return np.array(states)

    def _control(self, target: np.ndarray) -> np.ndarray:
        """The acceleration that the PD control applies now."""
        return PUSHER.kp * (target - self.place) - PUSHER.kv * self.velocity

    def _push(self, control: np.ndarray) -> None:
        """One push; ``control`` is the acceleration that would be applied without it."""
        limits, excess = self._troubles.limits, self._troubles.excess
        along = control / max(float(np.linalg.norm(control)), 1e-9)
        way = (self._towards_hazard(), along, -along)[self._rng.integers(3)]
        if self._rng.choice(self._troubles.pushes) == "shove":
            self.place = self.place + limits.disturbance * excess * way
        else:
            self.velocity = self.velocity + limits.velocity_disturbance * excess * way

    def _late(self, after: int, until: int) -> int:
        """How much of the lateness now falls to the control steps of the latency from ``after`` to ``until``."""
        late = self._troubles.late
        return int(self._rng.integers(until - after + 1)) if late is None else int(np.clip(late, after, until)) - after

    def _push_at(self) -> int | None:
        """After how many simulation steps a push comes, if there is one in this control step."""
        self._since_push += 1
        allowed = self._since_push > self._delay + 4 and self._since_moving <= 1
        if self._troubles.limits.disturbance == 0 or not allowed or self._rng.random() > 0.5:
            return None
        self._since_push = 0
        return int(self._rng.integers(PUSHER.substeps + 1))

    def _towards_hazard(self) -> np.ndarray:
        apart = self._hazards - self.place
        distance = np.linalg.norm(apart, axis=1)
        nearest = int(distance.argmin())
        return apart[nearest] / max(float(distance[nearest]), 1e-9)


def _on_circle(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
