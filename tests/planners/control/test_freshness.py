from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.planners.control.fakes import KINEMATICS, OBSERVATION, RATE
from wm.planners.control.freshness import ObservationGate
from wm.planners.control.reckoning import Reckoning
from wm.planners.control.shield import ShieldLimits
from wm.robot import ObservationSpec, RobotObservation


def observation(sequence: int, *, place: float = 0.0, shade: int | None = None) -> RobotObservation:
    """Reading number n, taken at n tenths of a second."""
    image = np.full((8, 8, 3), sequence if shade is None else shade, np.uint8)
    return RobotObservation(image, np.array([place, 0, 0, 0], np.float32), 0.1 * sequence, sequence)


def gate(spec: ObservationSpec = OBSERVATION, picture_travel: float | None = None) -> ObservationGate:
    return ObservationGate(spec, 0.25, 0.005, picture_travel, Reckoning(KINEMATICS, ShieldLimits(), RATE, 0.0))


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("misshapen", lambda o: replace(o, image=o.image[:4])),
        ("misshapen", lambda o: replace(o, image=o.image.astype(np.float32))),
        ("misshapen", lambda o: replace(o, proprio=o.proprio[:2])),
        ("misshapen", lambda o: replace(o, proprio=None)),
        ("not finite", lambda o: replace(o, proprio=o.proprio * np.nan)),
        ("not finite", lambda o: replace(o, proprio=o.proprio + np.inf)),
        ("not finite", lambda o: replace(o, stamp=float("nan"))),
        ("not finite", lambda o: replace(o, stamp=float("-inf"))),
        ("repeated", lambda o: replace(o, sequence=1)),
        ("reordered", lambda o: replace(o, sequence=0)),
        ("reordered", lambda o: replace(o, stamp=0.1)),
        ("reordered", lambda o: replace(o, stamp=0.05)),
        ("from the future", lambda o: replace(o, stamp=0.21)),
        ("stale", lambda o: replace(o, stamp=-0.06)),
    ],
)
def test_what_may_not_be_used_is_refused(reason: str, spoil: Callable[[RobotObservation], RobotObservation]) -> None:
    g = gate()
    assert g.offer(observation(1), now=0.1)
    assert not g.offer(spoil(observation(2)), now=0.2)
    assert dict(g.refused) == {reason: 1}
    assert g.last is not None and g.last.sequence == 1
    assert g.offer(observation(2), now=0.2)


def test_stamp_within_the_tolerance_is_not_from_the_future() -> None:
    assert gate().offer(replace(observation(2), stamp=0.2049), now=0.2)


def test_robot_without_proprioception() -> None:
    g = gate(ObservationSpec(8, None))
    assert not g.offer(observation(1), now=0.1)
    assert g.offer(replace(observation(1), proprio=None), now=0.1)


def test_observation_is_a_copy() -> None:
    g, o = gate(), observation(1)
    g.offer(o, now=0.1)
    o.image[:], o.proprio[:] = 9, 9
    assert g.last is not None and g.last.image.max() == 1 and g.last.proprio is not None and g.last.proprio.max() == 0


def test_trouble_begins_after_the_stated_age() -> None:
    g = gate()
    assert g.trouble(0.0) is not None
    g.offer(observation(1), now=0.1)
    assert g.trouble(0.349) is None
    assert g.trouble(0.351) == "stale observation: 251 ms old, at most 250 ms"


def play(g: ObservationGate, count: int, *, moving: bool, **how: float) -> list[bool]:
    """Whether there was trouble at each reading; ``how``: ``place`` of n per step, ``shade`` of the picture."""
    trouble = []
    first = 1 if g.last is None else g.last.sequence + 1
    for n in range(first, first + count):
        shade = int(how["shade"]) if "shade" in how else None
        assert g.offer(observation(n, place=how.get("speed", 0.0) * n, shade=shade), now=0.1 * n)
        trouble.append(g.trouble(0.1 * n) is not None)
        g.acted([np.array([0.1 * moving, 0.0])])
    return trouble


@pytest.mark.parametrize("shade", [{"shade": 7}, {}], ids=["dead camera", "live camera"])
def test_place_that_does_not_change_although_the_robot_had_to_move_is_frozen(shade: dict[str, float]) -> None:
    g = gate()
    assert play(g, 5, moving=True, **shade) == [False, True, True, True, True]
    assert g.trouble(0.5) == "frozen readings: the place did not change although the robot had to move"


def test_place_that_changes_is_not_frozen_whatever_the_picture_shows() -> None:
    assert not any(play(gate(), 30, moving=True, shade=7, speed=1.0))


def test_robot_that_is_not_driven_may_look_the_same_for_ever() -> None:
    g = gate()
    play(g, 5, moving=True, shade=7, speed=1.0)
    g.offer(observation(6, place=9.0, shade=7), now=0.6)  # where it came to rest
    g.acted([np.zeros(2)])
    for n in range(7, 40):
        assert g.offer(observation(n, place=9.0, shade=7), now=0.1 * n) and g.trouble(0.1 * n) is None
        g.acted([np.zeros(2)])


def test_frozen_place_stays_frozen_until_it_changes() -> None:
    g = gate()
    assert play(g, 5, moving=True)[-1]
    assert all(play(g, 20, moving=False))
    assert not any(play(g, 3, moving=False, speed=1.0))


def test_what_the_robot_did_meanwhile_is_not_reckoned_when_it_is_unclear() -> None:
    g = gate()
    g.offer(observation(1), now=0.1)
    g.acted([np.array([0.1, 0.0])])
    g.unclear()
    g.offer(observation(2), now=0.2)
    assert g.trouble(0.2) is None


def test_picture_that_stands_still_while_the_robot_travels_is_frozen() -> None:
    g = gate(picture_travel=5.0)
    assert not any(play(g, 10, moving=True, speed=10.0))
    assert play(g, 10, moving=True, speed=1.0, shade=7) == [False] * 6 + [True] * 4
    assert g.trouble(2.0) == "frozen picture: it did not change while the robot moved by more than 5"
    assert all(play(g, 3, moving=False, shade=7))
    assert not any(play(g, 3, moving=False, shade=8))


def test_forgotten_observations_do_not_order_new_ones() -> None:
    g = gate()
    g.offer(observation(9), now=0.9)
    g.forget()
    assert g.offer(observation(8), now=0.9)
