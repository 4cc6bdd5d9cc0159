"""Any Gymnasium environment as a robot, in step with its caller or in real time, with the imperfections of a real one.

*Stepped* (default): `send_action` advances the simulation by one control step and returns; in between the world stands
still, so a loop at ``control_hz`` sees real time and a faster one a faster world. `stop` advances it until it rests.

*Free running*: a thread advances it at ``control_hz`` whether or not anyone calls, with the newest action held; after
``deadman_periods`` without a new one it brakes. A reading is that of the last control step, and stamped so: until the
next one it is the same, with its number.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from wm.envs.actions import clipped_action
from wm.errors import BadInputError, RobotError
from wm.kinematics import PointKinematics
from wm.robot import ObservationSpec, RobotObservation
from wm.specs import ActionSpec, ProprioSpec

_REST, _REST_SHARE = 1e-3, 1e-5
"""At rest: no number of proprioception (positions, velocities) changes by more in one control step, in raw units; where
kinematics are declared, by more than this share of their scale (push-T's 100 px, the arm's 0.1 m)."""


@dataclass(frozen=True)
class Impairments:
    """What goes wrong between a simulated robot and its caller; the defaults are a perfect robot.

    Attributes:
        observation_delay_steps: A reading shows the world this many control steps ago. [control steps]
        observation_delay_s: A reading shows the world this long ago (added to the steps). [s]
        action_delay_steps: An action begins to act this many control steps after it was sent; until then those sent
            before it act, at first the stay action. A stop is not delayed, and drops what waits. [control steps]
        proprio_noise: Bound of the error of each number of proprioception, one for all or one each. [raw units]
        noise: ``"uniform"`` within the bound, or ``"gaussian"`` with a third of it as deviation, clipped to it.
        drop_rate: Probability in [0, 1) that a reading is lost: the one before is returned, with its stamp and number.
        seed: Seed of noise and drops.
    """

    observation_delay_steps: int = 0
    observation_delay_s: float = 0.0
    action_delay_steps: int = 0
    proprio_noise: float | tuple[float, ...] = 0.0
    noise: Literal["uniform", "gaussian"] = "uniform"
    drop_rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = np.atleast_1d(self.proprio_noise)
        if self.observation_delay_steps < 0 or self.action_delay_steps < 0:
            raise BadInputError(f"delays: expected 0 or more control steps, came {self}.")
        if not 0.0 <= self.observation_delay_s < np.inf:
            raise BadInputError(f"observation_delay_s: expected 0 s or more, came {self.observation_delay_s}.")
        if not (np.isfinite(bounds).all() and (bounds >= 0).all()):
            raise BadInputError(f"proprio_noise: expected bounds of 0 or more, came {self.proprio_noise}.")
        if not 0.0 <= self.drop_rate < 1.0:
            raise BadInputError(f"drop_rate: expected 0 <= rate < 1, came {self.drop_rate}.")


@dataclass(frozen=True)
class _World:
    """The simulation after one control step: true since ``since`` until the next one's."""

    since: float
    image: np.ndarray
    proprio: np.ndarray | None


class GymRobot:
    """A Gymnasium environment behind `wm.robot.Robot`.

    Observation: a Dict with ``image`` (a square uint8 RGB picture) and, optionally, ``proprio``. Action: a bounded Box.
    Names, units and rate come from the environment's ``env_spec`` where it has one, and its exact motion from its
    ``kinematics``. An episode's end is not one for a robot: the environment is stepped on.

    A stop lasts until the next `send_action`. Stepped, it has come to rest when `stop` returns: the simulation is
    advanced with the stay action until no number of proprioception changes by more than 1e-5 of the kinematics' scale
    (0.001 without kinematics), at most ``stop_steps`` control steps (all of them when the environment reports no
    proprioception). Free running, the stay action is held
    from the next control step on, and `stop` returns at once.

    Args:
        env: The environment; it stays the caller's (it is never closed here).
        impairments: Delays, noise and drops.
        free_running: Own thread in real time, see the module.
        deadman_periods: Free running: control periods after the last action at which it brakes.
        stop_steps: Most control steps that one `stop` advances.
        reset_seed: Seed of the start state; every `connect` starts the same episode anew.
        reset_options: Options of ``env.reset``.
        control_hz: Control steps per second; needed when the environment has no ``env_spec``.
        stay_action: True proprioception ``(P,)`` (or None) to the action that brakes. Default: zero for relative
            kinematics, the present position for absolute ones; needed when there are no ``kinematics``.
        clock: Monotonic seconds.

    Raises:
        BadInputError: spaces that no robot has, or something needed is missing.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        impairments: Impairments | None = None,
        free_running: bool = False,
        deadman_periods: float = 3.0,
        stop_steps: int = 100,
        reset_seed: int | None = None,
        reset_options: Mapping[str, Any] | None = None,
        control_hz: float | None = None,
        stay_action: Callable[[np.ndarray | None], np.ndarray] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if deadman_periods <= 0 or stop_steps < 1:
            raise BadInputError(f"deadman_periods, stop_steps: expected > 0, came {deadman_periods}, {stop_steps}.")
        self.env, self.impairments = env, impairments or Impairments()
        self.free_running, self.deadman_periods, self.stop_steps = free_running, deadman_periods, stop_steps
        self.info: dict[str, Any] = {}
        """The environment's own report of the last control step; never an observation."""
        self._reset: dict[str, Any] = {"seed": reset_seed, "options": dict(reset_options) if reset_options else None}
        self._clock = clock
        self._observation, self._action = specs_of(env, control_hz)
        self._kinematics: PointKinematics | None = getattr(env.unwrapped, "kinematics", None)
        if stay_action is None and self._kinematics is None:
            raise BadInputError("stay_action: the environment declares no kinematics, so how to brake has to be said.")
        self._stay_action = stay_action or self._kinematic_stay
        self._noise_bound = _noise_bound(self.impairments, self._observation.proprio)
        self._lock = threading.RLock()
        self._connected = False
        self._failure: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def observation_spec(self) -> ObservationSpec:
        """Picture size and proprioception."""
        return self._observation

    @property
    def action_spec(self) -> ActionSpec:
        """The environment's action."""
        return self._action

    @property
    def kinematics(self) -> PointKinematics | None:
        """The environment's exact motion, or None."""
        return self._kinematics

    def connect(self) -> None:
        """Start an episode; nothing when already connected.

        Raises:
            RobotError: the environment fails, or its first observation is not what its space says.
        """
        with self._lock:
            if self._connected:
                return
            observation, self.info = self._guarded(self.env.reset, **self._reset)
            self._worlds: deque[_World] = deque([self._guarded(self._world, observation)])
            self._began = self._worlds[0].since
            self._rng = np.random.default_rng(self.impairments.seed)
            self._last: RobotObservation | None = None
            self._last_world: _World | None = None
            self._waiting: deque[np.ndarray | None] = deque([None] * self.impairments.action_delay_steps)
            self._held: np.ndarray | None = None
            self._held_since = self._began
            self._failure, self._connected = None, True
            if self.free_running:
                self._ended = threading.Event()
                self._thread = threading.Thread(target=self._run, name="gym-robot", daemon=True)
                self._thread.start()

    def get_observation(self) -> RobotObservation:
        """The newest reading; a lost one is answered with the one before.

        Raises:
            RobotError: not connected, or the simulation failed.
        """
        with self._lock:
            self._require_connected()
            world, stamp = self._visible(self._clock())
            last = self._last
            if last is not None:
                if world is self._last_world and stamp <= last.stamp:
                    return last
                if self._rng.random() < self.impairments.drop_rate:
                    return last
            sequence = 0 if last is None else last.sequence + 1
            self._last = RobotObservation(world.image.copy(), self._measured(world.proprio), stamp, sequence)
            self._last_world = world
            return self._last

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """Hold an action for one control period; stepped, this is when the simulation advances.

        Args:
            action: ``(A / F,)`` raw units; outside its bounds it is clipped.

        Returns:
            ``(A / F,)`` float64: what the environment receives (once the action delay has passed).

        Raises:
            BadInputError: another shape, NaN or infinity; nothing moved.
            RobotError: not connected, or the simulation failed.
        """
        numbers = clipped_action(action, self._action)
        sent = numbers.astype(self.env.action_space.dtype)
        with self._lock:
            self._require_connected()
            self._held, self._held_since = sent, self._clock()
            if not self.free_running:
                self._advance(sent)
        return sent.astype(np.float64)

    def stop(self) -> None:
        """Brake to rest and hold until the next action (see the class); nothing when not connected.

        Raises:
            RobotError: the simulation failed.
        """
        with self._lock:
            if not self._connected:
                return
            self._held = None
            self._waiting = deque([None] * self.impairments.action_delay_steps)
            if not self.free_running:
                self._brake()

    def disconnect(self) -> None:
        """Brake to rest and end; nothing when not connected."""
        thread = self._thread
        if thread is not None:
            self._ended.set()
            if thread is not threading.current_thread():
                thread.join()
            self._thread = None
        with self._lock:
            if self._connected and self._failure is None:
                self._held = None
                self._waiting = deque([None] * self.impairments.action_delay_steps)
                self._brake()
            self._connected = False

    def _require_connected(self) -> None:
        if self._failure is not None:
            raise RobotError(self._failure)
        if not self._connected:
            raise RobotError("simulated robot: not connected; call connect() first.")

    def _guarded(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """A call into the environment, whose own errors mean that the robot is broken."""
        try:
            return call(*args, **options)
        except Exception as error:
            self._failure = f"simulated robot: the environment failed ({type(error).__name__}: {error})."
            raise RobotError(self._failure) from error

    def _world(self, observation: Any) -> _World:
        spec, image = self._observation, np.asarray(observation["image"])
        if image.shape != (spec.image_size, spec.image_size, 3) or image.dtype != np.uint8:
            raise RobotError(f"simulated robot: expected a {spec.image_size} px uint8 picture, came {image.shape}.")
        if spec.proprio is None:
            return _World(self._clock(), image, None)
        proprio = np.array(observation["proprio"], np.float32)
        if proprio.shape != (spec.proprio.width,) or not np.isfinite(proprio).all():
            raise RobotError(f"simulated robot: expected finite proprio {spec.proprio.names}, came {proprio.tolist()}.")
        return _World(self._clock(), image, proprio)

    def _advance(self, action: np.ndarray | None) -> None:
        """One control step; None stays."""
        self._waiting.append(action)
        act = self._waiting.popleft()
        if act is None:
            stay = self._guarded(self._stay_action, self._worlds[-1].proprio)
            act = clipped_action(stay, self._action).astype(self.env.action_space.dtype)
        observation, _, _, _, self.info = self._guarded(self.env.step, act)
        self._worlds.append(self._guarded(self._world, observation))
        seen, back = self._clock() - self.impairments.observation_delay_s, self.impairments.observation_delay_steps
        while len(self._worlds) > back + 1 and self._worlds[back + 1].since <= seen:
            self._worlds.popleft()

    def _brake(self) -> None:
        most = _REST if self._kinematics is None else _REST_SHARE * self._kinematics.scale
        for _ in range(self.stop_steps):
            before = self._worlds[-1].proprio
            self._advance(None)
            after = self._worlds[-1].proprio
            if before is not None and after is not None and float(np.abs(after - before).max()) < most:
                return

    def _kinematic_stay(self, proprio: np.ndarray | None) -> np.ndarray:
        assert self._kinematics is not None
        if self._kinematics.relative or proprio is None:
            return np.zeros(self._action.width)
        return proprio[: self._action.width].astype(np.float64) / self._kinematics.scale

    def _visible(self, now: float) -> tuple[_World, float]:
        """The world that a reading at ``now`` shows, and when it was so.

        Free running, a world is true in the instant of its control step; stepped, it stands still until the next one.
        """
        seen = now - self.impairments.observation_delay_s
        newest = max((i for i, world in enumerate(self._worlds) if world.since <= seen), default=0)
        shown = max(0, newest - self.impairments.observation_delay_steps)
        if self.free_running:
            return self._worlds[shown], self._worlds[shown].since
        stamp = seen if shown == newest else min(seen, self._worlds[shown + 1].since)
        return self._worlds[shown], max(stamp, self._began)

    def _measured(self, proprio: np.ndarray | None) -> np.ndarray | None:
        if proprio is None:
            return None
        bound = self._noise_bound
        if self.impairments.noise == "uniform":
            error = self._rng.uniform(-bound, bound)
        else:
            error = np.clip(self._rng.normal(0.0, bound / 3.0), -bound, bound)
        return (proprio + error).astype(np.float32)

    def _run(self) -> None:
        """Free running: a control step each period; steps that are missed are not caught up with."""
        period = 1.0 / self._action.control_hz
        due = self._clock() + period
        while not self._ended.wait(max(0.0, due - self._clock())):
            if self._clock() < due:
                continue
            with self._lock:
                if self._clock() - self._held_since > self.deadman_periods * period:
                    self._held = None
                try:
                    self._advance(self._held)
                except RobotError:
                    return  # kept in _failure, which the next call raises
            due = max(due + period, self._clock())


def specs_of(env: gymnasium.Env[Any, Any], control_hz: float | None = None) -> tuple[ObservationSpec, ActionSpec]:
    """Robot specifications of an environment: its ``env_spec``, or else what its spaces tell.

    Raises:
        BadInputError: no square uint8 picture, no bounded Box of actions, no rate, or an ``env_spec`` of other bounds.
    """
    observation, action = env.observation_space, env.action_space
    image = observation.spaces.get("image") if isinstance(observation, spaces.Dict) else None
    square = isinstance(image, spaces.Box) and len(image.shape) == 3 and image.shape[0] == image.shape[1]
    if not isinstance(image, spaces.Box) or not square or image.shape[2] != 3 or image.dtype != np.uint8:
        raise BadInputError(f"environment: expected a Dict with a square uint8 RGB 'image', came {observation}.")
    if not isinstance(action, spaces.Box) or len(action.shape) != 1 or not action.is_bounded():
        raise BadInputError(f"environment: expected a bounded Box of actions with one axis, came {action}.")
    known = getattr(env.unwrapped, "env_spec", None)
    if known is not None:
        if (
            action.low.tolist() != np.array(known.action.low, action.dtype).tolist()
            or action.high.tolist() != np.array(known.action.high, action.dtype).tolist()
        ):
            raise BadInputError(f"environment: its env_spec has {known.action}, but its action space is {action}.")
        return ObservationSpec(image.shape[0], known.proprio), known.action
    if control_hz is None or not 0 < control_hz < np.inf:
        raise BadInputError(f"control_hz: the environment has no env_spec; expected a rate above 0, came {control_hz}.")
    names = tuple(f"a{i}" for i in range(action.shape[0]))
    low, high = tuple(map(float, action.low)), tuple(map(float, action.high))
    own = observation.spaces.get("proprio") if isinstance(observation, spaces.Dict) else None
    width = own.shape[0] if own is not None and own.shape else 0
    proprio = ProprioSpec(tuple(f"p{i}" for i in range(width)), ("raw",) * width) if width else None
    return ObservationSpec(image.shape[0], proprio), ActionSpec(names, "raw", low, high, float(control_hz))


def _noise_bound(impairments: Impairments, proprio: ProprioSpec | None) -> np.ndarray:
    width = proprio.width if proprio is not None else 0
    bounds = np.atleast_1d(np.asarray(impairments.proprio_noise, np.float64))
    if bounds.shape not in ((1,), (width,)):
        raise BadInputError(f"proprio_noise: expected 1 or {width} bounds, came {len(bounds)}.")
    return np.broadcast_to(bounds, (width,))
