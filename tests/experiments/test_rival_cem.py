from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from wm.errors import BadInputError
from wm.experiments.studies import race, rival_cem, rival_cem_lewm, rival_search
from wm.experiments.studies.launch import launch
from wm.experiments.studies.rival_flops import Layer, encoder, ours, theirs
from wm.experiments.studies.rival_import import revision
from wm.experiments.studies.rival_search import Scored, Search, elite_mean
from wm.experiments.studies.rival_weights import LEWM, Sizes

DINO = Sizes(image=28, width=12, encoder_depth=1, encoder_heads=2, depth=2, heads=2, head_width=8, hidden=24)
SMALL_LEWM = dataclasses.replace(
    LEWM, image=28, width=12, encoder_depth=1, encoder_heads=2, depth=2, heads=2, head_width=8, hidden=24
)
SEARCH = Search(samples=7, iterations=3, topk=2, problems=2)
STUDIES = [(rival_cem, DINO), (rival_cem_lewm, SMALL_LEWM)]


@pytest.mark.parametrize(("study", "sizes"), STUDIES)
def test_both_arms_agree_over_all_iterations_and_problems(study: Any, sizes: Sizes, tmp_path: Path) -> None:
    result = study.run(sizes, SEARCH, 2, tmp_path / "result.json", threads=1, chunk=3)
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    assert 0 <= result["largest_relative_cost_difference"] < 1e-5 and result["largest_plan_difference"] < 1e-5
    assert (
        result["rival"] == "reference loop"
        and result["rival_commits"] == []
        and result["machine"]["torch_threads"] == 1
    )
    assert result["ratio"] > 0 and len(result["ratio_of_each_run"]) == 2
    assert result["gflop_ratio"] > 1
    for arm in ("theirs", "ours"):
        assert result[arm]["min_s"] <= result[arm]["median_s"] <= result[arm]["max_s"]
        assert result[arm]["gflop_per_s"] == pytest.approx(result[arm]["gflop"] / result[arm]["median_s"])


@pytest.mark.parametrize(("study", "sizes"), STUDIES)
def test_the_rival_draws_the_same_candidates_in_every_run_and_learns(study: Any, sizes: Sizes) -> None:
    state = (study.lewm_state if study is rival_cem_lewm else study.dino_wm_state)(sizes, 0)
    scene = rival_search.Scene.random(sizes, SEARCH)
    arm = study.Theirs(state, sizes, study.PictureEncoder(sizes), SEARCH)
    one, other = arm.plan(scene), arm.plan(scene)
    assert torch.equal(one.candidates, other.candidates) and torch.equal(one.costs, other.costs)
    assert one.candidates.shape == (3, 2, 7, 5, 10) and one.costs.shape == (3, 2, 7)
    assert torch.equal(one.candidates[0, :, 0], torch.zeros(2, 5, 10))
    for iteration in range(2):  # the first candidate of an iteration is the mean of the last one's elites
        mean = elite_mean(one.candidates[iteration], one.costs[iteration], SEARCH.topk)
        torch.testing.assert_close(one.candidates[iteration + 1, :, 0], mean)
    torch.testing.assert_close(one.plan, elite_mean(one.candidates[2], one.costs[2], SEARCH.topk))
    assert (one.costs[2].mean(1) < one.costs[0].mean(1)).all()


def test_the_commit_is_the_folder_s_own(tmp_path: Path) -> None:
    folder = tmp_path / "rival"
    (folder / "inside").mkdir(parents=True)
    assert revision(folder) is None
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        assert revision(folder) is None  # no repository, or one without a commit
        subprocess.run([*git, *words], check=True)
    found = revision(folder)
    assert found is not None and re.fullmatch("[0-9a-f]{40}", found)
    assert revision(folder / "inside") is None


def test_costs_that_differ_are_no_race() -> None:
    scored = Scored(torch.zeros(1, 1, 2, 3, 4), torch.ones(1, 1, 2), torch.zeros(1, 3, 4))
    other = dataclasses.replace(scored, costs=torch.tensor([[[1.0, 1.001]]]))
    with pytest.raises(BadInputError, match=r"^costs: expected a relative difference of at most 1e-05, came 0\.001\.$"):
        rival_search.race(lambda: scored, lambda candidates: other, 1, {})
    broken = dataclasses.replace(scored, costs=torch.full((1, 1, 2), torch.nan))
    with pytest.raises(BadInputError, match="came nan"):
        rival_search.race(lambda: scored, lambda candidates: broken, 1, {})


def test_bad_options_are_one_line() -> None:
    with pytest.raises(BadInputError, match=r"^--topk: expected 2 to 5 \(--samples\), came 6\.$"):
        Search(samples=5, topk=6)
    with pytest.raises(BadInputError, match=r"^--runs: expected >= 1, came 0\.$"):
        race.alternate({}, 0)
    with pytest.raises(BadInputError, match="expected both folders or none"):
        rival_cem_lewm.main(rival=Path("x"), rival_model=None)


@pytest.mark.parametrize(("study", "sizes"), STUDIES)
def test_the_command_line_says_errors_in_one_line(
    study: Any, sizes: Sizes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "--samples", "5", "--topk", "6"])
    with pytest.raises(SystemExit) as stopped:
        launch(study.main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "wm: error: --topk: expected 2 to 5 (--samples), came 6.\n"


def test_arms_take_turns_and_medians_are_theirs_over_ours() -> None:
    order: list[str] = []
    race.alternate({"theirs": lambda: order.append("theirs"), "ours": lambda: order.append("ours")}, 2)
    assert order == ["theirs", "ours", "theirs", "ours"]
    made = race.summary({"theirs": [4.0, 6.0, 5.0], "ours": [1.0, 2.0, 9.0]}, {"theirs": 10.0, "ours": 8.0})
    assert made["ratio"] == 2.5 and made["ratio_of_each_run"] == [4.0, 3.0, pytest.approx(5 / 9)]
    assert made["ours"]["gflop_per_s"] == 4.0 and made["theirs"]["gflop_per_s"] == 2.0


def test_arithmetic_of_the_published_sizes() -> None:
    dino, lewm = Layer(Sizes(), 196, 404, False), Layer(LEWM, 1, 192, True)
    # Five steps of windows of 1, 2, 3, 3, 3 frames: 12 frames and 32 pairs against 50 / 6 and 102 / 6.
    linear, pair = 196 * 2 * (404 * 3072 + 1024 * 404 + 2 * 404 * 2048) * 6e-9, 4 * 1024 * 196**2 * 6e-9
    assert theirs(dino, 5) == pytest.approx(12 * linear + 32 * pair)
    keys = 196 * 4 * 404 * 1024 * 1e-9
    assert ours(dino, 5) == pytest.approx(50 / 6 * linear + 4 * keys + 17 * pair)
    assert 300 * theirs(lewm, 5) == pytest.approx(84, abs=2) and 300 * ours(lewm, 5) < 60
    assert ours(dino, 1) == theirs(dino, 1) and encoder(Sizes()) == pytest.approx(9.1, abs=0.1)


@pytest.mark.parametrize("package", ["einops", "gymnasium"])
def test_what_a_rival_lacks_is_said_in_one_line(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def race_it() -> None:
        folders: Any = tmp_path if package == "einops" else (tmp_path, tmp_path)
        study, sizes = STUDIES[package == "gymnasium"]
        study.run(sizes, SEARCH, 1, tmp_path / "result.json", threads=1, rival=folders)

    first = "models/vit.py" if package == "einops" else "stable_worldmodel/planning/solver/cem.py"
    with pytest.raises(
        BadInputError, match=rf"^--rival .*: expected the rival's repository, {first}, .* is missing\.$"
    ):
        race_it()
    models = [f"models/{name}.py" for name in ("vit", "visual_world_model", "proprio")]
    planners = [f"planning/{name}.py" for name in ("cem", "objectives")]
    solvers = [f"planning/solver/{name}.py" for name in ("cem", "solver", "utils", "callbacks/__init__")]
    solvers = [f"stable_worldmodel/{name}" for name in (*solvers, "protocols.py")]
    for name in [*models, *planners, *solvers, "jepa.py", "module.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import a_package_that_is_not_there")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(BadInputError, match=f"its code needs {package}: pip install {package}"):
        race_it()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(BadInputError, match="cannot be imported .*a_package_that_is_not_there"):
        race_it()


RIVALS = os.environ.get("WM_RIVALS", "")
"""Folder with the rivals' repositories: dino_wm, stable-worldmodel and le-wm. Without it their own code is not run."""


@pytest.mark.skipif(not RIVALS, reason="WM_RIVALS names no folder with the rivals' repositories")
@pytest.mark.parametrize(("study", "sizes"), STUDIES)
def test_the_reference_loop_does_what_the_rivals_code_does(study: Any, sizes: Sizes, tmp_path: Path) -> None:
    dino, solver, model = (Path(RIVALS) / name for name in ("dino_wm", "stable-worldmodel", "le-wm"))
    rival: Any = dino if study is rival_cem else (solver, model)
    result = study.run(sizes, SEARCH, 1, tmp_path / "result.json", threads=1, chunk=3, rival=rival)
    assert result["rival"] == "its own code" and result["largest_plan_difference"] < 1e-5
    state = (study.dino_wm_state if study is rival_cem else study.lewm_state)(sizes, 0)
    encoder_, scene = study.PictureEncoder(sizes), rival_search.Scene.random(sizes, SEARCH)
    code = study.DinoWMCode(dino, state, sizes, encoder_, SEARCH) if study is rival_cem else None
    code = code or study.LeWMCode(solver, model, state, sizes, encoder_, SEARCH)
    one, other = code.plan(scene), study.Theirs(state, sizes, encoder_, SEARCH).plan(scene)
    assert torch.equal(one.candidates[0], other.candidates[0])
    torch.testing.assert_close(one.costs, other.costs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(one.plan, other.plan, atol=1e-6, rtol=1e-6)
