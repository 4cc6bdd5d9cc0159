from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from wm.kinematics import PointKinematics

ROBOT = PointKinematics(kp=100.0, kv=20.0, dt=0.01, substeps=10, scale=100.0, relative=True)


def simulate(robot: PointKinematics, start: Tensor, controls: Tensor) -> Tensor:
    """Plain step-by-step simulation of one candidate: ``(4,)`` and ``(steps, 2)`` to ``(steps * substeps, 4)``."""
    position, velocity, path = start[:2].clone(), start[2:].clone(), []
    for control in controls:
        target = robot.scale * control + (position if robot.relative else 0.0)
        for _ in range(robot.substeps):
            velocity = velocity + (robot.kp * (target - position) - robot.kv * velocity) * robot.dt
            position = position + velocity * robot.dt
            path.append(torch.cat([position, velocity]))
    return torch.stack(path)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("frameskip", "horizon"), [(5, 5), (1, 3), (4, 1)])
def test_path_agrees_with_a_step_by_step_simulation(relative: bool, frameskip: int, horizon: int) -> None:
    robot = dataclasses.replace(ROBOT, relative=relative)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, generator=generator, dtype=torch.float64) * 200
    actions = torch.randn(2, 3, horizon, 2 * frameskip, generator=generator, dtype=torch.float64)
    path = robot.path(start, actions, frameskip)
    assert path.shape == (2, 3, horizon, frameskip * robot.substeps, 4)
    for b in range(2):
        for s in range(3):
            expected = simulate(robot, start[b], actions[b, s].reshape(-1, 2))
            torch.testing.assert_close(path[b, s].reshape(-1, 4), expected, atol=1e-8, rtol=1e-10)


def test_float32_is_exact_enough_for_margins() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([[250.0, 250.0, 50.0, -50.0]])
    actions = torch.rand(1, 50, 5, 10, generator=generator) * 2 - 1
    error = ROBOT.path(start, actions, 5).double() - ROBOT.path(start.double(), actions.double(), 5)
    assert error.abs().max() < 2e-3  # px and px/s, of up to 1,000


def test_no_action_from_rest_stays() -> None:
    start = torch.tensor([[123.0, 45.0, 0.0, 0.0]], dtype=torch.float64)
    path = ROBOT.path(start, torch.zeros(1, 1, 2, 10, dtype=torch.float64), 5)
    torch.testing.assert_close(path, start.expand_as(path), atol=1e-9, rtol=0)


def test_later_actions_do_not_change_earlier_instants() -> None:
    start, actions = torch.zeros(1, 4), torch.zeros(1, 1, 3, 4)
    later = actions.clone()
    later[0, 0, 2, 2:] = 1.0  # the last control step
    still, moved = ROBOT.path(start, actions, 2), ROBOT.path(start, later, 2)
    assert torch.equal(still[:, :, :2], moved[:, :, :2]) and torch.equal(still[:, :, 2, :10], moved[:, :, 2, :10])
    assert not torch.equal(still[:, :, 2, 10:], moved[:, :, 2, 10:])


def test_a_constant_absolute_target_is_reached() -> None:
    robot = dataclasses.replace(ROBOT, relative=False)
    actions = torch.tensor([3.0, 2.0]).repeat(10).view(1, 1, 2, 10)
    end = robot.path(torch.tensor([[100.0, 100.0, 0.0, 0.0]]), actions, 5)[0, 0, -1, -1]
    torch.testing.assert_close(end, torch.tensor([300.0, 200.0, 0.0, 0.0]), atol=2.0, rtol=0)


def test_action_width_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected A = 2 \\* frameskip = 10, came 8"):
        ROBOT.path(torch.zeros(1, 4), torch.zeros(1, 1, 1, 8), 5)
