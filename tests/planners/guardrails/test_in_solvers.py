"""Every rule in every solver: where it can be kept, the plan keeps it, and comes near the goal where it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import FRAMESKIP, HORIZON, ROBOT, problem, seeded
from wm.planners import CEM, ICEM, Solver
from wm.planners.energies import GoalDistance
from wm.planners.guardrails import (
    AccelerationLimit,
    ContactEnergy,
    Guardrail,
    JerkLimit,
    JointLimits,
    KeepOutBoxes,
    KeepOutDiscs,
    KeepOutPolygons,
    ObjectDistance,
    ObjectKeepOut,
    SpeedLimit,
    Tightened,
)
from wm.readout import StateReadout
from wm.types import Plan, Trajectory

START, GOAL, OBJECT = (100.0, 250.0), (400.0, 250.0), (250.0, 240.0)
GROWING = [2.0, 4.0, 6.0, 8.0, 10.0]

Read = Callable[..., StateReadout]
RULES: dict[str, Callable[[Read], Guardrail]] = {
    "boxes": lambda read: KeepOutBoxes([[220, 200]], [[280, 270]]),
    "polygons": lambda read: KeepOutPolygons([[(210, 240), (250, 200), (290, 250), (240, 280)]]),
    "tightened": lambda read: Tightened(KeepOutDiscs([[250, 240]], [30]), GROWING),
    "speed": lambda read: SpeedLimit(250),
    "acceleration": lambda read: AccelerationLimit(2000, ROBOT),
    "jerk": lambda read: JerkLimit(2.5e5, ROBOT).following(START),
    "joints": lambda read: JointLimits((0,), (50,), (330,), unit="px"),
    "object_keep_out": lambda read: ObjectKeepOut(read(GROWING, 4, 100.0), KeepOutDiscs([[250, 240]], [30])),
    "object_distance": lambda read: ObjectDistance(read_object(read), object_radius=25),
    "contact_energy": lambda read: ContactEnergy(read_object(read), 2500, mass=1, object_radius=25),
}
STOPS_SHORT = {"joints"}


def read_object(read: Read) -> StateReadout:
    readout = read(GROWING, 4, 100.0)
    readout.weight.copy_(100.0 * torch.eye(4)[:, 2:])
    return readout


def rollout(actions: Tensor) -> Trajectory:
    """A pusher and an object that stays; the latent is both positions in units of 100 px."""
    path = ROBOT.path(torch.tensor([[*START, 0.0, 0.0]]), actions, FRAMESKIP)
    places = path[:, :, :, -1, :2]
    tokens = torch.cat([places, torch.tensor(OBJECT).expand_as(places)], dim=-1)[:, :, :, None] / 100
    return Trajectory(actions, tokens, path[:, :, :, -1], path)


def plan(solver: Solver, rails: list[Guardrail]) -> Plan:
    goal = GoalDistance(torch.tensor([[[*GOAL, *OBJECT]]]) / 100)
    return solver.solve(problem(rollout, [goal], rails), generator=seeded())


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("make", [CEM, lambda **settings: ICEM(FRAMESKIP, **settings)], ids=["cem", "icem"])
def test_a_plan_keeps_the_rule_and_still_goes_where_it_may(name: str, make: Any, read_first_two: Read) -> None:
    rule = RULES[name](read_first_two)
    free = plan(make(iterations=15), [])
    assert not (rule(rollout(free.actions[:, None])) >= 0).all()  # the rule does stand in the way
    kept = plan(make(iterations=60, rtol=0.0, patience=60), [rule])
    assert kept.feasible.all() and kept.margins[rule.name].shape == (1, HORIZON)
    assert (rule(rollout(kept.actions[:, None])) >= -1e-2).all()
    gone = kept.tokens[0, -1, 0, :2] * 100 - torch.tensor(START)
    assert gone[0] > (200 if name in STOPS_SHORT else 270)
