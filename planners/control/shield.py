"""The last check before an action is sent: no learned part, only the robot's known kinematics.

An action u is certified when, for every true state within the stated errors of the reading, every delay of whole
control steps up to the stated latency and every disturbance within the stated bound, *u for one control step and then
braking until rest* keeps every rule at every simulation instant, positions also between two instants. Braking is the
action zero.

Why it never runs out of safe actions (recursive feasibility). Let u be certified at control step k. What acts after
k + 1, if the stop is sent from then on, is one of the futures that were checked at k; so the true robot, wherever it is
within the bounds, keeps every rule under the stop, whatever the reading at k + 1 says. The shield remembers this
certificate. If no action can be certified from the new reading alone (an error of measurement at the edge of a rule is
enough), the stop is still covered, as long as no reading contradicts what was foreseen; if one does, a bound that was
stated has been exceeded and that is reported. By induction, starting from one certified state, there is always a stop
that keeps every rule under the stated bounds.

A limit of the jerk also binds the instant of the reading itself, where what accelerated the robot until then depends
on its *base*, the place where the control step before began. No reading tells it: the one before may be lost, or older
by another number of control steps. The certificate does: one of its futures is the true path, up to its slack, and
agrees with the reading; so the true base lies, up to the slack there, where one of those that agree was a control step
earlier. The radius of a disc around all of these is charged to the jerk as an error of the base (`Certificate.base`).
Without a certificate only the base of a robot at rest is known; until it rests, the stop is sent, as uncertified.

So that the robot does not stand for good where it came close to a thing: while only the remembered certificate covers
the stop and no disturbance is stated, an action may pass that keeps, from the same true state, every rule that stopping
keeps (`Futures.retreats`). With a disturbance, actions hold back a reserve (`Futures.reserve`) that only those may use
up that lead away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners.control.certificate import Base, Certificate
from wm.planners.control.futures import Futures, joined
from wm.planners.control.qp import ClosestAction
from wm.planners.control.response import Response
from wm.planners.control.rules import compile_rule
from wm.planners.control.verdict import Broken, Certified, Kind, ShieldLimits
from wm.planners.guardrails.base import Guardrail
from wm.specs import ActionSpec

__all__ = ["Certified", "Kind", "Shield", "ShieldLimits"]

_ROUNDING = 2.0**-22
"""Relative rounding that is always allowed for: readings and sent actions may be float32."""

_ROUNDS = 4
"""QPs of one correction: tangents of keep-outs are moved to the last solution (convex-concave procedure, Lipp & Boyd
2016, doi 10.1007/s11081-015-9294-x), or a solution that was not verified is tried again with a correction."""

_OVER = 3.0
"""Times that a margin which was missing is kept in the next round."""

_GAIN = 1e-2
"""A smaller gain in distance to the action asked for ends these rounds [action units]."""

_BINDING = 1e-3
"""A tangent that is farther away than this does not hold a correction back [action units]."""

_LEAST = 1e-3
"""A retreat that is smaller is none [action units]."""


class Shield:
    """Lets an action pass, corrects it, or stops the robot.

    An action is taken to begin to act a whole number of control steps after the reading that it was chosen with, and to
    act for whole ones, within the stated latency. Of a robot that begins its control steps at another phase than that
    of its readings nothing is certified, however small the shift.

    Args:
        kinematics: The robot's own motion, relative actions.
        action_spec: Bounds and rate of its actions.
        rules: The planner's guardrails on the robot's own motion: `WorkspaceBox`, `KeepOutDiscs`, `KeepOutBoxes`,
            `KeepOutPolygons`, `SpeedLimit`, `AccelerationLimit`, `JerkLimit`.
        limits: Stated bounds.
        max_rate: Largest change of each number of the action from one control step to the next [raw units], or None.
            A stop is exempt: it is never delayed.

    Attributes:
        kinematics: As given.
        action_spec: As given.
        limits: As given.

    Raises:
        BadInputError: a rule cannot be certified, or the parts do not fit each other.
    """

    def __init__(
        self,
        kinematics: PointKinematics,
        action_spec: ActionSpec,
        rules: Sequence[Guardrail],
        limits: ShieldLimits,
        *,
        max_rate: float | None = None,
    ) -> None:
        self.kinematics, self.action_spec, self.limits = kinematics, action_spec, limits
        self._low, self._high = _bounds(action_spec, kinematics)
        if max_rate is not None and not (math.isfinite(max_rate) and max_rate > 0):
            raise BadInputError(f"max_rate must be finite and > 0, came {max_rate}.")
        self._rate = math.inf if max_rate is None else float(max_rate)
        self._rules = [compile_rule(rule, kinematics) for rule in rules]
        names = [rule.name for rule in self._rules]
        if len(set(names)) < len(names):
            raise BadInputError(f"guardrail names must differ, came {', '.join(sorted(names))}.")
        self._jerk = next((rule.name for rule in self._rules if getattr(rule, "signal", None) == "jerk"), "")
        self._response = Response(kinematics, math.ceil(limits.latency * action_spec.control_hz - 1e-9))
        self._disturbed = limits.disturbance > 0 or limits.velocity_disturbance > 0
        self._closest = ClosestAction(self._low, self._high)
        self._reach = kinematics.scale * float(np.linalg.norm(np.maximum(-self._low, self._high)))
        self.reset()

    def reset(self) -> None:
        """Forget what was sent and certified; for a robot that stands still, before the loop starts or starts again."""
        self._certificate: Certificate | None = None
        self._sent = np.zeros((self._response.delay + 1, 2))
        self._stops = self._response.delay + 1 + self._response.brake_steps  # sent in a row; after these it is at rest
        self._unclear = 0  # control steps until nothing from before a skipped period can act any more

    def skipped(self, count: int) -> None:
        """Tell that control periods have passed in which nothing was certified; before the next `certify`.

        What the robot did meanwhile is its own: it goes on with what was sent last (a free-running robot), brakes (its
        deadman), or stands still in the midst of it (a simulation in step with its caller). No certificate covers that,
        and of what was sent before, anything that the latency allows may still act. So without a good reading the next
        answer is an uncertified stop, and with a latency of L control steps the next L answers are, whatever the
        reading: from then on all that may act is known again. A rate counts from what was sent last.

        Args:
            count: How many have passed; 0: none.
        """
        if count > 0:
            self._certificate = None
            self._unclear = self._response.delay

    def stop_action(self) -> np.ndarray:
        """``(2,)`` the action that brakes to rest and holds."""
        return np.zeros(2)

    def certify(self, proprio: object, asked: object, held: Sequence[object] = ()) -> Certified:
        """What to send instead of, or as, the action asked for; to be called once per control step. Never raises.

        Args:
            proprio: ``(4,)`` measured x, y, vx, vy; anything else counts as no reading.
            asked: ``(2,)`` raw units; anything else is answered with the stop.
            held: The last actions that were sent, oldest first, where they may differ from what this returned; the
                last L, the latency in control steps, may still be on their way.
        """
        with np.errstate(all="ignore"):
            reading, action = _numbers(proprio, (4,)), _numbers(asked, (2,))
            result = self._certify(reading, action, self._remember(held))
            moved = math.inf if action is None else float(np.linalg.norm(result.action - action))
        self._sent = np.concatenate([self._sent[1:], result.action[None]])
        self._stops = 0 if result.action.any() else self._stops + 1
        return replace(result, moved=moved)

    def _remember(self, held: Sequence[object]) -> bool:
        """Take over what was sent; False when it is not usable. A certificate does not cover what it did not expect."""
        sent = [_numbers(action, (2,)) for action in held]
        known = [action for action in sent[-len(self._sent) :] if action is not None]
        if len(known) < min(len(sent), len(self._sent)):
            return False
        if known:
            count = len(known)
            if not np.allclose(self._sent[-count:], known, rtol=0.0, atol=4 * _ROUNDING):
                self._certificate, self._stops = None, 0
            self._sent[-count:] = known
        return True

    def _certify(self, reading: np.ndarray | None, action: np.ndarray | None, sent_known: bool) -> Certified:
        if self._certificate is not None:
            self._certificate.age += 1
        if not sent_known:
            return self._uncovered("non-finite sent action", math.inf, -math.inf, 0.0)
        if self._unclear:
            self._unclear -= 1
            return self._uncovered("skipped control period", math.inf, -math.inf, 0.0)
        if reading is None:
            return self._covered("non-finite proprio", math.inf, 0.0)
        errors = self._errors(reading)
        base, outside = self._compare(reading, errors)
        if base is None:
            return self._covered(self._jerk, math.inf, outside)
        futures = self._look_ahead(reading, errors, base)
        if action is not None and (broken := self._box_breach(action)) is None:
            margins = futures.margins(action)
            broken = futures.first_broken(margins)
            if broken is None:
                return self._issue(futures, action, "passed", None, margins, outside)
        else:
            broken = ("non-finite command", math.inf) if action is None else broken
        return self._replace(futures, action, broken, outside)

    def _replace(self, futures: Futures, action: np.ndarray | None, broken: Broken, outside: float) -> Certified:
        """The action asked for is not certified: correct it, or move away from what is too near, or stop."""
        stop = self.stop_action()
        margins = futures.margins(stop)
        unsafe = futures.first_broken(futures.with_reserve(margins))
        if unsafe is not None and self._certificate is None:
            return self._uncovered(*unsafe, _least(futures.with_reserve(margins)), outside)
        found = None
        if action is not None and futures.first_broken(margins) is None:
            found = self._correct(futures, action, margins)
        if action is not None and found is None:
            found = self._retreat(futures, action, margins)
        if found is None and unsafe is not None:
            return self._covered(*(broken or unsafe), outside)
        if found is None and (action is None or action.any()):
            return self._issue(futures, stop, "stop", broken, margins, outside)
        found = stop if found is None else found
        if action is not None and np.array_equal(found, action):
            return self._issue(futures, found, "passed", None, futures.margins(found), outside)
        return self._issue(futures, found, "corrected", broken, futures.margins(found), outside)

    def _errors(self, reading: np.ndarray) -> tuple[float, float]:
        """Bounds on a reading's errors of position and velocity, rounding included."""
        fastest = self._reach * self._response.peak
        return (
            self.limits.position_error + _ROUNDING * (float(np.abs(reading[:2]).max()) + self._reach),
            self.limits.velocity_error + _ROUNDING * (float(np.abs(reading[2:]).max()) + fastest),
        )

    def _compare(self, reading: np.ndarray, errors: tuple[float, float]) -> tuple[Base | None, float]:
        """What the certificate says of a reading, which voids it when it was not foreseen.

        Returns:
            Where the robot was one control step before, None when a jerk limit needs it and it is not known; and how
            far the reading lies outside of what was foreseen.
        """
        here, outside = (reading[:2], errors[0]), 0.0
        if self._certificate is not None:
            rows, far = self._certificate.differences(reading, errors)
            outside = max(0.0, float(far.min()))
            if outside > 0:
                self._certificate = None
            elif self._jerk:
                return self._certificate.base(rows[~(far > 0)]), outside
        at_rest = self._stops >= self._response.delay + 1 + self._response.brake_steps
        return here if at_rest or not self._jerk else None, outside

    def _look_ahead(self, reading: np.ndarray, errors: tuple[float, float], base: Base) -> Futures:
        """The reading's futures."""
        place, base_error = base
        inputs = self._response.inputs(reading[:2], reading[2:], place, self._sent)
        bounds = np.array([*errors, self.limits.disturbance, self.limits.velocity_disturbance, base_error])
        return Futures(self._response, self._rules, inputs, bounds, self._reach)

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of an action now: the action's own, and the rate's around what was sent last."""
        last = self._sent[-1]
        return np.maximum(self._low, last - self._rate), np.minimum(self._high, last + self._rate)

    def _box_breach(self, action: np.ndarray) -> Broken:
        over = float(np.maximum(self._low - action, action - self._high).max())
        if over > 0:
            return "action bounds", over
        over = float(np.abs(action - self._sent[-1]).max()) - self._rate
        return ("action rate", over) if over > _ROUNDING * self._rate else None

    def _correct(self, futures: Futures, asked: np.ndarray, stopped: Sequence[np.ndarray]) -> np.ndarray | None:
        """The closest action, verified; None when none was found. The stop, whose margins are given, is certified."""
        around = near = self.stop_action()
        known, back_off, best = stopped, _no_back_off(stopped), None
        for _ in range(_ROUNDS):
            straight, curved = futures.half_planes(around, known, back_off)
            found = self._closest(asked, joined([straight, curved]), near, *self._range())
            if found is None or self._box_breach(found) is not None:
                break
            near, margins = found, futures.margins(found)
            if futures.first_broken(margins) is not None:
                back_off = _further(back_off, margins)
                continue
            gain = math.inf if best is None else float(np.linalg.norm(best - asked) - np.linalg.norm(found - asked))
            best = found if gain > 0 else best
            binding = curved[0] @ found - curved[1] < _BINDING
            if gain < _GAIN or not binding.any():  # other tangents would not bring it nearer
                break
            around, known = found, margins
        return best

    def _retreat(self, futures: Futures, asked: np.ndarray, stopped: Sequence[np.ndarray]) -> np.ndarray | None:
        """The closest action that leads away from all that is near, verified; None when none was found.

        It rests on the stop, which is certified or covered. Not so under a disturbance, which spares a robot at rest
        only: then it has to be certified itself, but may use up the reserve.

        Args:
            futures: Of the reading.
            asked: The action asked for.
            stopped: Margins of stopping.
        """
        if not asked.any():
            return None
        action, near, back_off = asked, self.stop_action(), _no_back_off(stopped)
        for _ in range(_ROUNDS):
            if self._box_breach(action) is None and np.linalg.norm(action) >= _LEAST:
                margins = futures.margins(action)
                kept = futures.with_reserve(margins)
                certified = not self._disturbed or futures.first_broken(kept) is None
                if certified and futures.retreats(action, margins):
                    return action
                if action is not asked:
                    near, back_off = action, _further(back_off, kept)
            found = self._closest(asked, futures.retreat_planes(stopped, back_off), near, *self._range())
            if found is None:
                return None
            action = found
        return None

    def _issue(
        self,
        futures: Futures,
        action: np.ndarray,
        kind: Kind,
        broken: Broken,
        margins: Sequence[np.ndarray],
        outside: float,
    ) -> Certified:
        """A new certificate replaces the old one."""
        margin = _least(futures.with_reserve(margins))
        if margin < 0:  # away from a thing: it rests on what covers the stop
            margin = 0.0 if self._certificate is None else self._certificate.margin
        self._certificate = Certificate.of(futures, action, margin)
        rule, by = broken or (None, 0.0)
        return Certified(action, kind, rule, by, 0.0, margin, outside)

    def _covered(self, rule: str, by: float, outside: float) -> Certified:
        """The stop, by the remembered certificate if there is one."""
        if self._certificate is None:
            return self._uncovered(rule, by, -math.inf, outside)
        return Certified(self.stop_action(), "stop", rule, by, 0.0, self._certificate.margin, outside)

    def _uncovered(self, rule: str, by: float, margin: float, outside: float) -> Certified:
        self._certificate = None
        return Certified(self.stop_action(), "uncertified_stop", rule, by, 0.0, margin, outside)


def _no_back_off(margins: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.zeros_like(values) for values in margins]


def _further(back_off: Sequence[np.ndarray], margins: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What was missing is kept several times, so that few rounds are needed."""
    return [extra + _OVER * np.maximum(-values, 0.0) for extra, values in zip(back_off, margins, strict=True)]


def _least(margins: Sequence[np.ndarray]) -> float:
    """Smallest of all margins; infinite when there is no rule."""
    return float(min((values.min(initial=np.inf) for values in margins), default=np.inf))


def _numbers(values: object, shape: tuple[int, ...]) -> np.ndarray | None:
    """A float64 copy, or None when ``values`` are not finite real numbers of this shape."""
    try:
        array = np.array(values, dtype=np.float64)
    except Exception:  # whatever it is, it is not numbers
        return None
    return array if array.shape == shape and bool(np.isfinite(array).all()) else None


def _bounds(spec: ActionSpec, robot: PointKinematics) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of the action.

    Raises:
        BadInputError: the action does not fit the kinematics, or the stop is not among the actions.
    """
    low, high = _numbers(spec.low, (2,)), _numbers(spec.high, (2,))
    if spec.width != 2 or low is None or high is None:
        raise BadInputError(f"the shield needs two bounded numbers per action, came {spec}.")
    if not ((low <= 0) & (high >= 0)).all():
        raise BadInputError(f"the stop, action zero, must be inside the action's bounds, came {spec.low}, {spec.high}.")
    period = robot.dt * robot.substeps
    if not (math.isfinite(spec.control_hz) and abs(spec.control_hz * period - 1) < 1e-6):
        raise BadInputError(f"control_hz: expected {1 / period:g} by the kinematics, came {spec.control_hz:g}.")
    return low, high
