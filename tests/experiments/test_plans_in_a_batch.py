"""A shipped model plans the same for a problem alone and among others (the contract's problems are simple ones)."""

from __future__ import annotations

import pytest
import torch

from wm.experiments.assemble import PLANNERS, make_model, make_mpc
from wm.experiments.episode import NEAR, goal_distance
from wm.experiments.worlds.base import Planning
from wm.model import WorldModel
from wm.planners.base import Problem
from wm.types import Latent
from wm.typical_inputs import typical_inputs

PROBLEMS, HORIZON = 3, 3
QUICK = Planning(population=24, iterations=3)


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return make_model("pusht", "pusht")


def task(model: WorldModel, rows: list[int]) -> Problem:
    """From remembered states of the log to others."""
    context, _ = typical_inputs(model)
    assert context.proprio is not None
    start = Latent(context.tokens[rows], context.proprio[rows])
    goal = context.tokens[[row + PROBLEMS for row in rows], -1]
    scale = model.goal_scale(1.0)
    distance = goal_distance(model, goal, earlier_weight=0.05, robot_weight=1.0)
    action, spacing = model.spec.env.action, model.spacing(scale)
    assert spacing is not None
    low, high = (torch.tensor(bound * model.spec.frameskip) for bound in (action.low, action.high))
    imagine = model.imagination(start)
    return Problem(imagine, [distance], [], low, high, HORIZON, batch=len(rows), enough=NEAR * spacing)


@pytest.mark.parametrize(("planner", "think"), [*((name, None) for name in PLANNERS), ("icem", "auto")])
def test_a_plan_is_the_same_alone_and_in_a_batch(model: WorldModel, planner: str, think: str | None) -> None:
    solver = make_mpc(planner, model.spec.frameskip, QUICK, think).solver
    solver.iterations = min(solver.iterations, 3)  # rounding of products of other sizes adds up
    generators = [torch.Generator().manual_seed(seed) for seed in range(PROBLEMS)]
    together = solver.solve(task(model, list(range(PROBLEMS))), generator=generators)
    assert len(set(together.energy.tolist())) == PROBLEMS
    for row in range(PROBLEMS):
        alone = solver.solve(task(model, [row]), generator=torch.Generator().manual_seed(row))
        torch.testing.assert_close(together.actions[row], alone.actions[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(together.energy[row], alone.energy[0], atol=1e-5, rtol=1e-4)
