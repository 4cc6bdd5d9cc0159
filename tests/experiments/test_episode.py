"""The closed loop's accounting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.experiments.episode import PlanningController
from wm.planners.energies import Effort
from wm.planners.icem import ICEM
from wm.planners.mpc import MPC
from wm.specs import ActionSpec
from wm.types import Trajectory

ACTION = ActionSpec(("dx", "dy"), "100 px", (-1.0, -1.0), (1.0, 1.0), 10.0)


class Blind(PlanningController):
    """Imagines nothing; remembers the horizons it was asked for."""

    horizons: list[int]

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """Not needed."""

    def imagination(self) -> Callable[[Tensor], Trajectory]:
        """Zeros."""

        def rollout(actions: Tensor) -> Trajectory:
            return Trajectory(actions, torch.zeros(*actions.shape[:3], 1, 1))

        return rollout


@pytest.mark.parametrize(("budget", "horizons"), [(None, [3, 3, 3, 3, 3]), (22, [3, 3, 3, 2, 1]), (5, [1, 1])])
def test_the_horizon_never_reaches_past_the_budget(budget: int | None, horizons: list[int]) -> None:
    mpc = MPC(ICEM(5, population=20, elites=4, iterations=1), 3, 1, 5)
    controller = Blind(ACTION, mpc, [Effort(1.0)], budget=budget)
    assert [controller.plan()[0].actions.shape[1] for _ in horizons] == horizons
