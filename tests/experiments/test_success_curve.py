from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from tests.experiments.place import Place
from wm.errors import MismatchError, UnknownNameError
from wm.experiments.assemble import PLANNERS, PLANNING
from wm.experiments.evaluate import planner_settings
from wm.experiments.studies import success_curve
from wm.experiments.studies.launch import MISSED
from wm.experiments.studies.success_numbers import answers, numbers, rank_correlation
from wm.experiments.studies.success_settings import ORACLE, REFERENCE, SETTINGS, chosen
from wm.planners import CEM, MPC


def episodes(reached: list[bool], ms: float, candidates: list[int] | None = None) -> list[dict[str, Any]]:
    """Two replans each; effort, energy and steps as given, or constant."""
    spent = candidates or [10] * len(reached)
    return [
        {
            "index": index,
            "reached": done,
            "steps": 10 + count,
            "plan_ms": [ms, ms],
            "observe_ms": [1.0] * 4,
            "iterations": [2, 2],
            "candidates": [count, count + 1],
            "plan_energy": [0.1, 0.1],
            "goal_energy": [float(count), float(count) + 0.5],
            "goal_distance": [-float(count), -float(count) - 0.5],
            "steps_left": [10 + count, 5 + count],
        }
        for index, (done, count) in enumerate(zip(reached, spent, strict=True))
    ]


def found(**rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    named = {name.replace("_", "-"): some for name, some in rows.items()}
    table = {name: numbers(some, named.get(REFERENCE, [])) for name, some in named.items()}
    return table, answers(table, named)


def test_numbers_of_a_setting() -> None:
    row = numbers(episodes([True, True, True, False], 5.0), episodes([True, True, False, True, True], 200.0))
    assert row["success"] == 0.75 and row["plan_ms_p50"] == row["plan_ms_p95"] == 5.0
    assert row["observing_share"] == 4.0 / (4.0 + 10.0) and row["points_per_ms"] == 15.0
    assert row["beside_reference"]["episodes"] == 4 and row["beside_reference"]["times_faster"] == 40.0
    assert row["beside_reference"]["difference"] == 0.0
    uneven = episodes([True] * 4, 5.0)
    uneven[0] = uneven[0] | {"plan_ms": [5.0, 85.0]}
    beside = numbers(uneven, episodes([True] * 4, 200.0))["beside_reference"]
    assert beside["times_faster"] == 40.0
    assert beside["times_faster_mean"] == pytest.approx(200.0 / np.mean([5.0] * 7 + [85.0]))
    assert "beside_reference" not in numbers(episodes([True], 5.0), [])


def test_as_good_and_faster_is_within_two_points_at_a_twentieth_of_the_time() -> None:
    full = [True] * 100
    table, answer = found(
        cem_300x30=episodes(full, 200.0),
        think_fast=episodes([False] * 2 + full[2:], 10.0),
        icem=episodes([False] * 3 + full[3:], 5.0),
        think_2=episodes(full, 10.1),
        think_1=episodes(full, 4.0),
    )
    assert table["icem"]["beside_reference"]["difference"] == pytest.approx(-0.03)
    assert answer["as_good_and_faster"] == ["think-1", "think-fast"]


def test_gradient_searches_are_within_three_points_at_half_the_time() -> None:
    full = [True] * 100
    rows = {
        REFERENCE: episodes(full, 200.0),
        "cem-300x10": episodes(full, 60.0),
        "gradient-8x15": episodes([False] * 3 + full[3:], 40.0),
        "lbfgs-2x6": episodes([False] * 4 + full[4:], 10.0),
    }
    table = {name: numbers(some, rows[REFERENCE]) for name, some in rows.items()}
    answer = answers(table, rows)["gradient"]
    assert answer[REFERENCE]["gradient-8x15"]["passed"] and not answer[REFERENCE]["lbfgs-2x6"]["passed"]
    assert not answer["cem-300x10"]["gradient-8x15"]["passed"]  # two thirds of the time


def test_effort_that_follows_difficulty_is_seen() -> None:
    spent = [10, 40, 20, 30]
    _, answer = found(think_auto=episodes([True] * 4, 5.0, spent), oracle=episodes([True] * 4, 900.0, spent))
    assert answer["effort_follows"]["think-auto"]["energy"] == pytest.approx(1.0)
    assert answer["effort_follows"]["think-auto"]["distance"] == pytest.approx(-1.0)
    assert answer["effort_follows"]["think-auto"]["plan_energy"] is None  # constant
    assert answer["effort_follows_oracle_steps"] == {"episodes": 4, "correlation": pytest.approx(1.0)}
    _, same = found(icem=episodes([True] * 4, 5.0, [100, 101, 103, 104]))
    assert same["effort_follows"] == {}  # it spends the same on all
    assert rank_correlation(np.arange(3), np.array([1, 5, 100])) == pytest.approx(1.0)
    assert rank_correlation(np.arange(2), np.arange(2)) is None


def test_auto_beats_only_what_takes_no_longer_and_reaches_less() -> None:
    some, all_of_them = [True, False] * 10, [True] * 20
    _, answer = found(
        think_auto=episodes(all_of_them, 5.0), think_1=episodes(some, 4.0), icem=episodes(all_of_them, 9.0)
    )
    assert answer["auto_beside_fixed"]["beats_all_of_its_time"]
    assert answer["auto_beside_fixed"]["fixed_of_its_success_take"] == {"icem": pytest.approx(1.8)}
    beside = answer["auto_beside_fixed"]["beside"]
    assert beside["think-1"] | {"ci95": ()} == {"episodes": 20, "difference": 0.5, "ci95": (), "time": 1.25}
    assert 0.2 < beside["think-1"]["ci95"][0] < 0.5 < beside["think-1"]["ci95"][1] < 0.8
    assert beside["icem"]["difference"] == 0.0
    _, answer = found(think_auto=episodes(some, 5.0), think_1=episodes(all_of_them, 4.0))
    assert not answer["auto_beside_fixed"]["beats_all_of_its_time"]
    assert answer["auto_beside_fixed"]["dominated_by"] == ["think-1"]
    assert answer["as_good_and_faster"] is None  # there is no reference


def test_every_setting_can_be_built_and_every_solver_is_there() -> None:
    made = {name: make(5) for name, make in SETTINGS.items()}
    assert all(isinstance(mpc, MPC) for mpc in made.values())
    reference = made[REFERENCE].solver
    assert isinstance(reference, CEM) and (reference.population, reference.iterations) == (300, 30)
    assert (reference.rtol, reference.patience) == (0.0, 30)  # never ends early
    kinds = {type(mpc.solver) for mpc in made.values()}
    assert {type(make(5, PLANNING)) for make in PLANNERS.values()} <= kinds


def test_settings_are_chosen_by_name() -> None:
    assert chosen("think-auto, icem,think-auto") == ["think-auto", "icem"]
    assert ORACLE not in chosen(None) and REFERENCE in chosen(None)
    with pytest.raises(UnknownNameError, match="unknown setting 'think-autos'. Did you mean 'think-auto'"):
        chosen("icem,think-autos")


@pytest.mark.parametrize(
    ("played", "good", "code"),
    [
        (["think-auto", REFERENCE], ["icem", "think-auto"], 0),
        (["think-auto", REFERENCE], ["icem"], MISSED),
        (["icem", REFERENCE], [], None),
        (["think-auto"], None, None),
    ],
)
def test_its_bar_is_autos(
    played: list[str], good: list[str] | None, code: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = {name: numbers(episodes([True], 5.0), []) for name in played}
    result = {"settings": table, "answers": {"as_good_and_faster": good}}
    monkeypatch.setattr(success_curve, "run", lambda *_: result)
    ended = None
    try:
        success_curve.main(None, 1, 1000, tmp_path, "pusht", 1)
    except typer.Exit as end:
        ended = end.exit_code
    assert ended == code


def test_settings_of_the_solvers_in_a_solver_are_kept() -> None:
    solver = planner_settings(SETTINGS["gradient+cem-64x2-2x4"](5))["solver"]
    assert (solver["sampler"]["population"], solver["descent"]["starts"]) == (64, 2)


def test_goes_on_where_it_was_setting_by_setting(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(success_curve, "BUDGET", 10)
    out = tmp_path / "study"
    success_curve.run(["think-fast"], 1, 1000, out, str(place.model), workers=1)
    kept = (out / "think-fast" / "episodes.jsonl").read_text()
    result = success_curve.run(["think-fast", "think-auto"], 2, 1000, out, str(place.model), workers=1)
    assert (out / "think-fast" / "episodes.jsonl").read_text().startswith(kept)
    assert list(result["settings"]) == ["think-fast", "think-auto"]
    assert json.loads((out / "success_curve.json").read_text()) == json.loads(json.dumps(result))
    fast = [json.loads(line) for line in (out / "think-fast" / "episodes.jsonl").read_text().splitlines()]
    assert {count for row in fast for count in row["iterations"]} == {1}  # it is this setting that was played
    for line in (out / "think-auto" / "episodes.jsonl").read_text().splitlines():
        row = json.loads(line)
        lists = ("plan_ms", "iterations", "candidates", "plan_energy", "goal_energy", "goal_distance", "steps_left")
        assert {len(row[key]) for key in lists} == {-(-row["steps"] // 5)}
        assert row["steps_left"][0] == row["steps"] and row["goal_distance"][0] > 0
        assert all(energy >= 0 for energy in row["goal_energy"])
    with Image.open(out / "success_curve.png") as shown:
        assert shown.width > 500
    assert success_curve.printed(result).row_count == 2
    with pytest.raises(MismatchError, match="run folder of another run: seed"):
        success_curve.run(["think-1"], 1, 1001, out, str(place.model), workers=1)
    assert not (out / "think-1").exists()
    monkeypatch.setitem(SETTINGS, "think-fast", SETTINGS["think-1"])
    with pytest.raises(MismatchError, match="run folder of another run: planner .*think-fast"):
        success_curve.run(["think-auto"], 2, 1000, out, str(place.model), workers=1)
