"""`--think`: how much the default planner thinks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.experiments.place import Place, Run, refused, runner
from wm.errors import BadInputError
from wm.experiments.assemble import PROPOSED, Thinking, make_mpc
from wm.experiments.episode import NEAR, Controller
from wm.experiments.evaluate import planner_settings
from wm.experiments.play import Player, Setting
from wm.planners import ICEM
from wm.planners.adaptive_icem import AdaptiveICEM
from wm.types import Trajectory


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`wm plan`: two replans."""
    options = {"env": "pusht", "goal": place.goal, "model": place.model, "out": place.out, "budget-steps": 7}
    return runner(monkeypatch, capsys, "plan", options)


def searches(result: tuple[int, str, str]) -> list[dict[str, Any]]:
    code, out, err = result
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)["searches"]
    return found


@pytest.mark.parametrize(("think", "iterations"), [("fast", 1), ("1", 1), ("3", 3), ("12", 12)])
def test_plan_does_exactly_so_many_iterations(run: Run, think: str, iterations: int) -> None:
    """Also where the energy stops to fall: what is left of the second plan is two latent steps, soon found."""
    found = searches(run("--json", think=think))
    assert [(search["iterations"], len(search["trace"])) for search in found] == [(iterations, iterations)] * 2
    assert all(search["candidates"] >= iterations for search in found)


def test_fast_looks_at_few_candidates(run: Run) -> None:
    fast, one, three = (searches(run("--json", think=think))[0]["candidates"] for think in ("fast", "1", "3"))
    assert (fast, one) == (2 + 16 + 1, 2 + 128 + 1)  # the tiny model proposes nothing; staying, guess, mean
    assert three > 2 * one


def test_the_option_is_on_record(place: Place, run: Run) -> None:
    assert json.loads(run("--json", think="fast")[1])["planner"]["think"] == "fast"
    assert json.loads(run("--json")[1])["planner"]["think"] is None
    assert "candidates (median)" in run(think="2")[1]


def test_without_the_option_the_planner_is_as_it_is() -> None:
    plain, told = make_mpc("icem", 5), make_mpc("icem", 5, think="6")
    assert type(plain.solver) is type(told.solver) is ICEM and plain.most_proposals is None
    assert plain.solver.rtol == 1e-3 and plain.solver.patience == 3  # may end early, which N iterations do not
    assert planner_settings(plain)["proposals"].keys() == {"ends", "copies", "noise"}
    theirs = vars(told.solver) | {"rtol": 1e-3, "patience": 3}
    assert vars(plain.solver) == theirs


def test_auto_is_adaptive_and_begins_with_the_proposals() -> None:
    mpc = make_mpc("icem", 5, think="auto")
    assert isinstance(mpc.solver, AdaptiveICEM) and mpc.most_proposals == PROPOSED
    assert planner_settings(mpc)["proposals"]["most"] == PROPOSED
    assert mpc.solver.look == 16 < mpc.solver.population < mpc.solver.most
    assert planner_settings(mpc)["near"] == NEAR
    assert "near" not in planner_settings(make_mpc("icem", 5))


def test_at_its_goal_auto_takes_one_look_and_far_from_it_it_searches() -> None:
    player = Player(Setting("pusht", "pusht", "icem", 50, None, 1))
    far = player.world.sample_tasks(1000, 1, kind=None, offset=25, image_size=player.model.spec.encoder.image_size)[0]
    observation, _ = player.env.reset(options={"state": far.start_state, "goal_state": far.goal_state})
    here = replace(far, goal_image=observation["image"], goal_state=far.start_state)
    spacing = player.model.spacing(player.model.goal_scale(player.world.planning.robot_weight))
    iterations = []
    for task in (here, far):
        actor = player._controller(task)
        assert actor.enough == NEAR * spacing
        actor.observe(observation)
        iterations.append(actor.plan()[0].iterations)
    assert iterations[0] == 1 < iterations[1]


def test_with_other_energies_beside_the_goals_distance_nothing_is_enough() -> None:
    player = Player(Setting("pusht", "pusht", "icem", 50, None, 1))
    task = player.world.sample_tasks(1000, 1, kind=None, offset=25, image_size=player.model.spec.encoder.image_size)[0]
    goal = player.model.encode(torch.from_numpy(task.goal_image)[None, None])
    assert Controller(player.model, player.mpc, goal).enough > 0
    assert Controller(player.model, player.mpc, goal, energies=[_Effort()]).enough == -math.inf


class _Effort:
    name = "effort"

    def __call__(self, trajectory: Trajectory) -> Tensor:
        return -trajectory.actions.square().mean((-2, -1))


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1001", "9" * 5000, "slow", "Fast", "٣", "1e2", "nan"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="think: expected 'auto', 'fast' or a number of iterations from 1 to 1000"):
        Thinking.parse(text)


def test_refused_at_the_command_line(place: Place, run: Run) -> None:
    refused(run(think="hard"), "think: expected 'auto', 'fast' or a number of iterations from 1 to 1000, came 'hard'")
    refused(run(think="fast", planner="mppi"), "think: expected the planner to be icem, came 'mppi'")
    assert not place.out.exists()
