"""LeRobot's robots as ours, and ours as LeRobot's: thin, both ways, and without importing LeRobot.

LeRobot's interface (``lerobot.robots.Robot``, 0.4): ``observation_features`` and ``action_features`` are dicts of key
to `float` or to a picture's ``(H, W, 3)``; ``get_observation()`` returns such a dict, ``send_action(dict)`` what was
sent in the end; ``connect(calibrate=True)`` when connected, and anything else when not, raises. It knows no stop,
no time stamps and no bounds, which therefore have to be said here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from wm.envs.actions import checked_action, clipped_action
from wm.errors import BadInputError, RobotError
from wm.kinematics import PointKinematics
from wm.robot import ObservationSpec, Robot, RobotObservation
from wm.specs import ActionSpec, ProprioSpec


@runtime_checkable
class LeRobot(Protocol):
    """The part of ``lerobot.robots.Robot`` that is used."""

    @property
    def observation_features(self) -> dict[str, Any]:
        """Key to `float`, or to a picture's ``(H, W, 3)``."""
        ...

    @property
    def action_features(self) -> dict[str, Any]:
        """Key to `float`."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether it is."""
        ...

    def connect(self, calibrate: bool = True) -> None:
        """Open the connection."""
        ...

    def get_observation(self) -> dict[str, Any]:
        """One reading."""
        ...

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Send; returns what was sent."""
        ...

    def disconnect(self) -> None:
        """Close the connection."""
        ...


class RobotFromLeRobot:
    """A LeRobot robot behind `wm.robot.Robot`.

    It is connected with ``calibrate=False``, because LeRobot's calibration asks questions on the terminal: calibrate it
    before. `stop` reads the robot once and sends what ``brake`` says of the reading, or of the last one when there is
    none, e.g. because a camera failed. LeRobot's buses take one call at a time, so it waits for one that is under way,
    and for its reading; but after ``patience_s`` they count as hung, and the brake is sent beside them.

    Args:
        lerobot: The robot; its life is the caller's, its connection is this object's.
        camera: Key of the picture. It is cropped to its central square, then resized.
        action_spec: Order, unit, bounds and rate of the action; LeRobot knows no bounds.
        proprio_spec: What to report as proprioception, or None.
        brake: Proprioception ``(P,)`` (None: nothing has been read) to the action ``(A / F,)`` that brakes and holds:
            the present position for a robot that is told positions, zero for one that is told velocities.
        action_keys: LeRobot's key of each number of the action; default its names.
        proprio_keys: LeRobot's key of each number of proprioception; default their names.
        image_size: Side of the picture, pixels; default the camera's shorter one.
        kinematics: The robot's exact motion, or None.
        frame_age_s: How old the camera's newest frame may be when the robot is asked; stamps are earlier by it. LeRobot
            itself refuses frames only from 0.5 s on. [s]
        patience_s: Longest time that a stop waits before it sends the brake. [s]
        clock: Monotonic seconds.

    Raises:
        BadInputError: the robot's features have no such keys, or actions that would not be sent.
    """

    def __init__(
        self,
        lerobot: LeRobot,
        *,
        camera: str,
        action_spec: ActionSpec,
        proprio_spec: ProprioSpec | None,
        brake: Callable[[np.ndarray | None], np.ndarray],
        action_keys: Sequence[str] | None = None,
        proprio_keys: Sequence[str] | None = None,
        image_size: int | None = None,
        kinematics: PointKinematics | None = None,
        frame_age_s: float = 0.0,
        patience_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lerobot, self._camera, self._action, self._brake = lerobot, camera, action_spec, brake
        self._action_keys = tuple(action_keys or action_spec.names)
        self._proprio_keys = tuple(proprio_keys or (proprio_spec.names if proprio_spec else ()))
        self._kinematics, self._frame_age_s, self._clock = kinematics, frame_age_s, clock
        height, width = self._check_features(proprio_spec)
        self._observation = ObservationSpec(image_size or min(height, width), proprio_spec)
        self._lock, self._patience_s = threading.Lock(), patience_s
        self._sequence, self._connected = 0, False
        self._last: np.ndarray | None = None  # proprioception of the newest reading

    @property
    def observation_spec(self) -> ObservationSpec:
        """Picture size and proprioception."""
        return self._observation

    @property
    def action_spec(self) -> ActionSpec:
        """Names, unit, bounds and rate."""
        return self._action

    @property
    def kinematics(self) -> PointKinematics | None:
        """As given."""
        return self._kinematics

    def connect(self) -> None:
        """Open the connection without calibrating; nothing when connected.

        Raises:
            RobotError: LeRobot's robot raises anything.
        """
        with self._lock:
            if not self.lerobot.is_connected:
                self._call(self.lerobot.connect, calibrate=False)
            if not self._connected:
                self._connected, self._last = True, None

    def get_observation(self) -> RobotObservation:
        """A new reading; its stamp is when it was asked for, less ``frame_age_s``.

        Raises:
            RobotError: not connected, LeRobot's robot raises anything, or it reports something else than it said.
        """
        with self._lock:
            asked = self._clock()
            seen = self._seen({self._camera, *self._proprio_keys})
            self._sequence += 1
            image, proprio = self._picture(seen[self._camera]), self._proprio(seen)
            return RobotObservation(image, proprio, asked - self._frame_age_s, self._sequence)

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """Send an action ``(A / F,)`` raw units, clipped to its bounds; returns what LeRobot says was sent.

        Raises:
            BadInputError: another shape, NaN or infinity; nothing was sent.
            RobotError: not connected, or LeRobot's robot raises anything or returns no such action.
        """
        numbers = clipped_action(action, self._action)
        with self._lock:
            if not self.lerobot.is_connected:
                raise RobotError("LeRobot robot: not connected; call connect() first.")
            return self._send(numbers)

    def stop(self) -> None:
        """Brake and hold until the next action; nothing when not connected. It needs no reading and waits for none.

        Raises:
            RobotError: LeRobot's robot cannot be told, e.g. because it lost its connection; or ``brake`` failed.
        """
        if not (self._connected or self.lerobot.is_connected):
            return
        ends = time.monotonic() + self._patience_s
        if self._proprio_keys:
            reader = threading.Thread(target=self._look, name="lerobot-look", daemon=True)
            reader.start()
            reader.join(self._patience_s)
        with self._turn(ends):
            try:
                numbers = clipped_action(self._brake(self._last), self._action)
            except Exception as error:
                raise RobotError(f"LeRobot robot: its brake failed: {type(error).__name__}: {error}") from error
            self._send(numbers)

    def disconnect(self) -> None:
        """Brake and close, also when the brake fails (the error is `stop`'s); nothing when not connected."""
        try:
            self.stop()
        finally:
            with self._turn(time.monotonic() + self._patience_s):
                self._connected = False
                if self.lerobot.is_connected:
                    self._call(self.lerobot.disconnect)

    @contextlib.contextmanager
    def _turn(self, ends: float) -> Iterator[None]:
        """LeRobot's robot to oneself; after ``ends``, monotonic seconds, beside a call that hangs."""
        mine = self._lock.acquire(timeout=max(0.0, ends - time.monotonic()))
        try:
            yield
        finally:
            if mine:
                self._lock.release()

    def _look(self) -> None:
        """Read proprioception for a stop, if it can be read."""
        with self._lock, contextlib.suppress(RobotError):
            self._proprio(self._seen(set(self._proprio_keys)))

    def _check_features(self, proprio: ProprioSpec | None) -> tuple[int, int]:
        seen, acted = self.lerobot.observation_features, self.lerobot.action_features
        if set(acted) != set(self._action_keys) or len(self._action_keys) != self._action.width:
            raise BadInputError(f"LeRobot actions: expected the keys {sorted(acted)}, came {list(self._action_keys)}.")
        width = proprio.width if proprio else 0
        if not set(self._proprio_keys) <= set(seen) or len(self._proprio_keys) != width:
            raise BadInputError(
                f"LeRobot state: expected {width} keys of {sorted(seen)}, came {list(self._proprio_keys)}."
            )
        shape = seen.get(self._camera)
        if not isinstance(shape, (tuple, list)) or len(shape) != 3 or shape[2] != 3:
            raise BadInputError(f"LeRobot camera: expected a picture among {seen}, came '{self._camera}'.")
        return int(shape[0]), int(shape[1])

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """A call of LeRobot, whose drivers raise whatever their bus does."""
        try:
            return method(*args, **options)
        except Exception as error:
            raise RobotError(f"LeRobot robot: {type(error).__name__}: {error}") from error

    def _seen(self, keys: set[str]) -> dict[str, Any]:
        seen = self._call(self.lerobot.get_observation)
        missing = keys - set(seen)
        if missing:
            raise RobotError(f"LeRobot robot: its observation lacks {sorted(missing)}.")
        return seen

    def _proprio(self, seen: dict[str, Any]) -> np.ndarray | None:
        if not self._proprio_keys:
            return None
        came = [seen[key] for key in self._proprio_keys]
        try:
            numbers = np.array([float(value) for value in came], np.float32)
        except (TypeError, ValueError):
            numbers = np.full(len(came), np.nan, np.float32)
        if not np.isfinite(numbers).all():
            raise RobotError(f"LeRobot robot: expected finite {self._proprio_keys}, came {came}.")
        self._last = numbers.copy()
        return numbers

    def _picture(self, value: Any) -> np.ndarray:
        image, size = np.asarray(value), self._observation.image_size
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise RobotError(f"LeRobot robot: expected (H, W, 3) uint8, came {image.shape} {image.dtype}.")
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = image[top : top + side, left : left + side]
        if side == size:
            return square.copy()
        finer = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(square, (size, size), interpolation=finer), np.uint8)

    def _send(self, numbers: np.ndarray) -> np.ndarray:
        command = {key: float(number) for key, number in zip(self._action_keys, numbers, strict=True)}
        sent = self._call(self.lerobot.send_action, command)
        try:
            return checked_action(np.array([float(sent[key]) for key in self._action_keys]), self._action)
        except (KeyError, TypeError, ValueError, BadInputError) as error:
            raise RobotError(f"LeRobot robot: expected the action that was sent, came {sent}.") from error


class LeRobotDeviceError(RobotError, ConnectionError):
    """As LeRobot's ``DeviceNotConnectedError`` and ``DeviceAlreadyConnectedError``, a `ConnectionError`."""


class LeRobotFromRobot:
    """One of our robots with LeRobot's interface, e.g. for its recording and teleoperation.

    Keys: the names of proprioception and of the action, and ``camera``. Numbers are raw units. LeRobot has no stop:
    `disconnect` brakes; `stop` is there for those who know.

    Args:
        robot: Ours.
        camera: Key of the picture.
        name: What LeRobot calls the type of robot.
        id: Which one of that type.

    Raises:
        BadInputError: the camera's key is one of proprioception's.
    """

    def __init__(self, robot: Robot, camera: str = "front", name: str = "wm", id: str | None = None) -> None:
        proprio = robot.observation_spec.proprio
        if proprio is not None and camera in proprio.names:
            raise BadInputError(f"camera: expected another key than {proprio.names}, came '{camera}'.")
        self.robot, self.camera, self.name, self.robot_type, self.id = robot, camera, name, name, id
        self._connected = False

    @property
    def observation_features(self) -> dict[str, type | tuple[int, int, int]]:
        """`float` per number of proprioception, ``(H, W, 3)`` for the picture."""
        spec = self.robot.observation_spec
        numbers: dict[str, type | tuple[int, int, int]] = dict.fromkeys(
            spec.proprio.names if spec.proprio else (), float
        )
        return {**numbers, self.camera: (spec.image_size, spec.image_size, 3)}

    @property
    def action_features(self) -> dict[str, type]:
        """`float` per number of the action."""
        return dict.fromkeys(self.robot.action_spec.names, float)

    @property
    def is_connected(self) -> bool:
        """Whether it is."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """Always: ours have nothing to calibrate."""
        return True

    def calibrate(self) -> None:
        """Nothing."""

    def configure(self) -> None:
        """Nothing."""

    def connect(self, calibrate: bool = True) -> None:
        """Connect the robot.

        Raises:
            LeRobotDeviceError: connected already.
            RobotError: the robot's own.
        """
        if self._connected:
            raise LeRobotDeviceError(f"{self.name} is already connected.")
        self.robot.connect()
        self._connected = True

    def get_observation(self) -> dict[str, Any]:
        """Key to `float` or to a ``(H, W, 3)`` uint8 picture.

        Raises:
            LeRobotDeviceError: not connected.
            RobotError: the robot's own.
        """
        self._require_connected()
        seen, spec = self.robot.get_observation(), self.robot.observation_spec.proprio
        names = spec.names if spec is not None else ()
        numbers = seen.proprio.tolist() if seen.proprio is not None else []
        return {**dict(zip(names, numbers, strict=True)), self.camera: seen.image}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Send; returns what was actually sent.

        Raises:
            LeRobotDeviceError: not connected.
            BadInputError: other keys, or not finite numbers; nothing was sent.
            RobotError: the robot's own.
        """
        self._require_connected()
        names = self.robot.action_spec.names
        if set(action) != set(names):
            raise BadInputError(f"action: expected the keys {list(names)}, came {list(action)}.")
        try:
            numbers = np.array([float(action[name]) for name in names])
        except (TypeError, ValueError):
            raise BadInputError(f"action: expected numbers, came {action}.") from None
        sent = self.robot.send_action(numbers)
        return dict(zip(names, sent.tolist(), strict=True))

    def stop(self) -> None:
        """Brake to rest and hold."""
        self.robot.stop()

    def disconnect(self) -> None:
        """Brake and disconnect the robot.

        Raises:
            LeRobotDeviceError: not connected.
        """
        self._require_connected()
        self.robot.disconnect()
        self._connected = False

    def __enter__(self) -> LeRobotFromRobot:
        self.connect()
        return self

    def __exit__(self, *error: object) -> None:
        self.disconnect()

    def _require_connected(self) -> None:
        if not self._connected:
            raise LeRobotDeviceError(f"{self.name} is not connected; call connect() first.")
