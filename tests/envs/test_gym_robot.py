from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests.contracts.robot_suite import RATE, SIZE, START, Driven, RecordedWorld, RobotContract, eventually
from wm.envs.gym_robot import GymRobot, Impairments, specs_of
from wm.envs.pusht.env import PushTEnv
from wm.errors import BadInputError, RobotError
from wm.robot import ObservationSpec

pytestmark = pytest.mark.real_time


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stepped(world: RecordedWorld | None = None, **options: Any) -> GymRobot:
    return GymRobot(world or RecordedWorld(), reset_options={"state": START}, **options)


class TestStepped(RobotContract):
    @contextmanager
    def build(self) -> Iterator[Driven]:
        world = RecordedWorld()
        yield Driven(stepped(world), lambda: world.received)


class TestFreeRunning(RobotContract):
    @contextmanager
    def build(self) -> Iterator[Driven]:
        world = RecordedWorld()
        yield Driven(stepped(world, free_running=True), lambda: list(world.received))


def test_stepped_each_action_is_one_control_step_of_the_environment() -> None:
    world, alone = RecordedWorld(), PushTEnv(image_size=SIZE)
    robot = stepped(world)
    robot.connect()
    alone.reset(options={"state": START})
    for k in range(12):
        action = np.array([np.sin(k), np.cos(3 * k)], np.float32)
        robot.send_action(action.astype(np.float64))
        observation = alone.step(action)[0]
        seen = robot.get_observation()
        np.testing.assert_array_equal(seen.proprio, observation["proprio"])
        np.testing.assert_array_equal(seen.image, observation["image"])
    assert len(world.received) == 12


def test_stepped_a_stop_has_come_to_rest_when_it_returns() -> None:
    world = RecordedWorld()
    robot = stepped(world)
    robot.connect()
    for _ in range(3):
        robot.send_action(np.array([1.0, -1.0]))
    assert np.linalg.norm(world.position()[2:]) > 100.0
    robot.stop()
    assert np.linalg.norm(world.position()[2:]) < 0.1
    at = world.position()
    robot.stop()
    np.testing.assert_allclose(world.position(), at, atol=1e-2)
    assert all(np.array_equal(each, [0, 0]) for each in world.received[3:])


def test_stepped_a_stop_ends_although_the_environment_never_rests() -> None:
    class Restless(RecordedWorld):
        def step(self, action: Any) -> Any:
            observation, *rest = super().step(action)
            return {**observation, "proprio": observation["proprio"] + np.float32(len(self.received))}, *rest

    world = Restless()
    robot = stepped(world, stop_steps=7)
    robot.connect()
    robot.stop()
    assert len(world.received) == 7


def test_absolute_actions_brake_where_the_pusher_is() -> None:
    env = PushTEnv(image_size=SIZE, action_mode="absolute")
    robot = GymRobot(env, reset_options={"state": START})
    robot.connect()
    robot.send_action(np.array([400.0, 100.0]))
    before = env.get_state()[:2]
    robot.stop()
    after = env.get_state()
    assert np.linalg.norm(after[5:7]) < 0.1 and np.linalg.norm(after[:2] - before) < 60.0


@pytest.mark.parametrize("steps", [1, 3])
def test_a_delayed_reading_shows_the_world_of_that_many_control_steps_ago(steps: int) -> None:
    clock = Clock()
    late, direct = (
        stepped(impairments=Impairments(observation_delay_steps=d), clock=clock, reset_seed=0) for d in (steps, 0)
    )
    for robot in (late, direct):
        robot.connect()
    truth, shown = [direct.get_observation()], []
    for k in range(9):
        for robot in (late, direct):
            robot.send_action(np.array([0.1 * k, -0.3]))
        clock.now += 0.1
        truth.append(direct.get_observation())
        shown.append(late.get_observation())
    for k, seen in enumerate(shown):
        np.testing.assert_array_equal(seen.proprio, truth[max(0, k + 1 - steps)].proprio)
    assert shown[-1].stamp == pytest.approx(clock.now - 0.1 * steps)


def test_a_reading_delayed_in_seconds_is_stamped_when_it_was_true() -> None:
    clock = Clock()
    robot = stepped(impairments=Impairments(observation_delay_s=0.25), clock=clock)
    robot.connect()
    positions = []
    for _ in range(10):
        positions.append(robot._worlds[-1].proprio)
        clock.now += 0.1
        robot.send_action(np.array([0.5, 0.0]))
    clock.now += 0.02
    seen = robot.get_observation()
    assert seen.stamp == pytest.approx(clock.now - 0.25)
    np.testing.assert_array_equal(seen.proprio, positions[7])  # true from 0.32 s to 0.22 s ago
    assert len(robot._worlds) < 6


def test_a_delayed_action_acts_that_many_control_steps_later_and_a_stop_at_once() -> None:
    world = RecordedWorld()
    robot = stepped(world, impairments=Impairments(action_delay_steps=2))
    robot.connect()
    for k in range(1, 5):
        robot.send_action(np.full(2, 0.25 * k))
    np.testing.assert_array_equal(world.received, [[0, 0], [0, 0], [0.25, 0.25], [0.5, 0.5]])
    robot.stop()
    assert len(world.received) > 4 and not np.any(world.received[4:])
    robot.send_action(np.ones(2))
    assert not np.any(world.received[-1])


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_noise_stays_within_its_bound_and_is_no_bias(kind: Any) -> None:
    bound = np.array([2.0, 2.0, 10.0, 0.0])
    clock = Clock()
    robot = stepped(impairments=Impairments(proprio_noise=tuple(bound), noise=kind), clock=clock)
    robot.connect()
    errors = []
    for _ in range(2000):
        clock.now += 0.1
        errors.append(robot.get_observation().proprio - np.array([*START[:2], 0, 0]))
    error = np.array(errors)
    assert (np.abs(error) <= bound + 1e-4).all()
    assert (np.abs(error.mean(0)) < 0.06 * bound + 1e-6).all()
    deviation = bound / (np.sqrt(3.0) if kind == "uniform" else 3.0)
    np.testing.assert_allclose(error.std(0), deviation, rtol=0.06, atol=1e-6)


def test_a_lost_reading_is_answered_with_the_one_before() -> None:
    clock = Clock()
    robot = stepped(impairments=Impairments(drop_rate=0.3, seed=5), clock=clock)
    robot.connect()
    last, lost = robot.get_observation(), 0
    for _ in range(300):
        robot.send_action(np.zeros(2))
        clock.now += 0.1
        seen = robot.get_observation()
        if seen.sequence == last.sequence:
            assert seen.stamp == last.stamp and np.array_equal(seen.image, last.image)
            lost += 1
        else:
            assert seen.stamp == clock.now and seen.sequence == last.sequence + 1
        last = seen
    assert 60 < lost < 120


def test_same_seeds_give_the_same_noise_and_drops() -> None:
    plays = []
    for seed in (3, 3, 4):
        clock = Clock()
        robot = stepped(impairments=Impairments(proprio_noise=1.0, drop_rate=0.2, seed=seed), clock=clock)
        robot.connect()
        play = []
        for _ in range(30):
            robot.send_action(np.array([0.3, 0.1]))
            clock.now += 0.1
            play.append(robot.get_observation().proprio)
        plays.append(np.array(play))
    np.testing.assert_array_equal(plays[0], plays[1])
    assert not np.array_equal(plays[0], plays[2])


def test_free_running_it_moves_although_nobody_calls_then_brakes_by_itself() -> None:
    world = RecordedWorld()
    robot = stepped(world, free_running=True, deadman_periods=3.0)
    robot.connect()
    sent = robot.send_action(np.array([0.5, 0.0]))
    assert eventually(lambda: len(world.received) > 12)
    robot.disconnect()
    moved = [k for k, each in enumerate(world.received) if np.array_equal(each, sent)]
    assert 1 <= len(moved) <= 4 and moved == list(range(moved[0], moved[-1] + 1))
    assert not np.any(world.received[moved[-1] + 1 :])
    assert np.linalg.norm(world.position()[2:]) < 0.1


def test_free_running_keeps_its_rate() -> None:
    world = RecordedWorld()
    robot = stepped(world, free_running=True)
    began = time.monotonic()
    robot.connect()
    eventually(lambda: len(world.received) >= 20)
    took = time.monotonic() - began
    robot.disconnect()
    assert took >= 20 / RATE - 1e-3


def test_free_running_stop_returns_at_once_and_no_later_step_moves() -> None:
    world = RecordedWorld()
    robot = stepped(world, free_running=True, deadman_periods=1e6)
    robot.connect()
    robot.send_action(np.array([0.5, 0.5]))
    assert eventually(lambda: any(np.any(each) for each in world.received))
    robot.stop()
    count = len(world.received)
    assert eventually(lambda: len(world.received) > count + 5)
    assert not np.any(world.received[count:])
    robot.disconnect()


@pytest.mark.parametrize("free_running", [False, True])
def test_an_environment_that_fails_is_reported_by_every_later_call(free_running: bool) -> None:
    class Broken(RecordedWorld):
        def step(self, action: Any) -> Any:
            raise ValueError("a joint broke")

    robot = stepped(Broken(), free_running=free_running)
    robot.connect()
    if not free_running:
        with pytest.raises(RobotError, match="ValueError: a joint broke"):
            robot.send_action(np.zeros(2))
    assert eventually(lambda: robot._failure is not None)
    for call in (robot.get_observation, lambda: robot.send_action(np.zeros(2))):
        with pytest.raises(RobotError, match="ValueError: a joint broke"):
            call()
    robot.disconnect()


def test_free_running_a_reading_is_of_the_last_control_step_and_the_same_until_the_next() -> None:
    clock = Clock()
    robot = stepped(free_running=True, clock=clock, impairments=Impairments(proprio_noise=1.0))
    robot.connect()
    try:
        clock.now = 100.0 + 0.5 / RATE
        first = robot.get_observation()
        assert first.stamp == 100.0
        clock.now = 100.0 + 0.9 / RATE
        again = robot.get_observation()
        assert (again.sequence, again.stamp) == (first.sequence, first.stamp)
        np.testing.assert_array_equal(again.proprio, first.proprio)
        clock.now = 100.0 + 1.2 / RATE
        assert eventually(lambda: robot.get_observation().sequence > first.sequence)
        tick, clock.now = clock.now, clock.now + 0.5 / RATE
        assert robot.get_observation().stamp == tick and robot.get_observation().sequence == first.sequence + 1
    finally:
        robot.disconnect()


def test_an_action_that_is_on_its_way_does_not_hold_up_disconnecting() -> None:
    robot = stepped(free_running=True)
    robot.connect()
    thread = threading.Thread(target=robot.disconnect)
    robot.send_action(np.ones(2))
    thread.start()
    thread.join(2.0)
    assert not thread.is_alive()


class Plain(gymnasium.Env[Any, Any]):
    """No specifications, no kinematics, no proprioception."""

    def __init__(self, **observed: Any) -> None:
        picture = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.observation_space = spaces.Dict(observed or {"image": picture})
        self.action_space = spaces.Box(-2.0, 3.0, (1,), np.float32)
        self.received: list[float] = []

    def reset(self, **_: Any) -> Any:
        return {"image": np.zeros((8, 8, 3), np.uint8)}, {}

    def step(self, action: Any) -> Any:
        self.received.append(float(action[0]))
        return {"image": np.zeros((8, 8, 3), np.uint8)}, 0.0, True, True, {}


def test_an_environment_without_specifications_becomes_a_robot() -> None:
    env = Plain()
    robot = GymRobot(env, control_hz=20.0, stay_action=lambda proprio: np.array([0.5]), stop_steps=4)
    assert robot.observation_spec == ObservationSpec(8, None) and robot.kinematics is None
    assert (robot.action_spec.low, robot.action_spec.high, robot.action_spec.control_hz) == ((-2.0,), (3.0,), 20.0)
    robot.connect()
    assert robot.send_action(np.array([9.0])) == [3.0]
    robot.stop()
    assert robot.get_observation().proprio is None
    assert env.received == [3.0, 0.5, 0.5, 0.5, 0.5]


def test_what_is_missing_is_asked_for() -> None:
    with pytest.raises(BadInputError, match="how to brake has to be said"):
        GymRobot(Plain(), control_hz=20.0)
    with pytest.raises(BadInputError, match="expected a rate above 0, came None"):
        specs_of(Plain())
    with pytest.raises(BadInputError, match="expected a Dict with a square uint8 RGB 'image'"):
        specs_of(Plain(image=spaces.Box(0, 255, (8, 9, 3), np.uint8)), 10.0)
    with pytest.raises(BadInputError, match="its env_spec has .* but its action space is"):
        specs_of(gymnasium.wrappers.RescaleAction(PushTEnv(image_size=SIZE), np.float32(-0.5), np.float32(0.5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_rate": 1.0}, "expected 0 <= rate < 1"),
        ({"observation_delay_s": np.nan}, "expected 0 s or more"),
        ({"proprio_noise": -1.0}, "expected bounds of 0 or more"),
        ({"action_delay_steps": -1}, "expected 0 or more control steps"),
    ],
)
def test_impossible_impairments_are_refused(options: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Impairments(**options)


def test_noise_of_another_width_is_refused() -> None:
    with pytest.raises(BadInputError, match="expected 1 or 4 bounds, came 3"):
        stepped(impairments=Impairments(proprio_noise=(1.0, 1.0, 1.0)))
