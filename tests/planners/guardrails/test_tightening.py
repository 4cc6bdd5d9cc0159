from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm.errors import BadInputError
from wm.planners.guardrails import JointLimits, KeepOutDiscs, SpeedLimit, Tightened, WorkspaceBox
from wm.types import Trajectory

H = 4
RULE = KeepOutDiscs([[250, 250]], [60])


def trajectory(seed: int = 0, h: int = H) -> Trajectory:
    path = torch.randn(2, 3, h, 6, 4, generator=torch.Generator().manual_seed(seed)) * 150 + 250
    return Trajectory(torch.zeros(2, 3, h, 2), torch.zeros(2, 3, h, 1, 1), path=path)


lengths = st.lists(st.floats(0, 50, width=32), min_size=H, max_size=H).map(sorted)


@given(lengths, lengths)
def test_more_tightening_is_never_a_larger_margin(some: list[float], more: list[float]) -> None:
    both = np.add(some, more)
    loose, tight = Tightened(RULE, some)(trajectory()), Tightened(RULE, both)(trajectory())
    assert (tight <= loose).all() and (loose <= RULE(trajectory())).all()
    assert ((tight >= 0) <= (loose >= 0)).all()


@given(lengths)
def test_the_margin_falls_by_the_length_of_its_step(lengths: list[float]) -> None:
    fall = RULE(trajectory()) - Tightened(RULE, lengths)(trajectory())
    torch.testing.assert_close(fall, torch.tensor(lengths).expand(2, 3, H), atol=1e-4, rtol=0)


@given(st.integers(0, 50), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_a_path_within_the_bound_of_a_tightened_one_keeps_the_rule(seed: int, part: list[float]) -> None:
    """What tightening is for: whatever disturbance within the bound leaves the rule kept."""
    bound = torch.tensor([1.0, 5.0, 12.0, 30.0])
    nominal = trajectory(seed)
    assert nominal.path is not None
    angle = torch.tensor(part[0] * 2 * torch.pi)
    push = part[1] * bound[:, None, None] * torch.stack([angle.cos(), angle.sin()])
    path = nominal.path.clone()
    path[..., :2] += push
    disturbed = Trajectory(nominal.actions, nominal.tokens, path=path)
    for rule in (RULE, WorkspaceBox((0, 0), (512, 512), 15)):
        kept = Tightened(rule, bound)(nominal) >= 1e-3
        assert (rule(disturbed)[kept] >= 0).all()


def test_no_tightening_is_the_rule_itself() -> None:
    assert torch.equal(Tightened(RULE, [0.0] * H)(trajectory()), RULE(trajectory()))


def test_a_shorter_horizon_takes_the_first_lengths() -> None:
    rule = Tightened(RULE, [1, 2, 3, 4])
    torch.testing.assert_close(RULE(trajectory(h=2)) - rule(trajectory(h=2)), torch.tensor([1.0, 2.0]).expand(2, 3, 2))


def test_name_unit_and_softness_are_the_rules_own() -> None:
    for inner in (SpeedLimit(250), JointLimits((0,), (-1,), (1,))):
        rule = Tightened(inner, [0, 1])
        assert (rule.name, rule.unit, rule.soft, rule.rule) == (inner.name, inner.unit, inner.soft, inner)
        assert rule.lengths.tolist() == [0.0, 1.0]


def test_nan_stays_unsafe() -> None:
    broken = trajectory()
    assert broken.path is not None
    broken.path[0, 0, 2, 3] = torch.nan
    assert not (Tightened(RULE, [0.0] * H)(broken)[0, 0, 2] >= 0)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 2], r"must be >= 0 and must not fall with the horizon, came \[3.0, 2.0\]"),
        ([-1, 2], "must be >= 0 and must not fall"),
        ([1, float("inf")], "guardrail 'keep_out': tightening must be finite"),
        ([], r"tightening must have the shape \(L,\), L >= 1, came \(0,\)"),
        (3.0, r"tightening must have the shape \(L,\), L >= 1, came \(\)"),
    ],
)
def test_bad_lengths_are_refused(lengths: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Tightened(RULE, lengths)


def test_a_horizon_without_a_bound_is_an_error() -> None:
    with pytest.raises(BadInputError, match="knows the error up to 2 latent steps ahead, came a horizon of 4"):
        Tightened(RULE, [1, 2])(trajectory())
