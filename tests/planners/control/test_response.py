from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners.control.response import MAX_DELAY, Response

PUSHER = PointKinematics(100.0, 20.0, 0.01, 10, 100.0, True)
SLOW = PointKinematics(30.0, 6.0, 0.02, 5, 50.0, True)
STIFF = PointKinematics(900.0, 80.0, 0.01, 10, 100.0, True)


def futures_of(delay: int, brake_steps: int) -> set[tuple[int, ...]]:
    """Independent enumeration of what may act: index of the sent action (1 … L old, L + 1 new, L + 2 the stop)."""
    every, brake = set(), delay + 2
    for late in itertools.product(range(delay + 1), repeat=delay + 1):
        acts = [min(step + delay + 1 - d, brake) for step, d in enumerate(late)]
        if acts == sorted(acts):
            first = acts.index(brake) if brake in acts else len(acts)
            every.add((*acts[:first], *[brake] * brake_steps))
    return every


def walked(response: Response, end: int) -> list[int]:
    """Rows from now to the row ``end``."""
    rows = [end]
    while rows[-1] > 0:
        rows.append(int(response.before[rows[-1]]))
    return rows[::-1]


@pytest.mark.parametrize("robot", [PUSHER, SLOW])
@pytest.mark.parametrize("delay", [0, 1, 2])
def test_every_future_is_a_path_of_the_kinematics(robot: PointKinematics, delay: int, rng: np.random.Generator) -> None:
    response = Response(robot, delay)
    start, sent = rng.normal(size=4) * [200, 200, 300, 300], rng.uniform(-1, 1, (delay + 2, 2))
    inputs = np.concatenate([start.reshape(2, 2), start[None, :2], sent])
    place = response.signals["place"].coefficients @ inputs
    velocity = response.signals["velocity"].coefficients @ inputs
    found = set()
    for end in response.ends[-1]:
        rows = walked(response, end)
        steps = (len(rows) - 1) // robot.substeps
        fits = []
        for future in futures_of(delay, response.brake_steps):
            acts = [sent[i] if i < delay + 2 else np.zeros(2) for i in future]
            if len(acts) == steps:
                actions = torch.from_numpy(np.array(acts)).reshape(1, 1, 1, -1)
                path = robot.path(torch.from_numpy(start)[None], actions, steps)[0, 0, 0].numpy()
                near = np.allclose(place[rows[1:]], path[:, :2], rtol=1e-9, atol=1e-9)
                fits += [future] * (near and np.allclose(velocity[rows[1:]], path[:, 2:], rtol=1e-9, atol=1e-9))
        assert len(fits) == 1
        found.add(fits[0])
    assert found == futures_of(delay, response.brake_steps)


def test_acceleration_and_jerk_are_differences_of_the_velocity(rng: np.random.Generator) -> None:
    response = Response(PUSHER, 0)
    # The control step before: from a base, with the last action.
    base, speed, last, new = rng.uniform(100, 400, 2), rng.normal(size=2) * 100, *rng.uniform(-1, 1, (2, 2))
    start = torch.from_numpy(np.concatenate([base, speed]))[None]
    actions = torch.from_numpy(np.array([last, new, 0 * new, 0 * new])).reshape(1, 1, 4, 2)
    path = PUSHER.path(start, actions, 1)[0, 0].reshape(-1, 4).numpy()
    velocity, now = path[:, 2:], path[9]
    inputs = np.stack([now[:2], now[2:], base, last, new])
    faster = np.diff(velocity, axis=0) / PUSHER.dt
    assert np.allclose(response.signals["acceleration"].coefficients @ inputs, faster[9:], rtol=1e-9, atol=1e-6)
    jerk = response.signals["jerk"].coefficients @ inputs
    expected = np.diff(faster, axis=0)[8:] / PUSHER.dt
    order = np.argsort(response.signals["jerk"].row)
    assert np.allclose(jerk[order], expected, rtol=1e-8, atol=1e-3)


@pytest.mark.parametrize("robot", [PUSHER, SLOW, STIFF])
@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 1.0), (2.0, 30.0)])
def test_control_of_a_disturbed_robot_deviates_by_what_is_charged_at_most(
    robot: PointKinematics, bounds: tuple[float, float], rng: np.random.Generator
) -> None:
    """Wherever within the disturbance the robot is pushed, the acceleration that its control applies and its change."""
    response = Response(robot, 0)
    start, action = rng.normal(size=2), rng.normal(size=2)
    inputs = response.inputs(*(start[:, None] * [1, 0]), start[:1] * [1, 0], np.zeros((1, 2)))
    inputs[-1, 0] = action[0]
    place, velocity, faster, jerk = (
        (response.signals[kind].coefficients @ inputs)[:, 0] for kind in ("place", "velocity", "acceleration", "jerk")
    )
    rows = walked(response, response.ends[-1][0])
    allowed = [response.signals[kind].gain[:, 2:4] @ bounds for kind in ("acceleration", "jerk")]
    at = response.signals["jerk"].row
    for _ in range(100):
        off, pushed = rng.choice([-1, 0, 1], (2, len(rows))) * np.array(bounds)[:, None]
        applied = np.zeros(len(place))
        for step, row in enumerate(rows[:-1]):
            first = step - step % robot.substeps  # of the control step, whose target goes with the place there
            target = place[rows[first]] + off[first] + robot.scale * (action[0] if first == 0 else 0.0)
            here, speed = place[row] + off[step], velocity[row] + pushed[step]
            applied[rows[step + 1]] = robot.kp * (target - here) - robot.kv * speed
        assert (np.abs(applied[1:] - faster) <= allowed[0] + 1e-9).all()
        change = (applied[at] - applied[response.before[at]]) / robot.dt
        assert (np.abs(change - jerk) <= allowed[1] + 1e-6)[at > 1].all()


@pytest.mark.parametrize("robot", [PUSHER, SLOW, STIFF])
@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 1.0)])
def test_jerk_at_a_reading_counts_a_push_just_before_it(robot: PointKinematics, bounds: tuple[float, float]) -> None:
    """What accelerated the robot until then is inferred from the reading, which the push has moved."""
    response, dt = Response(robot, 0), robot.dt
    (charged,) = response.signals["jerk"].gain[response.signals["jerk"].row == 1, 2:4] @ bounds
    coefficients = response.signals["jerk"].coefficients[response.signals["jerk"].row == 1][0]
    worst = 0.0
    for sign in itertools.product([-1, 0, 1], repeat=3):
        if abs(sign[1] + sign[2]) > 1:  # it is the sum that is bounded
            continue
        (early, off, later), (slow, pushed, faster) = np.outer(bounds, sign)
        place, velocity = 0.3 + early, -0.7 + slow  # where the control acts for the last time before the reading
        applied = robot.kp * (1.0 - place) - robot.kv * velocity
        velocity += applied * dt
        place += velocity * dt + off - early
        velocity += pushed - slow
        jerk = (-robot.kp * later - robot.kv * (velocity + faster) - applied) / dt  # towards the place of the reading
        predicted = coefficients @ [place, velocity, 1.0, 0.0, 0.0]
        worst = max(worst, abs(jerk - predicted))
    assert worst == pytest.approx(charged, rel=1e-9)


@given(st.integers(0, 2), st.floats(-400, 400), st.floats(-1, 1))
def test_what_is_left_after_the_end_is_bounded(delay: int, speed: float, action: float) -> None:
    response = Response(PUSHER, delay)
    inputs = np.zeros((response.width, 2))
    inputs[1], inputs[3:] = speed, action
    for end in response.ends[-1]:
        place = response.signals["place"].coefficients[end] @ inputs
        velocity = response.signals["velocity"].coefficients[end] @ inputs
        start = torch.from_numpy(np.concatenate([place, velocity]))[None]
        later = PUSHER.path(start, torch.zeros(1, 1, 30, 2, dtype=torch.float64), 1)[0, 0].reshape(-1, 4).numpy()
        left = np.linalg.norm(velocity)
        rest = response.signals["place"].rest[end] * left
        assert np.linalg.norm(later[:, :2] - place, axis=1).max() <= rest + 1e-12
        assert rest < 0.01
        assert np.linalg.norm(np.diff(later[:, 2:], axis=0), axis=1).max() / PUSHER.dt <= (
            response.rest["acceleration"] * left + 1e-9
        )


def test_robots_that_cannot_be_certified_are_refused() -> None:
    with pytest.raises(BadInputError, match="relative actions"):
        Response(PointKinematics(100.0, 20.0, 0.01, 10, 1.0, False), 0)
    with pytest.raises(BadInputError, match="must come to rest"):
        Response(PointKinematics(0.0, 0.0, 0.01, 10, 100.0, True), 0)
    with pytest.raises(BadInputError, match=f"up to {MAX_DELAY} control steps"):
        Response(PUSHER, MAX_DELAY + 1)
