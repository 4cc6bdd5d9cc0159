from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.planner_suite import (
    FRAMESKIP,
    HORIZON,
    WIDTH,
    A,
    PlannerContract,
    Term,
    problem,
    quadratic,
    rollout_actions,
    seeded,
)
from wm.errors import BadInputError
from wm.planners import MPPI
from wm.planners.candidates import Scored
from wm.planners.mppi import Nominal, weights
from wm.planners.noise import Noise

SLOW = {"rtol": 0.0, "patience": 99}


class TestMPPI(PlannerContract):
    def make(self, **settings: Any) -> MPPI:
        return MPPI(FRAMESKIP, **settings)


class TestLogMPPI(PlannerContract):
    def make(self, **settings: Any) -> MPPI:
        return MPPI(FRAMESKIP, log_noise=0.5, **{"decay": 0.9, **settings})


def scored(energy: list[float], violation: list[float] | None = None) -> Scored:
    values = torch.tensor([energy])
    actions = torch.arange(float(len(energy))).view(1, -1, 1, 1)
    broken = torch.zeros_like(values) if violation is None else torch.tensor([violation])
    return Scored(actions, actions[:, :, :, None], values, {}, {"rule": -broken[:, :, None]}, broken)


def test_weights_are_a_direct_softmax() -> None:
    energy = [3.0, 1.0, 2.0, 7.0, 5.0]  # the median is 2 above the best
    total = sum(math.exp(-(e - 1.0) / (0.25 * 2.0)) for e in energy)
    wanted = torch.tensor([[math.exp(-(e - 1.0) / (0.25 * 2.0)) / total for e in energy]])
    torch.testing.assert_close(weights(scored(energy), 0.25), wanted)
    scaled = [1e6 * e - 4e6 for e in energy]
    torch.testing.assert_close(weights(scored(scaled), 0.25), wanted)  # whatever the energy's unit and zero are


def test_feasible_candidates_take_all_the_weight() -> None:
    found = weights(scored([0.0, 4.0, 5.0, -9.0, 6.0], [1.0, 0.0, 0.0, torch.inf, 0.0]), 0.5)
    assert found[0, [0, 3]].tolist() == [0.0, 0.0]
    torch.testing.assert_close(found[:, [1, 2, 4]], weights(scored([4.0, 5.0, 6.0]), 0.5))


def test_the_violation_counts_where_nothing_is_feasible() -> None:
    found = weights(scored([0.0, 1.0, 2.0, torch.inf], [3.0, 2.0, 1.0, torch.inf]), 0.5)
    torch.testing.assert_close(found[:, :3], weights(scored([3.0, 2.0, 1.0]), 0.5))
    assert found[0, 3] == 0


def test_what_is_not_finite_weighs_nothing() -> None:
    assert weights(scored([1.0, torch.inf, torch.inf]), 0.5).tolist() == [[1.0, 0.0, 0.0]]
    assert weights(scored([torch.inf, torch.inf]), 0.5).tolist() == [[0.0, 0.0]]
    assert weights(scored([torch.inf, 1.0], [0.0, 1.0]), 0.5).tolist() == [[0.0, 0.0]]  # the feasible one is unknown


@pytest.mark.parametrize("temperature", [0.0, 1e-9])
def test_as_the_temperature_falls_the_mean_becomes_the_best(temperature: float) -> None:
    assert weights(scored([3.0, 1.0, 2.0, 1.5]), temperature).tolist() == [[0.0, 1.0, 0.0, 0.0]]
    seen: list[Tensor] = []

    def rollout(actions: Tensor) -> Any:
        seen.append(actions)
        return rollout_actions(actions)

    task = problem(rollout, [Term(lambda t: (t.actions - 0.2).square().mean((-2, -1)))])
    solver = MPPI(FRAMESKIP, iterations=1, temperature=temperature, returns="mean")
    plan = solver.solve(task, warm_start=torch.full((1, HORIZON, A), -0.9), generator=seeded())
    best = (seen[0] - 0.2).square().mean((-2, -1)).argmin()
    torch.testing.assert_close(plan.actions[0], seen[0][0, best])


def test_the_mean_is_the_weighted_mean_of_the_candidates() -> None:
    solver, task = MPPI(FRAMESKIP, temperature=0.3), quadratic()
    actions = task.clip(0.5 * torch.randn(1, 9, HORIZON, A, generator=seeded()))
    energy = (actions - 0.2).square().mean((-2, -1))
    found = Scored(actions, actions[:, :, :, None], energy, {}, {}, torch.zeros_like(energy))
    state = solver.update(task, Nominal(torch.zeros(1, HORIZON, A)), found, found.order())
    wanted = sum(w * a for w, a in zip(weights(found, 0.3)[0], actions[0], strict=True))
    torch.testing.assert_close(state.mean[0], wanted)
    unknown = dataclasses.replace(found, energy=torch.full_like(energy, torch.inf))
    assert torch.equal(solver.update(task, state, unknown, unknown.order()).mean, state.mean)


def drawn(solver: MPPI, iteration: int = 0, last: bool = False) -> Tensor:
    task = quadratic()
    state = solver.start(task, torch.zeros(1, HORIZON, A))
    return solver.propose(task, state, Noise(seeded(), 1, task.low), iteration, last)[0]


def test_noise_is_white_or_coloured_and_decays() -> None:
    white = drawn(MPPI(FRAMESKIP, population=4000, std=0.4)).reshape(4000, HORIZON * FRAMESKIP, WIDTH)
    assert white.std().item() == pytest.approx(0.4, rel=0.02)
    assert white.diff(dim=1).square().mean().item() == pytest.approx(2 * 0.16, rel=0.03)
    red = drawn(MPPI(FRAMESKIP, population=4000, std=0.4, beta=2.0)).reshape(4000, HORIZON * FRAMESKIP, WIDTH)
    assert red.std().item() == pytest.approx(0.4, rel=0.03)
    assert red.diff(dim=1).square().mean() < 0.5 * 0.16
    later = drawn(MPPI(FRAMESKIP, population=4000, std=0.4, decay=0.5), iteration=3)
    assert later.std().item() == pytest.approx(0.4 / 8, rel=0.02)


def test_log_noise_has_the_same_width_and_heavier_tails() -> None:
    """Kurtosis of n exp(s m - s^2), n and m normal: 3 exp(4 s^2)."""
    plain, log = (drawn(MPPI(FRAMESKIP, population=8000, std=1.0, log_noise=s)) for s in (0.0, 0.5))
    assert log.std().item() == pytest.approx(1.0, rel=0.02)
    kurtosis = [(x.pow(4).mean() / x.square().mean().square()).item() for x in (plain, log)]
    assert kurtosis[0] == pytest.approx(3.0, rel=0.03)
    assert kurtosis[1] == pytest.approx(3.0 * math.e, rel=0.15)


def test_the_mean_joins_the_last_iteration_only() -> None:
    solver = MPPI(FRAMESKIP, population=5)
    assert [len(drawn(solver, 1, last)) for last in (False, True)] == [5, 6]
    assert torch.equal(drawn(solver, 1, True)[0], torch.zeros(HORIZON, A))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frameskip": 0}, "planner setting 'frameskip' must be >= 1, came 0"),
        ({"population": 0}, "planner setting 'population' must be >= 1, came 0"),
        ({"temperature": -1.0}, "planner setting 'temperature' must be >= 0, came -1.0"),
        ({"std": 0.0}, "planner setting 'std' must be > 0, came 0.0"),
        ({"decay": 1.1}, r"planner setting 'decay' must be in \(0, 1\], came 1.1"),
        ({"beta": -1.0}, "planner setting 'beta' must be >= 0, came -1.0"),
        ({"log_noise": -0.5}, "planner setting 'log_noise' must be >= 0, came -0.5"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        MPPI(**{"frameskip": FRAMESKIP, **settings})
