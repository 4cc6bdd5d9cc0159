from __future__ import annotations

import numpy as np
import pytest

from tests.contracts.robot_suite import RecordedWorld
from wm.envs.bridge import BridgeServer
from wm.envs.gym_robot import GymRobot
from wm.envs.pusht.env import PushTEnv
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.robots import RobotName, bridged_rig, simulated_rig, world_of
from wm.experiments.rules import PUSHER
from wm.experiments.worlds.arm import TIP

START = np.array([100.0, 120.0, 300.0, 300.0, 0.5])


def test_a_name_is_taken_apart() -> None:
    assert RobotName.parse("sim:pusht") == RobotName(env="pusht")
    assert RobotName.parse("sim:arm") == RobotName.parse("sim:arm-push") == RobotName(env="arm-push")
    assert RobotName.parse("tcp:robot.local:5555") == RobotName(address=("robot.local", 5555))
    assert RobotName.parse("tcp:[::1]:1") == RobotName(address=("::1", 1))
    with pytest.raises(UnknownNameError, match="unknown robot 'sim:push'"):
        RobotName.parse("sim:push")


def test_a_world_without_kinematics_cannot_be_driven() -> None:
    for name in ("arm-reach", "Pendulum-v1"):
        told = f"^robot 'sim:{name}': '{name}' declares no kinematics, .* one of sim:pusht, sim:arm-push, sim:arm, tcp:"
        with pytest.raises(BadInputError, match=told) as refused:
            RobotName.parse(f"sim:{name}")
        assert "\n" not in str(refused.value)
        assert RobotName.parse(f"sim:{name}", uncertified=True) == RobotName(env=name)


def test_a_world_whose_plans_are_too_short_cannot_be_driven_at_all() -> None:
    for uncertified in (False, True):
        with pytest.raises(BadInputError, match="^robot 'sim:chips': plans of 'chips' are 1 control step long"):
            RobotName.parse("sim:chips", uncertified=uncertified)


@pytest.mark.parametrize(
    ("text", "meant"), [("arm-rech", "arm-reach"), ("arn", "arm"), ("chps", "chips"), ("push", "pusht")]
)
def test_a_misspelt_robot_is_told_the_right_name(text: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean 'sim:{meant}'"):
        RobotName.parse(f"sim:{text}")


@pytest.mark.parametrize("name", ["sim:pusht", "sim:arm", "sim:wm/PushT-v0", "tcp:127.0.0.1:1"])
def test_nothing_that_can_be_certified_is_driven_uncertified(name: str) -> None:
    with pytest.raises(BadInputError, match=r"^--uncertified: "):
        RobotName.parse(name, uncertified=True)


@pytest.mark.parametrize(
    "address",
    [".:5555", "a..b:5555", ".a:1", "a" * 70 + ":1", "\udcff:1", ":1", "[]:1", "a", "a:", "a:0", "a:65536", "a:-1"]
    + ["a:" + "9" * 5000, "a:1.0"],
)
def test_an_address_that_none_can_have_is_refused(address: str) -> None:
    with pytest.raises(BadInputError, match="expected tcp:HOST:PORT"):
        RobotName.parse(f"tcp:{address}")


def test_age_of_a_reading_and_delay_of_an_action_make_the_stated_latency_together() -> None:
    with BridgeServer(GymRobot(RecordedWorld(10.0))) as server:
        rig = bridged_rig(*server.address)
    assert rig.reading_age_s == rig.action_delay_s == 0.1 and rig.late_s == 0.2
    for latency in (0.1, 0.15, 0.2, 0.3):
        assert rig.reading_age_within(latency) + rig.action_delay_s == pytest.approx(latency)
    with pytest.raises(BadInputError, match="latency: expected at least 100 ms, .* came 50 ms"):
        rig.reading_age_within(0.05)


def test_a_model_names_no_world_but_our_own() -> None:
    assert world_of("arm-push").robot is TIP and world_of("pusht").robot is PUSHER
    for name in ("my-robot", "os:system", "CartPole-v1", "worlds.toml"):
        assert world_of(name).name == "pusht"


@pytest.mark.parametrize("late_s", [0.0, 0.04, 0.2])
def test_a_simulation_is_late_with_its_actions_alone(late_s: float) -> None:
    rig = simulated_rig(PushTEnv(image_size=32), START, None, late_s)
    assert rig.late_s == rig.action_delay_s == late_s and rig.reading_age_within(late_s) == 0.0
