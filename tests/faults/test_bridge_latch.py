"""What latches the bridge's stop, and who releases it: an ordinary stop any commander, another one only with force."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from tests.contracts.robot_suite import eventually
from tests.faults.bridge_scene import Scene, datagram, packed, playing, void
from wm.envs.bridge import BridgeRobot, BridgeStopper
from wm.errors import RobotError

pytestmark = pytest.mark.real_time

STOP = packed({"version": 1, "type": "stop", "id": 1})


@pytest.fixture
def patient() -> Iterator[Scene]:
    """Without a deadman to speak of."""
    with playing(deadman_periods=1e6) as scene:
        yield scene


def latched(scene: Scene) -> bool:
    return eventually(lambda: scene.guard.latched is not None)


def by_datagram(scene: Scene, robot: BridgeRobot) -> None:
    datagram(scene, STOP)


def by_another_client(scene: Scene, robot: BridgeRobot) -> None:
    with scene.client() as client:
        client.ask("stop")


def by_a_supervisor(scene: Scene, robot: BridgeRobot) -> None:
    BridgeStopper(*scene.server.address, timeout_s=3.0)()


def by_the_robots_failure(scene: Scene, robot: BridgeRobot) -> None:
    def broken() -> None:
        raise ZeroDivisionError("joint 3")

    scene.robot.before_send = broken
    with pytest.raises(RobotError, match="joint 3"):
        robot.send_action(np.zeros(2))
    scene.robot.before_send = lambda: None


FOREIGN: dict[str, tuple[Callable[[Scene, BridgeRobot], None], str]] = {
    "a datagram": (by_datagram, r"datagram from 127\.0\.0\.1"),
    "another client": (by_another_client, r"client 127\.0\.0\.1"),
    "a supervisor": (by_a_supervisor, r"client 127\.0\.0\.1"),
    "the robot's failure": (by_the_robots_failure, "the robot failed: joint 3"),
}


@pytest.mark.parametrize("how", FOREIGN)
def test_a_reset_does_not_release_what_others_latched_and_says_who(patient: Scene, how: str) -> None:
    stop, cause = FOREIGN[how]
    robot = patient.ours()
    stop(patient, robot)
    assert latched(patient)
    robot.stop()  # as arming does
    for _ in range(2):
        with pytest.raises(RobotError, match=rf"refused: not reset without force: not its commander .*: {cause}"):
            robot.reset()
    with pytest.raises(RobotError, match="reset it first"):
        robot.send_action(np.zeros(2))
    robot.reset(force=True)
    robot.send_action(np.zeros(2))
    robot.disconnect()


def test_a_reset_does_not_release_the_deadman() -> None:
    with playing() as scene:
        robot = scene.ours()
        robot.send_action(np.zeros(2))
        assert latched(scene)
        with pytest.raises(RobotError, match="refused: not reset without force: .*: deadman: no valid action"):
            robot.reset()
        robot.reset(force=True)
        robot.send_action(np.zeros(2))
        robot.disconnect()


def test_a_commanders_own_stops_are_released_by_its_reset(patient: Scene) -> None:
    robot = patient.ours()
    robot.stop()
    robot.reset()
    assert robot._stopper is not None
    robot._stopper._link.close()  # so that the stop goes by datagram
    robot.stop()
    assert "datagram" in str(patient.guard.latched)
    robot.reset()
    robot.send_action(np.zeros(2))
    robot.disconnect()
    with patient.commander() as plain:
        plain.ask("stop")
        assert plain.ask("reset")["type"] == "done"
        assert plain.ask("act", action=[0.1, 0.1])["type"] == "sent"


def leave(scene: Scene, robot: BridgeRobot) -> None:
    robot.stop()
    robot.disconnect()


def lose(scene: Scene, robot: BridgeRobot) -> None:
    assert robot._link is not None
    robot._link.close()


def lose_and_stop(scene: Scene, robot: BridgeRobot) -> None:
    lose(scene, robot)
    assert eventually(lambda: scene.guard.commander is None)
    robot.stop()


@pytest.mark.parametrize("how", [leave, lose, lose_and_stop])
def test_the_next_commander_releases_what_the_one_before_left(
    patient: Scene, how: Callable[[Scene, BridgeRobot], None]
) -> None:
    how(patient, patient.ours())
    assert latched(patient) and eventually(lambda: patient.guard.commander is None)
    robot = patient.ours()
    robot.reset()
    robot.send_action(np.zeros(2))
    robot.disconnect()


def test_a_stop_by_somebody_else_outlives_an_ordinary_one_and_every_commander(patient: Scene) -> None:
    robot = patient.ours()
    robot.stop()
    datagram(patient, STOP)
    robot.stop()
    robot.disconnect()
    robot.connect()
    with pytest.raises(RobotError, match="datagram from"):
        robot.reset()
    robot.disconnect()
    with patient.commander() as plain:
        assert "datagram from" in plain.ask("reset")["reason"]
        assert "datagram from" in plain.ask("reset", force=False)["reason"]
        assert plain.ask("reset", force=True)["type"] == "done"
        assert plain.ask("act", action=[0.1, 0.1])["type"] == "sent"


def test_the_stopper_of_a_commander_that_was_followed_is_somebody_else(patient: Scene) -> None:
    first = patient.ours()
    stop = first._stopper
    assert stop is not None
    first.disconnect()
    second = patient.ours()
    stop()
    with pytest.raises(RobotError, match="not reset without force"):
        second.reset()
    second.disconnect()


def test_a_datagram_is_not_the_stop_of_a_plain_commander(patient: Scene) -> None:
    with patient.commander() as plain:
        datagram(patient, STOP)
        assert "datagram from" in plain.ask("reset")["reason"]


def test_force_does_not_release_a_stop_that_has_not_worked(patient: Scene) -> None:
    go_on = threading.Event()
    robot = patient.ours()
    patient.robot.before_stop = lambda: void(go_on.wait(5.0))
    thread = threading.Thread(target=partial(by_another_client, patient, robot))
    thread.start()
    assert latched(patient)
    with pytest.raises(RobotError, match="has not worked yet"):
        robot.reset(force=True)
    go_on.set()
    thread.join()
    robot.reset(force=True)
    robot.disconnect()


def test_only_the_commander_resets_with_force(patient: Scene) -> None:
    with patient.commander(), patient.client() as other:
        other.ask("stop")
        assert "does not command" in other.ask("reset", force=True)["reason"]
        assert patient.guard.latched is not None
