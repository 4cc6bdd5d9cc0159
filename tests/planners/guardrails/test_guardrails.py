from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails import Guardrail, KeepOutBoxes, KeepOutDiscs, PathGuardrail, SpeedLimit, WorkspaceBox
from wm.types import Trajectory

NUMBER = st.floats(-600, 600, width=32)
RULES = [WorkspaceBox((0, 0), (512, 512), 15), KeepOutDiscs([[100, 100], [300, 50]], [20, 30]), SpeedLimit(250)]


def through(path: Tensor) -> Trajectory:
    b, s, h = path.shape[:3]
    return Trajectory(torch.zeros(b, s, h, 2), torch.zeros(b, s, h, 1, 1), path=path)


@given(NUMBER, NUMBER)
def test_box_margin_is_safe_exactly_inside(x: float, y: float) -> None:
    margin = WorkspaceBox((10, 20), (500, 400), radius=15).margin_of(torch.tensor([x, y, 0, 0])).item()
    inside = 25 <= x <= 485 and 35 <= y <= 385
    assert (margin >= 0) == inside
    assert margin == pytest.approx(min(x - 25, 485 - x, y - 35, 385 - y), abs=1e-3)


@given(NUMBER, NUMBER)
def test_keep_out_margin_is_the_distance_to_the_nearest_disc(x: float, y: float) -> None:
    margin = KeepOutDiscs([[100, 100], [300, 50]], [20, 60]).margin_of(torch.tensor([x, y, 0, 0])).item()
    distances = [((x - 100) ** 2 + (y - 100) ** 2) ** 0.5 - 35, ((x - 300) ** 2 + (y - 50) ** 2) ** 0.5 - 75]
    assert margin == pytest.approx(min(distances), abs=1e-3)


@given(NUMBER, NUMBER)
def test_speed_margin_is_what_is_left_of_the_limit(vx: float, vy: float) -> None:
    margin = SpeedLimit(250.0).margin_of(torch.tensor([0, 0, vx, vy])).item()
    assert margin == pytest.approx(250 - (vx**2 + vy**2) ** 0.5, abs=1e-3)


def test_margins_are_zero_on_the_boundary() -> None:
    assert WorkspaceBox((0, 0), (10, 10), 1).margin_of(torch.tensor([1.0, 5, 0, 0])) == 0
    assert KeepOutDiscs([[0, 0]], [5], robot_radius=5).margin_of(torch.tensor([6.0, 8, 0, 0])) == 0
    assert SpeedLimit(5).margin_of(torch.tensor([0.0, 0, 3, 4])) == 0


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_latent_step_is_as_safe_as_its_worst_instant(rule: PathGuardrail) -> None:
    path = torch.randn(2, 3, 4, 6, 4, generator=torch.Generator().manual_seed(0)) * 200 + 100
    margins = rule(through(path))
    assert margins.shape == (2, 3, 4)
    torch.testing.assert_close(margins, rule.margin_of(path).amin(-1))
    worst = torch.stack([rule(through(path[:, :, :, k : k + 1])) for k in range(6)]).amin(0)
    torch.testing.assert_close(margins, worst)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_nan_in_the_path_never_looks_safe(rule: PathGuardrail) -> None:
    path = torch.full((1, 1, 1, 3, 4), 200.0) / 2
    path[0, 0, 0, 1] = torch.nan
    assert not (rule(through(path)) >= 0).any()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_that_cannot_be_checked_is_an_error(rule: PathGuardrail) -> None:
    blind = Trajectory(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 1, 1))
    with pytest.raises(BadInputError, match=f"guardrail '{rule.name}' needs the robot's path"):
        rule(blind)


def test_names_and_units() -> None:
    assert [(rule.name, rule.unit) for rule in RULES] == [("workspace", "px"), ("keep_out", "px"), ("speed", "px/s")]
    assert all(isinstance(rule, Guardrail) for rule in RULES)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (WorkspaceBox, ((0, 0), (10, 0)), "low \\+ radius must be below high - radius"),
        (WorkspaceBox, ((0, 0), (10, 10), 5.0), "low \\+ radius must be below high - radius"),
        (WorkspaceBox, ((0, 0), (10, 10), -1.0), "guardrail 'workspace': radius must be one number >= 0, came -1"),
        (WorkspaceBox, ((0, float("nan")), (10, 10)), "guardrail 'workspace': low must be finite"),
        (WorkspaceBox, ((0, 0, 0), (10, 10)), r"low must be two numbers \(x, y\), came the shape \(3,\)"),
        (WorkspaceBox, ("left", (10, 10)), "low must be numbers, came 'left'"),
        (KeepOutDiscs, ([[0, 0]], [-3]), r"radii must be >= 0, came \[-3.0\]"),
        (KeepOutDiscs, ([[0, 0]], [float("inf")]), "radii must be finite"),
        (KeepOutDiscs, ([[0, float("nan")]], [1]), "centers must be finite"),
        (KeepOutDiscs, ([[0, 0]], [1, 2]), r"expected 1 radii, came the shape \(2,\)"),
        (KeepOutDiscs, ([0, 0], [1]), r"centers must have the shape \(M, 2\), M >= 1, came \(2,\)"),
        (KeepOutDiscs, (torch.zeros(0, 2), []), r"centers must have the shape \(M, 2\), M >= 1, came \(0, 2\)"),
        (KeepOutDiscs, ([[0, 0]], [1], float("nan")), "robot_radius must be finite"),
        (SpeedLimit, (-1.0,), "guardrail 'speed': max_speed must be one number >= 0, came -1"),
        (SpeedLimit, (float("nan"),), "guardrail 'speed': max_speed must be finite"),
    ],
)
def test_bad_settings_are_refused(make: Any, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make(*arguments)


@pytest.mark.parametrize(
    ("rule", "state", "slope"),
    [
        (KeepOutBoxes([[0, 0]], [[100, 40]]), [50.0, 39.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]),  # inside: out of it
        (KeepOutBoxes([[0, 0]], [[100, 40]]), [50.0, 60.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]),
        (KeepOutDiscs([[50, 50]], [20]), [50.0, 50.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
        (SpeedLimit(5.0), [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),  # at rest
        (SpeedLimit(5.0), [1.0, 1.0, 3.0, 4.0], [0.0, 0.0, -0.6, -0.8]),
    ],
)
def test_margins_have_a_slope_everywhere(rule: PathGuardrail, state: list[float], slope: list[float]) -> None:
    path = torch.tensor(state, requires_grad=True)
    margin = rule.margin_of(path)
    (found,) = torch.autograd.grad(margin, path)
    torch.testing.assert_close(found, torch.tensor(slope))
    torch.testing.assert_close(margin.detach(), rule.margin_of(path.detach()))
