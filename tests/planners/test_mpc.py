from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import FRAMESKIP, HORIZON, ROBOT, A, around_disc, point_robot, quadratic, seeded
from wm.errors import BadInputError
from wm.planners import CEM, ICEM, MPC


class Recorder(ICEM):
    """Remembers what it was started from."""

    def search(self, *args: Any, **kwargs: Any) -> Any:
        self.warm_start, self.given = kwargs["warm_start"], kwargs["elites"]
        result = super().search(*args, **kwargs)
        self.found = result[1]
        return result


def test_returns_the_first_latent_steps_as_control_steps() -> None:
    plan, now = MPC(ICEM(FRAMESKIP), HORIZON, 2, FRAMESKIP).plan(quadratic(2), generator=seeded())
    assert now.shape == (2, 2 * FRAMESKIP, 2)
    assert torch.equal(now, plan.actions.reshape(2, HORIZON * FRAMESKIP, 2)[:, : 2 * FRAMESKIP])


@pytest.mark.parametrize("fill", ["repeat", "stay"])
def test_shifts_plan_and_elites_by_the_executed_steps(fill: Any) -> None:
    solver = Recorder(FRAMESKIP)
    mpc = MPC(solver, HORIZON, 2, FRAMESKIP, fill)
    first, _ = mpc.plan(quadratic(), generator=seeded())
    assert solver.warm_start is None and solver.given is None
    elites = solver.found
    mpc.plan(quadratic(), generator=seeded())

    def shifted(actions: Tensor) -> Tensor:
        tail = actions[..., -1:, :] if fill == "repeat" else torch.zeros_like(actions[..., -1:, :])
        return torch.cat([actions[..., 2:, :], tail, tail], dim=-2)

    assert torch.equal(solver.warm_start, shifted(first.actions))
    assert torch.equal(solver.given, shifted(elites))


@pytest.mark.parametrize("fill", ["repeat", "stay"])
@pytest.mark.parametrize("passed", [0, 1, 3, FRAMESKIP, FRAMESKIP + 2, HORIZON * FRAMESKIP - 1])
def test_shifts_by_the_control_steps_that_have_passed(fill: Any, passed: int) -> None:
    solver = Recorder(FRAMESKIP)
    mpc = MPC(solver, HORIZON, 1, FRAMESKIP, fill)
    first, _ = mpc.plan(quadratic(), generator=seeded())
    elites = solver.found
    mpc.plan(quadratic(), generator=seeded(), passed=passed)

    def shifted(actions: Tensor) -> Tensor:
        steps = actions.reshape(-1, HORIZON * FRAMESKIP, 2)
        last = steps[:, -FRAMESKIP:] if fill == "repeat" else torch.zeros_like(steps[:, -FRAMESKIP:])
        longer = torch.cat([steps, *[last] * HORIZON], dim=1)
        return longer[:, passed : passed + HORIZON * FRAMESKIP].reshape(actions.shape)

    assert torch.equal(solver.warm_start, shifted(first.actions))
    assert torch.equal(solver.given, shifted(elites))


def test_proposals_join_the_elites_cut_to_the_horizon() -> None:
    solver, proposals = Recorder(FRAMESKIP), torch.rand(1, 3, HORIZON + 1, A, generator=seeded())
    mpc = MPC(solver, HORIZON, 1, FRAMESKIP)
    mpc.plan(quadratic(), generator=seeded(), proposals=proposals)
    assert torch.equal(solver.given, proposals[:, :, :HORIZON])
    elites = solver.found
    mpc.plan(quadratic(), generator=seeded(), proposals=proposals)
    assert solver.given.shape[1] == elites.shape[1] + 3
    assert torch.equal(solver.given[:, -3:], proposals[:, :, :HORIZON])


def test_nothing_is_left_after_more_control_steps_than_were_planned() -> None:
    solver = Recorder(FRAMESKIP)
    mpc = MPC(solver, HORIZON, 1, FRAMESKIP)
    mpc.plan(quadratic(), generator=seeded())
    mpc.plan(quadratic(), generator=seeded(), passed=HORIZON * FRAMESKIP)
    assert solver.warm_start is None and solver.given is None
    with pytest.raises(BadInputError, match="MPC: passed must be >= 0 control steps, came -1"):
        mpc.plan(quadratic(), generator=seeded(), passed=-1)


def test_nothing_is_left_after_executing_the_whole_plan() -> None:
    mpc = MPC(ICEM(FRAMESKIP), HORIZON, HORIZON, FRAMESKIP)
    mpc.plan(quadratic(), generator=seeded())
    assert mpc.warm_start is None and mpc.elites is None


def test_reset_forgets() -> None:
    mpc = MPC(ICEM(FRAMESKIP), HORIZON, 1, FRAMESKIP)
    first, _ = mpc.plan(quadratic(), generator=seeded())
    assert mpc.warm_start is not None and mpc.elites is not None
    mpc.reset()
    again, _ = mpc.plan(quadratic(), generator=seeded())
    assert torch.equal(first.actions, again.actions)


def test_select_keeps_the_chosen_problems() -> None:
    mpc = MPC(ICEM(FRAMESKIP), HORIZON, 1, FRAMESKIP)
    mpc.plan(quadratic(3), generator=seeded())
    warm, elites = mpc.warm_start, mpc.elites
    assert warm is not None and elites is not None
    mpc.select([2, 0])
    assert torch.equal(mpc.warm_start, warm[[2, 0]]) and torch.equal(mpc.elites, elites[[2, 0]])
    mpc.plan(quadratic(2), generator=seeded())
    with pytest.raises(BadInputError, match=r"warm start: expected the shape \(3, 5, 10\), came \(2, 5, 10\)"):
        mpc.plan(quadratic(3), generator=seeded())


@pytest.mark.parametrize("solver", [CEM(iterations=4), ICEM(FRAMESKIP, iterations=4)], ids=["cem", "icem"])
def test_closed_loop_drives_around_the_disc(solver: Any) -> None:
    mpc, generator = MPC(solver, HORIZON, 1, FRAMESKIP), seeded()
    state = torch.tensor([[100.0, 250.0, 0.0, 0.0]])
    for _ in range(10):
        task = dataclasses.replace(around_disc(), rollout=point_robot(state))
        _, now = mpc.plan(task, generator=generator)
        path = ROBOT.path(state, now.reshape(1, 1, 1, A), FRAMESKIP)[0, 0, 0]
        assert all(rail.margin_of(path).min() >= -1e-3 for rail in task.guardrails)
        state = path[-1:]
    assert (state[0, :2] - torch.tensor([400.0, 250.0])).norm() < 10.0


def test_bad_settings_are_refused() -> None:
    solver = ICEM(FRAMESKIP)
    with pytest.raises(BadInputError, match="MPC: execute must be in 1 … horizon = 5, came 6"):
        MPC(solver, HORIZON, 6, FRAMESKIP)
    with pytest.raises(BadInputError, match="MPC: frameskip must be >= 1, came 0"):
        MPC(solver, HORIZON, 1, 0)
    with pytest.raises(BadInputError, match="MPC: most_proposals must be >= 0, came -1"):
        MPC(solver, HORIZON, 1, FRAMESKIP, most_proposals=-1)
    with pytest.raises(BadInputError, match="MPC: expected a horizon up to 4, came 5"):
        MPC(solver, 4, 1, FRAMESKIP).plan(quadratic(), generator=seeded())
    with pytest.raises(BadInputError, match="MPC: frameskip 3 must divide A = 10"):
        MPC(solver, HORIZON, 1, 3).plan(quadratic(), generator=seeded())


def test_the_horizon_may_shrink_towards_the_end() -> None:
    solver = Recorder(FRAMESKIP)
    mpc = MPC(solver, HORIZON, 1, FRAMESKIP)
    first, _ = mpc.plan(quadratic(), generator=seeded())
    shorter = dataclasses.replace(quadratic(), horizon=2)
    plan, now = mpc.plan(shorter, generator=seeded())
    assert plan.actions.shape[1] == 2 and now.shape[1] == FRAMESKIP
    assert torch.equal(solver.warm_start, first.actions[:, 1:3])  # nothing filled in
    last, now = mpc.plan(dataclasses.replace(quadratic(), horizon=1), generator=seeded())
    assert now.shape[1] == FRAMESKIP and mpc.warm_start is None


@pytest.mark.parametrize(("most", "tried"), [(None, 3), (2, 2), (0, 0)])
def test_tries_the_first_of_the_proposals(most: int | None, tried: int) -> None:
    solver, given = Recorder(FRAMESKIP), torch.linspace(0.1, 0.3, 3)[None, :, None, None].expand(1, 3, HORIZON, A)
    MPC(solver, HORIZON, 1, FRAMESKIP, most_proposals=most).plan(quadratic(), generator=seeded(), proposals=given)
    assert torch.equal(solver.given, given[:, :tried])


def test_counts_the_candidates_of_every_problem() -> None:
    """Staying, the guess and two proposals, then 12 samples, and 8 with the mean in the last iteration."""
    solver = ICEM(FRAMESKIP, population=12, elites=4, iterations=2, keep=0.0, gamma=1.5, rtol=0.0, patience=9)
    mpc, given = MPC(solver, HORIZON, 1, FRAMESKIP), torch.zeros(3, 2, HORIZON, A)
    for batch in (1, 3):
        mpc.reset()
        plan, _ = mpc.plan(quadratic(batch), generator=seeded(), proposals=given[:batch])
        assert plan.candidates == (2 + 2 + 12) + (8 + 1)
