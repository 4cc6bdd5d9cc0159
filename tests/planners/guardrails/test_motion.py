"""Acceleration and jerk limits, against a simulation step by step in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners.guardrails import AccelerationLimit, JerkLimit
from wm.types import Trajectory

RELATIVE = PointKinematics(kp=100.0, kv=20.0, dt=0.01, substeps=10, scale=100.0, relative=True)
ABSOLUTE = PointKinematics(kp=60.0, kv=5.0, dt=0.02, substeps=4, scale=1.0, relative=False)
STIFF = PointKinematics(kp=100.0, kv=99.0, dt=0.01, substeps=10, scale=100.0, relative=True)
FRAMESKIP, H = 2, 3
LIMIT = 1e7

ACTIONS = arrays(np.float64, (H * FRAMESKIP, 2), elements=st.floats(-1, 1))
STARTS = arrays(np.float64, (4,), elements=st.floats(-300, 300))


def simulate(robot: PointKinematics, start: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PD accelerations ``kp (target - p) - kv v`` at every simulation step, and the last state."""
    place, velocity, found = start[:2].copy(), start[2:].copy(), []
    for action in actions:
        target = robot.scale * action + (place if robot.relative else 0.0)
        for _ in range(robot.substeps):
            found.append(robot.kp * (target - place) - robot.kv * velocity)
            velocity = velocity + found[-1] * robot.dt
            place = place + velocity * robot.dt
    return np.array(found), np.append(place, velocity)


def planned(robot: PointKinematics, start: np.ndarray, actions: np.ndarray, precise: bool = True) -> Trajectory:
    dtype = torch.float64 if precise else torch.float32
    sequence = torch.from_numpy(actions.reshape(1, 1, -1, 2 * FRAMESKIP)).to(dtype)
    path = robot.path(torch.from_numpy(start).to(dtype)[None], sequence, FRAMESKIP)
    return Trajectory(sequence, torch.zeros(*sequence.shape[:3], 1, 1), path=path)


def worst(values: np.ndarray) -> np.ndarray:
    """Largest magnitude inside each latent step."""
    return np.linalg.norm(values, axis=-1).reshape(H, -1).max(1)


@pytest.mark.parametrize("robot", [RELATIVE, ABSOLUTE], ids=["relative", "absolute"])
@given(start=STARTS, actions=ACTIONS)
@settings(max_examples=30)
def test_acceleration_is_what_the_control_applies(robot: PointKinematics, start: Any, actions: Any) -> None:
    expected = LIMIT - worst(simulate(robot, start, actions)[0])
    for precise, atol in ((True, 1e-5), (False, 1.0)):
        found = AccelerationLimit(LIMIT, robot)(planned(robot, start, actions, precise))
        np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("robot", [RELATIVE, ABSOLUTE], ids=["relative", "absolute"])
@given(start=STARTS, actions=ACTIONS, earlier=arrays(np.float64, (2,), elements=st.floats(-1, 1)))
@settings(max_examples=30)
def test_jerk_is_the_change_of_acceleration_from_the_step_before_the_plan_on(
    robot: PointKinematics, start: Any, actions: Any, earlier: Any
) -> None:
    before, now = simulate(robot, start, earlier[None])
    accelerations = np.concatenate([before[-1:], simulate(robot, now, actions)[0]])
    jerks = np.diff(accelerations, axis=0) / robot.dt
    target = robot.scale * earlier + (start[:2] if robot.relative else 0.0)
    trajectory = planned(robot, now, actions)
    known = JerkLimit(LIMIT, robot).following(target)(trajectory)[0, 0].numpy()
    np.testing.assert_allclose(known, LIMIT - worst(jerks), atol=5.0, rtol=0)  # the target is float32
    jerks[0] = 0.0
    unknown = JerkLimit(LIMIT, robot)(trajectory)[0, 0].numpy()
    np.testing.assert_allclose(unknown, LIMIT - worst(jerks), atol=1e-2, rtol=0)


def test_single_precision_paths_are_judged_to_a_part_in_1e4() -> None:
    rng = np.random.default_rng(0)
    start, actions = np.array([250.0, 240.0, 90.0, -70.0]), rng.uniform(-1, 1, (H * FRAMESKIP, 2))
    for rule in (AccelerationLimit(0, RELATIVE), JerkLimit(0, RELATIVE)):
        single, double = (rule(planned(RELATIVE, start, actions, precise)) for precise in (False, True))
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=0)


def test_a_batch_follows_a_target_each() -> None:
    starts = torch.tensor([[100.0, 100.0, 0.0, 0.0], [300.0, 200.0, 0.0, 0.0]])
    actions = torch.zeros(2, 3, H, 2 * FRAMESKIP)
    path = RELATIVE.path(starts, actions, FRAMESKIP)
    trajectory = Trajectory(actions, torch.zeros(2, 3, H, 1, 1), path=path)
    still = JerkLimit(1.0, RELATIVE).following(starts[:, :2])
    torch.testing.assert_close(still(trajectory), torch.ones(2, 3, H), atol=1e-2, rtol=0)
    ahead = JerkLimit(1.0, RELATIVE).following(starts[0, :2] + 10)
    jump = 100 * 10 * 2**0.5 / 0.01 / 0.8  # kp times the distance, gone within dt; 0.8 of a velocity is left after dt
    assert ahead(trajectory)[0, :, 0].tolist() == pytest.approx([1 - jump] * 3, rel=1e-3)


def test_following_leaves_the_rule_as_it_was() -> None:
    rule = JerkLimit(1.0, RELATIVE)
    assert rule.following((1, 2)).last_target is not None and rule.last_target is None


def test_executed_motion_is_judged_the_same() -> None:
    velocity = torch.tensor([[0.0, 0.0], [0.03, 0.04], [0.06, 0.08], [0.06, 0.08]])
    acceleration = AccelerationLimit(6.0, RELATIVE).margin_along(velocity)
    torch.testing.assert_close(acceleration, torch.tensor([1.0, 1.0, 6.0]), atol=1e-5, rtol=0)
    jerk = JerkLimit(600.0, RELATIVE).margin_along(velocity)
    torch.testing.assert_close(jerk, torch.tensor([600.0, 100.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("rule", [AccelerationLimit(1e9, RELATIVE), JerkLimit(1e9, RELATIVE)], ids=lambda r: r.name)
@pytest.mark.parametrize("instant", [0, 7, H * FRAMESKIP * 10 - 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_the_path_never_looks_safe(rule: Any, instant: int, value: float) -> None:
    trajectory = planned(RELATIVE, np.array([250.0, 250.0, 0.0, 0.0]), np.zeros((H * FRAMESKIP, 2)))
    path = trajectory.path
    assert path is not None and (rule(trajectory) >= 0).all()
    step, inside = divmod(instant, FRAMESKIP * 10)
    path[0, 0, step, inside, 3] = value
    assert not (rule(trajectory)[0, 0, step] >= 0)


def test_exposes_what_it_limits() -> None:
    acceleration, jerk = AccelerationLimit(3000, RELATIVE), JerkLimit(5e5, RELATIVE)
    assert (acceleration.max_acceleration, acceleration.unit, acceleration.soft) == (3000.0, "px/s^2", False)
    assert (jerk.max_jerk, jerk.unit, jerk.soft) == (5e5, "px/s^3", False)
    assert acceleration.kinematics is RELATIVE and jerk.kinematics is RELATIVE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AccelerationLimit(-1, RELATIVE), "max_acceleration must be one number >= 0, came -1"),
        (lambda: JerkLimit(float("nan"), RELATIVE), "guardrail 'jerk': max_jerk must be finite"),
        (
            lambda: AccelerationLimit(1, STIFF),
            "needs .1 - kv dt. >= 0.05",
        ),
        (lambda: JerkLimit(1, RELATIVE).following((1, 2, 3)), r"target must have the shape \(B, 2\) or \(2,\)"),
        (lambda: JerkLimit(1, RELATIVE).following((1, float("inf"))), "guardrail 'jerk': target must be finite"),
    ],
)
def test_bad_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()


@pytest.mark.parametrize("rule", [AccelerationLimit(1, RELATIVE), JerkLimit(1, RELATIVE)], ids=lambda r: r.name)
def test_a_path_that_cannot_be_judged_is_an_error(rule: Any) -> None:
    def of(path: Tensor | None) -> Trajectory:
        return Trajectory(torch.zeros(1, 1, 1, 2 * FRAMESKIP), torch.zeros(1, 1, 1, 1, 1), path=path)

    with pytest.raises(BadInputError, match="needs the robot's path, but the robot declares no kinematics"):
        rule(of(None))
    with pytest.raises(BadInputError, match="path with 10 instants per control step, came 5 instants for 2 control"):
        rule(of(torch.zeros(1, 1, 1, 5, 4)))
