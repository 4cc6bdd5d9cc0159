"""What every robot promises. Derive from `RobotContract` and say how to build it; the robot is a simulated push-T."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import pytest

from wm.envs.pusht.env import PushTEnv
from wm.errors import BadInputError, RobotError
from wm.kinematics import PointKinematics
from wm.robot import Robot, RobotObservation
from wm.specs import ActionSpec

SIZE, RATE = 32, 50.0
START = [250.0, 250.0, 100.0, 400.0, 0.0]  # the block out of the way


class RecordedWorld(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Push-T at 50 control steps a second, keeping what it received."""

    def __init__(self, rate: float = RATE) -> None:
        env = PushTEnv(image_size=SIZE)
        env.spec_ = replace(env.spec_, action=replace(env.spec_.action, control_hz=rate))
        super().__init__(env)
        self.received: list[np.ndarray] = []

    def step(self, action: Any) -> Any:
        self.received.append(np.array(action, np.float64))
        return super().step(action)

    def position(self) -> np.ndarray:
        """The pusher's true x, y, vx, vy."""
        state = self.unwrapped.get_state()  # type: ignore[attr-defined]
        return state[[0, 1, 5, 6]]


@dataclass(frozen=True)
class Driven:
    """A robot that is not connected yet, and every action that it has received so far."""

    robot: Robot
    received: Callable[[], list[np.ndarray]]


def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


def next_reading(robot: Robot, after: int) -> RobotObservation:
    """A reading with a number above ``after``."""
    found: list[RobotObservation] = []

    def newer() -> bool:
        found.append(robot.get_observation())
        return found[-1].sequence > after

    assert eventually(newer)
    return found[-1]


class RobotContract:
    """Derive, and say in `build` how a robot comes about."""

    def build(self) -> AbstractContextManager[Driven]:
        """A robot that stands in the middle when connected, not connected yet."""
        raise AssertionError("a contract is derived from")

    def resume(self, robot: Robot) -> None:
        """Whatever this robot wants after a stop before it moves again."""

    @pytest.fixture
    def driven(self) -> Iterator[Driven]:
        with self.build() as driven:
            try:
                yield driven
            finally:
                driven.robot.disconnect()

    @pytest.fixture
    def robot(self, driven: Driven) -> Robot:
        driven.robot.connect()
        return driven.robot

    def small_action(self, robot: Robot) -> np.ndarray:
        """Inside the bounds, off the middle."""
        low, high = np.array(robot.action_spec.low), np.array(robot.action_spec.high)
        return low + (high - low) * np.linspace(0.4, 0.65, robot.action_spec.width)

    def test_is_a_robot(self, driven: Driven) -> None:
        assert isinstance(driven.robot, Robot)

    def test_specifications_are_known_before_connecting(self, driven: Driven) -> None:
        robot = driven.robot
        assert robot.action_spec.width == len(robot.action_spec.low) == len(robot.action_spec.high) > 0
        assert robot.action_spec.control_hz > 0 and robot.observation_spec.image_size > 0
        assert isinstance(robot.action_spec, ActionSpec)
        assert robot.kinematics is None or isinstance(robot.kinematics, PointKinematics)

    def test_nothing_moves_before_connecting(self, driven: Driven) -> None:
        with pytest.raises(RobotError, match="not connected"):
            driven.robot.get_observation()
        with pytest.raises(RobotError, match="not connected"):
            driven.robot.send_action(self.small_action(driven.robot))
        driven.robot.stop()
        driven.robot.disconnect()
        assert driven.received() == []

    def test_connecting_and_disconnecting_twice_is_no_error(self, driven: Driven) -> None:
        robot = driven.robot
        robot.connect()
        robot.connect()
        robot.get_observation()
        robot.disconnect()
        robot.disconnect()
        with pytest.raises(RobotError, match="not connected"):
            robot.get_observation()
        robot.connect()
        robot.get_observation()

    def test_a_reading_is_as_the_specification_says(self, robot: Robot) -> None:
        spec, seen = robot.observation_spec, robot.get_observation()
        assert seen.image.shape == (spec.image_size, spec.image_size, 3) and seen.image.dtype == np.uint8
        assert seen.image.std() > 1.0
        assert (seen.proprio is None) == (spec.proprio is None)
        if spec.proprio is not None and seen.proprio is not None:
            assert seen.proprio.shape == (spec.proprio.width,) and seen.proprio.dtype == np.float32
            assert np.isfinite(seen.proprio).all()

    def test_numbers_and_stamps_of_readings_only_increase(self, robot: Robot) -> None:
        seen = [robot.get_observation()]
        for _ in range(5):
            robot.send_action(self.small_action(robot))
            seen.append(next_reading(robot, seen[-1].sequence))
        assert all(a.sequence < b.sequence and a.stamp <= b.stamp for a, b in zip(seen, seen[1:], strict=False))

    def test_a_stamp_is_never_in_the_future(self, robot: Robot) -> None:
        for _ in range(5):
            stamp = robot.get_observation().stamp
            assert time.monotonic() - 5.0 < stamp <= time.monotonic()
            robot.send_action(self.small_action(robot))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_non_finite_action_is_refused_and_not_sent(self, driven: Driven, bad: float) -> None:
        driven.robot.connect()
        action = self.small_action(driven.robot)
        action[-1] = bad
        with pytest.raises(BadInputError, match="expected . finite numbers"):
            driven.robot.send_action(action)
        assert all(np.isfinite(each).all() for each in driven.received())
        driven.robot.send_action(self.small_action(driven.robot))

    def test_misshapen_action_is_refused_and_not_sent(self, driven: Driven) -> None:
        driven.robot.connect()
        width = driven.robot.action_spec.width
        for shape in ((0,), (width + 1,), (1, width), ()):
            with pytest.raises(BadInputError, match="expected . finite numbers"):
                driven.robot.send_action(np.full(shape, driven.robot.action_spec.high[0]))
        top = np.array(driven.robot.action_spec.high)
        assert not any(np.array_equal(each, top) for each in driven.received())

    def test_what_is_returned_is_what_the_robot_received(self, driven: Driven) -> None:
        driven.robot.connect()
        spec = driven.robot.action_spec
        for action in (self.small_action(driven.robot), np.array(spec.high) * 3 + 1, np.array(spec.low) - 1):
            sent = driven.robot.send_action(action)
            assert sent.shape == (spec.width,) and sent.dtype == np.float64
            assert (sent >= spec.low).all() and (sent <= spec.high).all()
            np.testing.assert_allclose(sent, np.clip(action, spec.low, spec.high), rtol=1e-6)
            assert eventually(lambda sent=sent: any(np.array_equal(each, sent) for each in driven.received()))

    def test_returned_readings_and_actions_are_the_callers(self, robot: Robot) -> None:
        action = self.small_action(robot)
        asked = action.copy()
        sent = robot.send_action(action)
        sent[...] = 99.0
        np.testing.assert_array_equal(action, asked)
        seen = robot.get_observation()
        picture = seen.image.copy()
        seen.image[...] = 0
        newer = next_reading(robot, seen.sequence)
        assert newer.image.shape == picture.shape and newer.image.std() > 1.0

    def test_a_stop_brakes_to_rest(self, robot: Robot) -> None:
        spec = robot.action_spec
        for _ in range(4):
            robot.send_action(np.array(spec.low) + 0.9 * (np.array(spec.high) - np.array(spec.low)))
        robot.stop()
        self.require_rest(robot)

    def test_it_moves_again_after_a_stop(self, driven: Driven) -> None:
        driven.robot.connect()
        driven.robot.send_action(self.small_action(driven.robot))
        driven.robot.stop()
        self.resume(driven.robot)
        sent = driven.robot.send_action(-self.small_action(driven.robot))
        assert eventually(lambda: any(np.array_equal(each, sent) for each in driven.received()))

    def test_a_stop_may_come_twice_and_from_other_threads(self, robot: Robot) -> None:
        errors: list[BaseException] = []

        def stop() -> None:
            try:
                for _ in range(3):
                    robot.stop()
            except BaseException as error:
                errors.append(error)

        robot.send_action(self.small_action(robot))
        threads = [threading.Thread(target=stop) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            robot.get_observation()
        for thread in threads:
            thread.join()
        assert errors == []
        self.require_rest(robot)

    def require_rest(self, robot: Robot) -> None:
        """Proprioception comes to rest within 3 s and stays."""
        seen = [robot.get_observation()]

        def rests() -> bool:
            seen.append(next_reading(robot, seen[-1].sequence))
            a, b = seen[-2].proprio, seen[-1].proprio
            time.sleep(1.5 / robot.action_spec.control_hz)
            return a is not None and b is not None and bool(np.allclose(a, b, rtol=0, atol=1e-3))

        seen.append(next_reading(robot, seen[-1].sequence))
        assert eventually(rests)
        assert rests()
