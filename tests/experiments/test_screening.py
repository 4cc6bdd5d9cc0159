"""A cheap model proposes, another rescores."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.experiments.place import Place, refused, runner
from wm.errors import MismatchError
from wm.experiments.assemble import make_model, make_mpc, make_screening
from wm.experiments.controllers import Mind, make_controller, make_screen
from wm.experiments.episode import Controller
from wm.experiments.evaluate import planner_settings
from wm.experiments.play import Player, Setting
from wm.experiments.screening import SCREEN_SHARE, ScreenedController, Shortlist, rescoring
from wm.experiments.worlds import find_world
from wm.planners.adaptive_icem import AdaptiveICEM
from wm.planners.cem import CEM
from wm.planners.guardrails import Guardrail
from wm.planners.icem import ICEM
from wm.planners.mpc import MPC
from wm.types import Trajectory

pytestmark = pytest.mark.real_time


class FirstAction:
    """An energy that is a candidate's first number."""

    name = "goal"

    def __call__(self, trajectory: Trajectory) -> Tensor:
        return trajectory.actions[:, :, 0, 0]


def candidates(*values: float) -> Trajectory:
    actions = torch.tensor(values)[None, :, None, None].expand(1, -1, 2, 3).contiguous()
    return Trajectory(actions, torch.zeros(1, len(values), 2, 1, 1))


def listed(shortlist: Shortlist) -> list[float]:
    assert shortlist.actions is not None and shortlist.actions.shape[2:] == (2, 3)
    return shortlist.actions[0, :, 0, 0].tolist()


def test_a_shortlist_keeps_the_best_of_all_calls_each_once() -> None:
    shortlist = Shortlist(FirstAction(), most=3)
    assert shortlist.name == "goal" and shortlist.actions is None
    torch.testing.assert_close(shortlist(candidates(4.0, 2.0, 3.0, 2.0)), torch.tensor([[4.0, 2.0, 3.0, 2.0]]))
    assert listed(shortlist) == [2.0, 3.0, 4.0]
    shortlist(candidates(2.0, 1.0, float("nan"), 9.0))
    assert listed(shortlist) == [1.0, 2.0, 3.0]
    shortlist.forget()
    shortlist(candidates(float("nan"), 7.0))
    assert listed(shortlist)[0] == 7.0


class KeptOut(Guardrail):
    """A rule that candidates below a number break, by how much they are below it."""

    name, unit = "kept-out", "1"

    def __call__(self, trajectory: Trajectory) -> Tensor:
        return trajectory.actions[..., 0] - 2.5


def test_what_keeps_the_rules_comes_first() -> None:
    shortlist = Shortlist(FirstAction(), [KeptOut()], most=4)
    shortlist(candidates(1.0, 5.0, 2.0, 3.0, 0.0))
    assert listed(shortlist) == [3.0, 5.0, 2.0, 1.0]


def test_only_a_planner_that_can_be_told_thinks_fast() -> None:
    assert rescoring("icem", None, "pusht") == "fast" and rescoring("icem", None, None) is None
    assert rescoring("icem", "3", "pusht") == "3" and rescoring("cem", None, "pusht") is None
    player = Player(Setting("pusht", "pusht", "cem", 50, None, 1, screen="pusht"))
    assert isinstance(player.mpc.solver, CEM) and player.screen is not None


def screened(deadline_ms: float | None = None, budget: int = 50) -> tuple[ScreenedController, dict[str, np.ndarray]]:
    """The shipped push-T model, screened by itself, after one observation."""
    world, model = find_world("pusht"), make_model("pusht", "pusht")
    task = world.sample_tasks(1000, 1)[0]
    env = world.make_env()
    observation, _ = env.reset(seed=task.seed, options={"state": task.start_state, "goal_state": task.goal_state})
    mpc = MPC(ICEM(5, population=4, elites=2, iterations=1), 5, 1, 5)
    mind = Mind(model, mpc, make_screen("pusht", world, model))
    controller = make_controller(world, mind, task, env, [], budget, deadline_ms)
    assert isinstance(controller, ScreenedController)
    controller.observe(observation)
    return controller, observation


def test_the_answer_is_no_worse_than_what_was_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, _ = screened()
    plans: list[Any] = []
    real = Controller.search
    monkeypatch.setattr(controller.screen, "search", lambda *a: plans.append(real(controller.screen, *a)) or plans[-1])
    plan, now = controller.plan()
    proposed = plans[0][0]
    assert plan.energy <= proposed.energy + 1e-6  # the same model: its energies are the screen's
    assert 0 < plan.candidates - proposed.candidates < 45 < proposed.candidates and now.shape == (5, 2)
    again, _ = screened()
    assert torch.equal(again.plan()[0].actions, plan.actions)


def test_both_plan_over_the_same_horizon_and_share_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, observation = screened(deadline_ms=400.0, budget=10)
    searching, took = controller.screen.search, []

    def slow(*arguments: Any) -> Any:
        begun = time.perf_counter()
        found = searching(*arguments)
        time.sleep(0.05)
        took.append(1e3 * (time.perf_counter() - begun))
        return found

    monkeypatch.setattr(controller.screen, "search", slow)
    asked: list[tuple[float | None, int]] = []
    real = MPC.plan

    def noted(self: MPC, problem: Any, **options: Any) -> Any:
        asked.append((options["deadline_ms"], problem.horizon))
        return real(self, problem, **options)

    monkeypatch.setattr(MPC, "plan", noted)
    controller.plan()
    for _ in range(5):
        controller.observe(observation)
    controller.plan()
    assert [horizon for _, horizon in asked] == [2, 2, 1, 1]
    screen, rescoring = asked[0][0], asked[1][0]
    assert screen is not None and rescoring is not None
    assert screen <= SCREEN_SHARE * 400.0 and took[0] >= 50.0 and rescoring <= max(0.0, 400.0 - took[0])


def test_a_screen_that_does_not_fit_is_refused() -> None:
    world, model = find_world("pusht"), make_model("pusht", "pusht")
    model.spec = replace(model.spec, frameskip=4)
    with pytest.raises(MismatchError, match="frameskip of the screening model"):
        make_screen("pusht", world, model)


def test_plan_and_eval_take_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"goal": place.goal, "screen": "pusht", "out": place.out, "budget-steps": 5}
    plan = runner(monkeypatch, capsys, "plan", options)
    refused(plan(screen="nosuch"), "nosuch")
    code, _, err = plan()
    assert code == 0, err
    record = json.loads((place.out / "plan.json").read_text())
    assert record["planner"]["screen"]["name"] == "pusht" and len(record["planner"]["screen"]["fingerprint"]) == 16
    assert record["searches"][0]["iterations"] == 1
    folder: Path = place.folder / "eval"
    options = {"screen": "pusht", "out": folder, "episodes": 1, "budget-steps": 5, "seed": 1000}
    assert runner(monkeypatch, capsys, "eval", options)("--no-baselines")[0] == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["screen"]["name"] == "pusht" and len(config["screen"]["fingerprint"]) == 16
    assert config["planner"]["solver"]["iterations"] == 1 < config["screen"]["planner"]["solver"]["iterations"]


def test_the_search_that_screens_has_no_look_that_could_be_enough() -> None:
    """For its list is what is wanted, not its plan."""
    world = find_world("pusht")
    screen = make_screen("pusht", world, make_model("pusht", "pusht"))
    assert isinstance(screen.mpc.solver, AdaptiveICEM) and screen.mpc.solver.look is None
    assert "near" not in planner_settings(screen.mpc)
    other = replace(world.planning, think=None)
    assert planner_settings(make_screening(5, other)) == planner_settings(make_mpc("icem", 5, other))
