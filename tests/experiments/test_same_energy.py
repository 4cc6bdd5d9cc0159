"""The study of planning time at the same energy."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.experiments.place import Place
from wm.errors import BadInputError, MismatchError
from wm.experiments.studies import same_energy
from wm.experiments.studies.launch import launch
from wm.experiments.studies.same_energy_numbers import met, milliseconds_to, numbers
from wm.experiments.studies.same_energy_picture import course
from wm.experiments.studies.success_settings import REFERENCE, SETTINGS
from wm.planners.cem import CEM


def plan(index: int, ms: float, trace: list[float], energy: float | None = None) -> dict[str, Any]:
    """Iterations of the same length."""
    return {
        "index": index,
        "plan_ms": ms,
        "energy": trace[-1] if energy is None else energy,
        "trace": trace,
        "ended_ms": [ms * (i + 1) / len(trace) for i in range(len(trace))],
        "candidates": 10,
    }


SLOW = [plan(0, 400.0, [4.0, 2.0]), plan(1, 800.0, [4.0, 1.0]), plan(2, 600.0, [3.0, 3.0])]


def test_numbers_beside_the_reference() -> None:
    row = numbers([plan(0, 20.0, [3.0, 2.0]), plan(1, 20.0, [0.5, 0.25]), plan(3, 1.0, [9.0])], SLOW)
    assert row["problems"] == 2  # the reference has not planned problem 3
    assert row["times_faster"] == {"total": 30.0, "p50": 30.0, "geometric_mean": pytest.approx(math.sqrt(20 * 40))}
    energy = row["energy"]
    assert (energy["mean"], energy["reference_mean"], energy["difference"]) == (1.125, 1.5, -0.375)
    assert energy["ratio"]["p50"] == 0.625 and energy["log_ratio"] == pytest.approx(math.log(0.25) / 2)
    assert energy["difference_ci95"] == [-0.75, 0.0] and energy["log_ratio_ci95"] == pytest.approx([math.log(0.25), 0])
    assert (row["no_higher"]["problems"], row["no_higher"]["share"]) == (2, 1.0)
    assert row["no_higher"]["ci95"][0] == pytest.approx(0.342, abs=1e-3)  # Wilson's of 2 in 2
    assert row["reached"]["times_faster_p50"] == 50.0  # at 20 ms of 400, at 10 ms of 800
    assert row["reached"]["times_faster_geometric_mean"] == pytest.approx(math.sqrt(20 * 80))


def test_an_interval_covers_the_mean_and_needs_two_problems() -> None:
    rng = np.random.default_rng(3)
    one, other = (rng.lognormal(size=40) for _ in range(2))
    row = numbers([plan(i, 1.0, [e]) for i, e in enumerate(one)], [plan(i, 1.0, [e]) for i, e in enumerate(other)])
    low, high = row["energy"]["difference_ci95"]
    half = 1.96 * np.std(one - other) / math.sqrt(40)
    assert low < row["energy"]["difference"] < high and (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert numbers(SLOW[:1], SLOW)["energy"]["difference_ci95"] is None


def test_energies_that_are_never_reached_count_as_such() -> None:
    row = numbers([plan(0, 20.0, [2.0]), plan(1, 20.0, [1.5]), plan(2, 20.0, [3.5])], SLOW)
    assert row["reached"]["problems"] == row["no_higher"]["problems"] == 1
    assert row["reached"]["times_faster_p50"] is None and row["reached"][
        "times_faster_geometric_mean"
    ] == pytest.approx(20.0)
    never = numbers([plan(1, 20.0, [1.5])], SLOW)["reached"]
    assert (never["problems"], never["times_faster_p50"], never["times_faster_geometric_mean"]) == (0, None, None)


def test_an_energy_is_reached_at_the_first_iteration_that_has_it_or_with_the_plan() -> None:
    row = plan(0, 30.0, [3.0, 2.0, 2.0])
    assert [milliseconds_to(energy, row) for energy in (3.5, 3.0, 2.5, 2.0, 1.9)] == [10.0, 10.0, 20.0, 20.0, None]
    assert milliseconds_to(1.9, plan(0, 30.0, [3.0, 2.0], energy=1.5)) == 30.0  # the solver's own answer
    worse = numbers([plan(0, 20.0, [2.0], energy=2.5)], SLOW)  # it had the energy, and returned something else
    assert worse["reached"]["problems"] == 1 and worse["no_higher"]["problems"] == 0


def test_the_bar_asks_for_time_and_energy_in_the_mean() -> None:
    def beside(ms: float, *energies: float) -> dict[str, Any]:
        return numbers([plan(i, ms, [energy]) for i, energy in enumerate(energies)], SLOW)

    table = {
        "equal": beside(30.0, 2.0, 1.0, 3.0),
        "fastest": beside(10.0, 2.5, 1.5, 1.9),  # less in the mean
        "slow": beside(30.1, 1.0, 0.5, 1.0),
        "poor": beside(10.0, 1.9, 0.9, 3.3),
    }
    assert met(table) == ["fastest", "equal"]


def test_the_course_is_the_median_of_the_best_so_far() -> None:
    found = course(SLOW, SLOW, [100.0, 350.0, 450.0, 900.0])
    assert np.isnan(found[0]) and found[1:].tolist() == [2.0, 1.0, 1.0]
    alone = course([plan(0, 20.0, [4.0, 2.0])], SLOW, [9.9, 10.0, 19.0, 20.0])
    assert np.isnan(alone[0]) and alone[1:].tolist() == [2.0, 2.0, 1.0]


def small(out: Path, place: Place, names: list[str], problems: int, seed: int = 1030) -> dict[str, Any]:
    return same_energy.run(names, problems, seed, out, str(place.model), threads=1, population=12, iterations=3)


def test_goes_on_where_it_was(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "same_energy.json"
    small(out, place, ["think-fast"], 1)
    first = {path: path.read_text() for path in (tmp_path / "same_energy").glob("*/plans.jsonl")}
    assert {path.parent.name for path in first} == {"cem-12x3", "think-fast"}
    result = small(out, place, ["gradient-2x5", "mppi-64x2"], 2)
    assert all(path.read_text().startswith(text) for path, text in first.items())
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    assert {name: row["problems"] for name, row in result["settings"].items()} == {
        "think-fast": 1,
        "gradient-2x5": 2,
        "mppi-64x2": 2,
    }
    assert result["reference"] == "cem-12x3" and result["machine"]["torch_threads"] == 1
    assert result["reference_plan_ms_p50"] > 0
    assert same_energy.printed(result).row_count == 3
    with Image.open(tmp_path / "same_energy.png") as shown:
        assert shown.width > 500
    with pytest.raises(MismatchError, match="run folder of another run: seed"):
        small(out, place, ["think-1"], 1, seed=1031)
    assert not (tmp_path / "same_energy" / "think-1").exists()


def test_plans_of_a_search_that_was_another_one_are_refused(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "same_energy.json"
    small(out, place, ["think-fast"], 1)
    monkeypatch.setitem(SETTINGS, "think-fast", SETTINGS["gradient-2x5"])
    with pytest.raises(MismatchError, match="run folder of another run: planner .*think-fast"):
        small(out, place, ["mppi-64x2"], 1)
    assert not (tmp_path / "same_energy" / "mppi-64x2" / "plans.jsonl").exists()


def test_iterations_are_stamped_in_order_and_plans_repeat(place: Place, tmp_path: Path) -> None:
    rows = []
    for name in ("one", "two"):
        small(tmp_path / f"{name}.json", place, ["gradient+cem-64x2-2x4", "mppi-64x2"], 2)
        found = sorted((tmp_path / name).glob("*/plans.jsonl"))
        assert [path.parent.name for path in found] == ["cem-12x3", "gradient+cem-64x2-2x4", "mppi-64x2"]
        rows.append([json.loads(line) for path in found for line in path.read_text().splitlines()])
    for one, two in zip(*rows, strict=True):
        assert one["trace"] == two["trace"] and one["energy"] == two["energy"]
        assert len(one["ended_ms"]) == len(one["trace"])
        assert one["ended_ms"][0] > 0 and one["ended_ms"] == sorted(one["ended_ms"])
        assert one["ended_ms"][-1] <= one["plan_ms"] and one["trace"] == sorted(one["trace"], reverse=True)
    assert [len(row["trace"]) for row in rows[0][:2]] == [3, 3]


def test_the_reference_is_that_of_the_success_curve() -> None:
    assert REFERENCE == "cem-300x30" and set(same_energy.DEFAULT) < set(SETTINGS)
    own, theirs = same_energy.plain_cem(300, 30)(5), SETTINGS[REFERENCE](5)
    assert isinstance(own.solver, CEM) and vars(own.solver) == vars(theirs.solver)
    assert own.most_proposals is theirs.most_proposals is None


def test_bad_input_is_refused_before_anything_is_planned(place: Place, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"--out: expected a name that ends in \.json, came .*result\.$"):
        small(tmp_path / "result", place, ["think-fast"], 1)
    with pytest.raises(BadInputError, match="expected searches in the model, came 'oracle'"):
        small(tmp_path / "result.json", place, ["oracle"], 1)
    assert list(tmp_path.glob("result*")) == []


@pytest.mark.parametrize(("factor", "code"), [(0.0, 0), (1e9, 3)])
def test_the_exit_code_says_whether_a_search_meets_the_bar(
    factor: float,
    code: int,
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("wm.experiments.studies.same_energy_numbers.FASTER", factor)
    words = ["--model", place.model, "--problems", 1, "--settings", "icem", "--population", 4, "--iterations", 1]
    words += ["--threads", 1, "--out", tmp_path / "result.json"]
    monkeypatch.setattr(sys, "argv", ["same_energy", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        launch(same_energy.main)
    assert stopped.value.code == code
    assert ("no more energy: icem" in capsys.readouterr().out) == (code == 0)
