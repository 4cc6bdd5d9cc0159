from __future__ import annotations

from typing import Any

import pytest
import torch

from wm.errors import BadInputError
from wm.planners import Problem
from wm.planners.energies import Effort
from wm.planners.guardrails import SpeedLimit
from wm.types import Trajectory


def make(**fields: Any) -> Problem:
    settings = {
        "rollout": lambda actions: Trajectory(actions, actions[:, :, :, None]),
        "energies": [Effort(1.0)],
        "guardrails": [],
        "low": torch.tensor([-1.0, 0.5]),
        "high": torch.tensor([1.0, 2.0]),
        "horizon": 3,
    }
    return Problem(**{**settings, **fields})


def test_clips_in_raw_units() -> None:
    assert make().clip(torch.tensor([[35.0, 35.0], [-35.0, -35.0]])).tolist() == [[1.0, 2.0], [-1.0, 0.5]]


def test_staying_is_zero_unless_said_otherwise_and_inside_the_bounds() -> None:
    assert make(batch=2).staying().tolist() == [[[0.0, 0.5]] * 3] * 2
    assert make(stay=torch.tensor([[0.25, 9.0]])).staying().tolist() == [[[0.25, 2.0]] * 3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": torch.tensor([2.0, 0.5])}, "bounds must be finite, low <= high, came"),
        ({"low": torch.tensor([torch.nan, 0.5])}, "bounds must be finite"),
        ({"horizon": 0}, "horizon and batch must be >= 1, came 0 and 1"),
        ({"batch": 0}, "horizon and batch must be >= 1, came 3 and 0"),
        ({"energies": []}, "at least one energy"),
        ({"energies": [Effort(1.0), Effort(2.0)]}, "energies must have different names, came 'effort' more than once"),
        ({"guardrails": [SpeedLimit(1.0), SpeedLimit(2.0)]}, "guardrails must have different names, came 'speed'"),
        ({"batch": 3, "stay": torch.zeros(2, 2)}, r"stay: expected the shape \(3, 2\), came \(2, 2\)"),
        ({"stay": torch.full((1, 2), torch.nan)}, "stay must be finite"),
        ({"enough": float("nan")}, "enough: expected an energy, came nan"),
    ],
)
def test_bad_problems_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make(**fields)
