from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.contracts.robot_suite import SIZE, START, Driven, RecordedWorld, RobotContract
from wm.envs.gym_robot import GymRobot
from wm.envs.lerobot import LeRobotFromRobot, RobotFromLeRobot
from wm.errors import BadInputError, RobotError
from wm.specs import ActionSpec, ProprioSpec

pytestmark = pytest.mark.real_time

JOINTS = ("shoulder_pan", "elbow_flex", "gripper")
KEYS = tuple(f"{joint}.pos" for joint in JOINTS)
ARM = ActionSpec(JOINTS, "deg", (-90.0, -45.0, 0.0), (90.0, 45.0, 100.0), 50.0)
STATE = ProprioSpec(JOINTS, ("deg", "deg", "%"))


class DeviceNotConnectedError(ConnectionError):
    pass


class DeviceAlreadyConnectedError(ConnectionError):
    pass


class Arm:
    """As LeRobot's SO-101 follower behaves (0.4.4, `lerobot.robots.so_follower`): keys, types, errors, calibration."""

    name = robot_type = "so101_follower"

    def __init__(self) -> None:
        self._connected = False
        self.present = np.array([10.0, -5.0, 50.0])
        self.goals: list[dict[str, float]] = []
        self.calls: list[str] = []
        self.failing: Exception | None = None
        self.before_reading: Callable[[], None] = lambda: None

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(KEYS, float), "front": (48, 64, 3)}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(KEYS, float)

    @property
    def is_connected(self) -> bool:
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        return False

    def connect(self, calibrate: bool = True) -> None:
        if self._connected:
            raise DeviceAlreadyConnectedError("Arm is already connected.")
        if calibrate:
            raise EOFError("EOF when reading a line")  # its calibration calls input()
        self._connected = True

    def get_observation(self) -> dict[str, Any]:
        self._require("get_observation")
        self.before_reading()
        if self.goals:  # half of the way each time
            self.present = (self.present + [self.goals[-1][key] for key in KEYS]) / 2
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :8] = 255
        image[8:40, 24:40] = [200, 100, 50]
        return {
            **{key: x if isinstance(x, str) else np.float32(x) for key, x in zip(KEYS, self.present, strict=True)},
            "front": image,
        }

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self._require("send_action")
        assert all(type(value) is float for value in action.values())
        self.goals.append({key: value for key, value in action.items() if key.endswith(".pos")})
        return dict(self.goals[-1])

    def disconnect(self) -> None:
        self._require("disconnect")
        self._connected = False

    def _require(self, call: str) -> None:
        self.calls.append(call)
        if not self._connected:
            raise DeviceNotConnectedError("Arm is not connected. Run `.connect()` first.")
        if self.failing is not None:
            raise self.failing


def hold(proprio: np.ndarray | None) -> np.ndarray:
    assert proprio is not None
    return proprio


def adapted(arm: Any, **options: Any) -> RobotFromLeRobot:
    given: dict[str, Any] = {"camera": "front", "action_spec": ARM, "proprio_spec": STATE, "brake": hold}
    return RobotFromLeRobot(arm, **{**given, "action_keys": KEYS, "proprio_keys": KEYS, **options})


class TestLeRobotAsOurs(RobotContract):
    @contextmanager
    def build(self) -> Iterator[Driven]:
        arm = Arm()
        yield Driven(adapted(arm), lambda: [np.array([goal[key] for key in KEYS]) for goal in arm.goals])


class TestOursAsLeRobotAsOurs(RobotContract):
    @contextmanager
    def build(self) -> Iterator[Driven]:
        world = RecordedWorld()
        robot = GymRobot(world, reset_options={"state": START})
        there = LeRobotFromRobot(robot, camera="top")
        back = RobotFromLeRobot(
            there,
            camera="top",
            action_spec=robot.action_spec,
            proprio_spec=robot.observation_spec.proprio,
            brake=lambda proprio: np.zeros(2),
            kinematics=robot.kinematics,
        )
        assert back.observation_spec == robot.observation_spec
        yield Driven(back, lambda: world.received)


def test_a_stop_sends_the_present_position_inside_the_bounds() -> None:
    arm = Arm()
    robot = adapted(arm)
    robot.connect()
    arm.present = np.array([120.0, 3.0, 40.0])
    robot.stop()
    assert arm.goals == [dict(zip(KEYS, [90.0, 3.0, 40.0], strict=True))]


def test_disconnecting_brakes_first() -> None:
    arm = Arm()
    robot = adapted(arm)
    robot.connect()
    robot.disconnect()
    assert arm.calls == ["get_observation", "send_action", "disconnect"] and not arm.is_connected


def test_the_picture_is_the_middle_square_in_the_asked_size() -> None:
    for size in (48, 24):
        robot = adapted(Arm(), image_size=size)
        robot.connect()
        image = robot.get_observation().image
        assert image.shape == (size, size, 3)
        assert image[:, 0].max() == 0  # the white border is cut off
        np.testing.assert_array_equal(image[size // 2, size // 2], [200, 100, 50])


def test_a_stamp_is_no_newer_than_the_camera_may_be() -> None:
    robot = adapted(Arm(), frame_age_s=0.05, clock=lambda: 7.0)
    robot.connect()
    assert robot.get_observation().stamp == pytest.approx(6.95)


def test_whatever_a_driver_raises_becomes_a_robot_error() -> None:
    arm = Arm()
    robot = adapted(arm)
    robot.connect()
    robot.get_observation()
    arm.failing = TimeoutError("no status packet")
    for call in (robot.get_observation, robot.stop, lambda: robot.send_action(np.zeros(3))):
        with pytest.raises(RobotError, match="TimeoutError: no status packet"):
            call()
    arm.failing = None


@pytest.mark.parametrize("bad", [np.nan, np.inf, "?"])
def test_nonsense_of_a_sensor_is_refused(bad: Any) -> None:
    arm = Arm()
    robot = adapted(arm)
    robot.connect()
    arm.present = np.array([0.0, bad, 0.0], object)
    with pytest.raises(RobotError, match="expected finite"):
        robot.get_observation()
    assert arm.goals == []


VELOCITIES = {"action_spec": replace(ARM, unit="deg/s", low=(-9.0,) * 3, high=(9.0,) * 3)}


def no_frame() -> None:
    raise TimeoutError("camera front: no frame for 500 ms")


@pytest.mark.parametrize("call", ["stop", "disconnect"])
def test_a_stop_needs_no_working_camera_and_brakes_with_the_last_reading(call: str) -> None:
    arm = Arm()
    robot = adapted(arm)
    robot.connect()
    robot.get_observation()
    robot.send_action(np.array([20.0, -5.0, 50.0]))
    arm.before_reading = no_frame
    getattr(robot, call)()
    assert arm.goals[-1] == dict(zip(KEYS, [10.0, -5.0, 50.0], strict=True))
    assert arm.is_connected == (call == "stop")


def test_a_stop_without_any_reading_asks_the_brake_without_one() -> None:
    arm = Arm()
    robot = adapted(arm, brake=lambda proprio: np.zeros(3), **VELOCITIES)
    robot.connect()
    robot.send_action(np.full(3, 0.8))
    arm.before_reading = no_frame
    robot.stop()
    assert set(arm.goals[-1].values()) == {0.0}
    arm, asked = Arm(), []
    robot = adapted(arm, brake=lambda proprio: asked.append(proprio) or hold(proprio))
    robot.connect()
    arm.before_reading = no_frame
    with pytest.raises(RobotError, match="its brake failed: AssertionError"):
        robot.stop()
    assert asked == [None] and arm.goals == []


def test_a_reading_of_the_last_connection_is_not_braked_with() -> None:
    arm, asked = Arm(), []
    robot = adapted(arm, brake=lambda proprio: asked.append(proprio) or np.zeros(3), **VELOCITIES)
    robot.connect()
    robot.disconnect()
    robot.connect()
    arm.before_reading = no_frame
    robot.stop()
    assert asked[0] is not None and asked[1] is None


@pytest.mark.parametrize("call", ["stop", "disconnect"])
def test_a_stop_does_not_wait_for_a_reading_that_hangs(call: str) -> None:
    arm, hangs, go_on = Arm(), threading.Event(), threading.Event()
    robot = adapted(arm, patience_s=0.1)
    robot.connect()
    robot.get_observation()
    robot.send_action(np.array([20.0, -5.0, 50.0]))

    def hang() -> None:
        hangs.set()
        go_on.wait(20.0)

    arm.before_reading = hang
    threads = [threading.Thread(target=robot.get_observation)] if call == "stop" else []
    try:
        for thread in threads:
            thread.start()
            assert hangs.wait(3.0)
        began = time.monotonic()
        getattr(robot, call)()
        assert time.monotonic() - began < 2.0
        assert arm.goals[-1] == dict(zip(KEYS, [10.0, -5.0, 50.0], strict=True))
        assert arm.is_connected == (call == "stop")
    finally:
        go_on.set()
        for thread in threads:
            thread.join()


def test_a_stop_waits_for_a_call_that_does_not_hang() -> None:
    arm, reading = Arm(), threading.Event()
    robot = adapted(arm, patience_s=5.0)
    robot.connect()

    def slow() -> None:
        reading.set()
        time.sleep(0.1)
        arm.calls.append("read")

    arm.before_reading = slow
    thread = threading.Thread(target=robot.get_observation)
    thread.start()
    assert reading.wait(3.0)
    robot.stop()
    thread.join()
    assert arm.calls == ["get_observation", "read"] * 2 + ["send_action"]


def test_a_stop_of_a_robot_that_was_lost_says_so() -> None:
    arm = Arm()
    robot = adapted(arm)
    robot.connect()
    robot.get_observation()
    arm._connected = False  # e.g. a camera's cable: LeRobot then calls the whole robot not connected
    with pytest.raises(RobotError, match="DeviceNotConnectedError"):
        robot.stop()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_keys": KEYS[:2]}, "LeRobot actions: expected the keys"),
        ({"action_keys": (*KEYS[:2], "wrist.pos")}, "LeRobot actions: expected the keys"),
        ({"proprio_keys": (*KEYS[:2], "wrist.pos")}, "LeRobot state: expected 3 keys"),
        ({"camera": "side"}, "LeRobot camera: expected a picture"),
        ({"camera": KEYS[0]}, "LeRobot camera: expected a picture"),
    ],
)
def test_other_keys_than_the_robots_are_refused_at_once(options: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        adapted(Arm(), **options)


def test_ours_behaves_as_lerobots_do() -> None:
    world = RecordedWorld()
    robot = LeRobotFromRobot(GymRobot(world, reset_options={"state": START}), camera="top", name="pusht", id="a")
    assert robot.observation_features == {**dict.fromkeys(("x", "y", "vx", "vy"), float), "top": (SIZE, SIZE, 3)}
    assert robot.action_features == {"dx": float, "dy": float}
    assert robot.is_calibrated and not robot.is_connected and robot.robot_type == "pusht"
    for call in (robot.get_observation, robot.disconnect, lambda: robot.send_action({"dx": 0.0, "dy": 0.0})):
        with pytest.raises(ConnectionError, match="not connected"):
            call()
    with robot:
        with pytest.raises(ConnectionError, match="already connected"):
            robot.connect(calibrate=False)
        seen = robot.get_observation()
        assert seen.keys() == robot.observation_features.keys() and seen["top"].shape == (SIZE, SIZE, 3)
        assert {key: type(value) for key, value in seen.items() if key != "top"} == dict.fromkeys(list(seen)[:4], float)
        assert robot.send_action({"dy": 0.5, "dx": 7.0}) == {"dx": 1.0, "dy": 0.5}
        np.testing.assert_array_equal(world.received, [[1.0, 0.5]])
    assert not robot.is_connected and np.linalg.norm(world.position()[2:]) < 0.1


@pytest.mark.parametrize("action", [{"dx": 0.1}, {"dx": 0.1, "dy": 0.2, "dz": 0.3}, {}])
def test_ours_refuses_an_action_with_other_keys(action: Any) -> None:
    world = RecordedWorld()
    with LeRobotFromRobot(GymRobot(world)) as robot:
        with pytest.raises(BadInputError, match="expected the keys"):
            robot.send_action(action)
        with pytest.raises(BadInputError, match="expected numbers"):
            robot.send_action({"dx": "fast", "dy": None})
        assert world.received == []


def test_camera_and_state_need_different_keys() -> None:
    with pytest.raises(BadInputError, match="expected another key than"):
        LeRobotFromRobot(GymRobot(RecordedWorld()), camera="vx")
