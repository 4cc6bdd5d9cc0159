from __future__ import annotations

import pytest
import torch

from wm.errors import BadInputError
from wm.planners.energies import Effort, Energy, GoalDistance, GridDistance, ReadOutDistance, total
from wm.types import Trajectory


def trajectory(b: int = 2, s: int = 3, h: int = 4) -> Trajectory:
    torch.manual_seed(0)
    return Trajectory(torch.randn(b, s, h, 6), torch.randn(b, s, h, 5, 7))


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_goal_distance_is_the_weighted_mean_of_squared_distances(horizon: int) -> None:
    imagined, goal = trajectory(h=horizon), torch.randn(2, 5, 7)
    squared = (imagined.tokens - goal[:, None, None]).square().mean((-2, -1))
    weights = torch.tensor([0.1] * (horizon - 1) + [1.0])
    expected = (squared * weights).sum(-1) / weights.sum()
    torch.testing.assert_close(GoalDistance(goal)(imagined), expected)
    torch.testing.assert_close(GoalDistance(goal, weight=3.0)(imagined), 3 * expected)
    torch.testing.assert_close(GoalDistance(goal, step_weights=(4 * weights).tolist())(imagined), expected)


def test_goal_distance_is_zero_at_the_goal_only() -> None:
    goal = torch.randn(1, 5, 7)
    at = Trajectory(torch.zeros(1, 2, 3, 6), goal[:, None, None].repeat(1, 2, 3, 1, 1))
    at.tokens[:, 1, 0, 0, 0] += 1e-2
    energy = GoalDistance(goal)(at)
    assert energy[0, 0] == 0 and energy[0, 1] > 0


def test_goal_distance_counts_in_units_of_its_scale() -> None:
    imagined, goal, scale = trajectory(), torch.randn(2, 5, 7), torch.rand(7) + 0.5
    unscaled = Trajectory(imagined.actions, imagined.tokens / scale)
    torch.testing.assert_close(GoalDistance(goal, scale=scale)(imagined), GoalDistance(goal / scale)(unscaled))
    torch.testing.assert_close(GoalDistance(goal, scale=2.0)(imagined), GoalDistance(goal)(imagined) / 4)


def test_goal_distance_has_a_gradient_also_at_the_goal() -> None:
    goal = torch.zeros(1, 2, 3)
    tokens = torch.zeros(1, 2, 1, 2, 3)
    tokens[0, 1] = 3.0
    tokens.requires_grad_()
    GoalDistance(goal)(Trajectory(torch.zeros(1, 2, 1, 1), tokens)).sum().backward()
    torch.testing.assert_close(tokens.grad, 2 * tokens.detach() / 6)


def test_read_out_distance_compares_what_is_read() -> None:
    imagined, goal, matrix = trajectory(), torch.randn(2, 5, 7), torch.randn(35, 3)
    scale = torch.tensor([1.0, 2.0, 0.5])

    def read(tokens: torch.Tensor) -> torch.Tensor:
        return (tokens.flatten(-2) @ matrix).unsqueeze(-2)

    plain = Trajectory(imagined.actions, read(imagined.tokens))
    expected = GoalDistance(read(goal), earlier_weight=0.3, scale=scale)(plain)
    energy = ReadOutDistance(goal, read, earlier_weight=0.3, scale=scale)
    torch.testing.assert_close(energy(imagined), expected)
    tokens = imagined.tokens.clone().requires_grad_()
    energy(Trajectory(imagined.actions, tokens)).sum().backward()
    assert tokens.grad is not None and bool((tokens.grad.abs().amax((2, 3, 4)) > 0).all())


def test_effort_is_the_mean_squared_action() -> None:
    moved = trajectory()
    torch.testing.assert_close(Effort(0.5)(moved), 0.5 * moved.actions.square().mean((-2, -1)))


def test_total_sums_named_terms() -> None:
    imagined = trajectory()
    energies: list[Energy] = [GoalDistance(torch.zeros(1, 5, 7)), Effort(0.1)]
    energy, terms = total(energies, imagined)
    assert list(terms) == ["goal", "effort"]
    torch.testing.assert_close(energy, terms["goal"] + terms["effort"])


def test_total_refuses_what_is_not_one_number_per_candidate() -> None:
    class PerStep:
        name = "per step"

        def __call__(self, trajectory: Trajectory) -> torch.Tensor:
            return trajectory.actions.sum(-1)

    with pytest.raises(BadInputError, match=r"energy 'per step': expected the shape \(2, 3\), came \(2, 3, 4\)"):
        total([PerStep()], trajectory())
    with pytest.raises(BadInputError, match="at least one energy"):
        total([], trajectory())


def test_bad_settings_are_refused() -> None:
    goal = torch.zeros(1, 2, 3)
    with pytest.raises(BadInputError, match="energy 'goal': last_weight must be finite and >= 0, came -1"):
        GoalDistance(goal, last_weight=-1.0)
    with pytest.raises(BadInputError, match="at least one step weight must be positive"):
        GoalDistance(goal, last_weight=0.0, earlier_weight=0.0)
    with pytest.raises(BadInputError, match="scale must be positive and finite, came 0"):
        GoalDistance(goal, scale=0)
    with pytest.raises(BadInputError, match="goal's tokens must be finite"):
        GoalDistance(goal / 0)
    with pytest.raises(BadInputError, match="effort"):
        Effort(float("nan"))
    with pytest.raises(BadInputError, match="expected 4 step weights for horizon 4, came 2"):
        GoalDistance(torch.zeros(1, 5, 7), step_weights=[1, 2])(trajectory())


def _imagined(tokens: torch.Tensor) -> Trajectory:
    return Trajectory(torch.zeros(*tokens.shape[:3], 4), tokens)


def _one(grid: int, row: int, column: int) -> torch.Tensor:
    """A field with one thing, ``(1, 1, 1, N, 1)``."""
    field = torch.zeros(grid, grid)
    field[row, column] = 1.0
    return field.reshape(1, 1, 1, -1, 1)


def test_grid_distance_falls_with_every_bit_of_the_way() -> None:
    goal = _one(8, 1, 1)[:, 0, 0]
    energies = [float(GridDistance(goal, 8)(_imagined(_one(8, 1, column)))) for column in (7, 5, 3, 2, 1)]
    assert energies == sorted(energies, reverse=True) and len(set(energies)) == 5
    assert energies[-1] == 0.0
    flat = [float(GoalDistance(goal)(_imagined(_one(8, 1, column)))) for column in (7, 5, 3, 2)]
    assert max(flat) == pytest.approx(min(flat))  # which cell by cell it does not


@pytest.mark.parametrize("grid", [1, 4, 5])
def test_grid_distance_is_the_weighted_mean_over_windows_of_every_size(grid: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 3, 1, grid * grid, 2, generator=generator)
    goal = torch.randn(2, grid * grid, 2, generator=generator)
    planes = (tokens - goal[:, None, None]).movedim(-1, -2).reshape(-1, 1, grid, grid)
    sizes = [size for size in (1, 2, 4) if size <= grid]
    wide = [torch.nn.functional.pad(planes, [k - 1] * 4) for k in sizes]
    pooled = [torch.nn.functional.avg_pool2d(plane, k, stride=1) for k, plane in zip(sizes, wide, strict=True)]
    levels = [k**2 * p.square().sum((1, 2, 3)).reshape(2, 3, 2).mean(-1) for k, p in zip(sizes, pooled, strict=True)]
    expected = sum(levels[1:], levels[0]) / (grid**2 * sum(k**2 for k in sizes))
    torch.testing.assert_close(GridDistance(goal, grid)(_imagined(tokens)), expected)


def test_grid_distance_refuses_tokens_that_are_no_such_grid() -> None:
    with pytest.raises(BadInputError, match="16 goal tokens, came 9"):
        GridDistance(torch.zeros(1, 9, 2), 4)
