from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.wm.windows import with_observations
from wm.conformal import imagine_windows, one_window_per_episode, proprio_bounds, split_conformal
from wm.errors import BadInputError
from wm.joint import JointModel
from wm.logs import Log, LogWindows, Moments
from wm.predictor import Predictor
from wm.rollout import rollout


@given(st.integers(19, 60), st.sampled_from([0.05, 0.1, 0.2, 0.5, 0.9]))
def test_the_bound_is_the_smallest_error_with_enough_below_it(n: int, alpha: float) -> None:
    errors = torch.rand(n, 2, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    bound = split_conformal(errors, alpha)
    below = (errors <= bound).sum(0)
    needed = (n + 1) * (1 - alpha)
    assert (below >= needed - 1e-6).all() and (below - 1 < needed).all()


def test_one_more_draw_keeps_the_bound_as_often_as_promised() -> None:
    """Marginal coverage is between 1 - alpha and 1 - alpha + 1 / (n + 1), exactly, whatever the distribution."""
    n, alpha, rounds = 29, 0.1, 20_000
    draws = torch.randn(n + 1, rounds, generator=torch.Generator().manual_seed(0)).abs() ** 3
    share = (draws[n] <= split_conformal(draws[:n], alpha)).double().mean().item()
    noise = 3 * (0.1 * 0.9 / rounds) ** 0.5
    assert 1 - alpha - noise <= share <= 1 - alpha + 1 / (n + 1) + noise


def test_a_smaller_alpha_is_never_a_smaller_bound() -> None:
    errors = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    bounds = torch.stack([split_conformal(errors, alpha) for alpha in (0.5, 0.2, 0.1, 0.01)])
    assert (bounds.diff(dim=0) >= 0).all()


def test_the_least_number_of_errors() -> None:
    errors = torch.arange(19.0)[:, None]
    assert split_conformal(errors, 0.05).item() == 18.0
    with pytest.raises(BadInputError, match=r"alpha 0.05 needs at least 19 held-out episodes, came 18\."):
        split_conformal(errors[:18], 0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_refuses_what_is_no_level(alpha: float) -> None:
    with pytest.raises(BadInputError, match=r"alpha must be in \(0, 1\), came"):
        split_conformal(torch.zeros(100, 1), alpha)


def test_refuses_errors_that_are_not_finite() -> None:
    errors = torch.zeros(100, 1)
    errors[3] = torch.nan
    with pytest.raises(BadInputError, match="held-out errors must be finite"):
        split_conformal(errors, 0.1)


def test_one_window_of_each_episode(drifting_dot: Callable[..., LogWindows]) -> None:
    windows = drifting_dot(episodes=12)
    episodes, starts = one_window_per_episode(windows, 1)
    assert episodes.tolist() == list(range(12)) and len(set(starts.tolist())) > 3
    assert np.array_equal(one_window_per_episode(windows, 1)[1], starts)
    assert not np.array_equal(one_window_per_episode(windows, 2)[1], starts)


def test_imagined_windows_begin_with_what_was_observed(
    drifting_dot: Callable[..., LogWindows],
    dot_model: Callable[[], JointModel],
    moving: Callable[[Predictor], Predictor],
) -> None:
    windows = drifting_dot(horizon=4)
    table = torch.as_tensor(windows.log.observations).flatten(1)[:, :8]
    joint = dot_model()
    moving(joint.predictor)
    cut = with_observations(windows, table)
    vectors, rows = imagine_windows(joint, cut, np.array([0, 3]), np.array([2, 5]))
    assert vectors.shape == (2, 5, 8)
    assert rows.tolist() == [[4, 6, 8, 10, 12], [100, 102, 104, 106, 108]]  # 31 observations an episode
    assert torch.equal(vectors[:, 0], table[rows[:, 0]])
    batch = cut.cut(np.array([0, 3]), np.array([2, 5]))
    expected = rollout(joint.predictor, batch.observations[:, :2], batch.actions[:, None, 1:])[:, 0]
    torch.testing.assert_close(vectors[:, 1:], expected.detach(), atol=1e-6, rtol=1e-5)


def with_proprio(windows: LogWindows) -> LogWindows:
    """Two numbers of proprioception behind a table of states of six: a random walk."""
    rng = np.random.default_rng(0)
    observations = torch.as_tensor(windows.log.observations).flatten(1)[:, :6]
    walk = rng.normal(0, 1, (len(observations), 2)).cumsum(0).astype(np.float32) * [1.0, 10.0]
    proprio = walk.astype(np.float32)
    log = Log(observations, proprio, windows.log.actions)
    return LogWindows(log, windows.sampler, windows.action_moments, Moments.of(proprio))


def test_bounds_of_proprioception_are_in_raw_units_and_grow(
    drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    """A fresh model copies the last reading: the bound is the walk's own step, ten times larger for the second."""
    windows = with_proprio(drifting_dot(horizon=4, episodes=40))
    joint = dot_model()
    first, second, both = (proprio_bounds(joint, windows, chosen) for chosen in ([0], [1], [0, 1]))
    assert first.shape == (4,) and (first.diff() >= 0).all() and (second > first).all()
    assert torch.equal(both.maximum(second), both)
    _, rows = imagine_windows(joint, windows, *one_window_per_episode(windows))
    proprio = torch.from_numpy(windows.log.proprio)
    error = (proprio[rows[:, 2]] - proprio[rows[:, 0]])[:, 0].abs()
    assert first[1] >= error.sort().values[36] - 1e-4  # ceil(41 * 0.9) = 37th smallest, or an earlier step's


def test_refuses_proprioception_that_is_not_there(
    drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows = drifting_dot()
    with pytest.raises(BadInputError, match="expected a log with proprioception, came one without"):
        proprio_bounds(dot_model(), windows, [0])
    for chosen in ([], [2], [-1]):
        with pytest.raises(BadInputError, match=r"expected indices in 0 … 1, came \["):
            proprio_bounds(dot_model(), with_proprio(windows), chosen)
