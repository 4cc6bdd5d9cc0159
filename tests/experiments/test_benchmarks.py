"""`docs/benchmarks.md` from the files of a bench folder."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.experiments.place import Place
from wm.errors import BadInputError
from wm.experiments.report import benchmarks
from wm.experiments.report.benchmark_evaluation import PATCH_BAR, PUSHT_BAR
from wm.experiments.studies import deadline, rival_cem, rival_cem_lewm, same_energy, scaling
from wm.experiments.studies.launch import launch
from wm.experiments.studies.rival_search import Search
from wm.experiments.studies.rival_weights import LEWM, Sizes
from wm.experiments.studies.same_energy_numbers import numbers
from wm.experiments.studies.scaling import Point, Sweep

DINO = Sizes(image=28, width=12, encoder_depth=1, encoder_heads=2, depth=2, heads=2, head_width=8, hidden=24)
SMALL = dataclasses.replace(
    LEWM, image=28, width=12, encoder_depth=1, encoder_heads=2, depth=2, heads=2, head_width=8, hidden=24
)

PARTS = {
    "machine": {"processor": "x86_64", "torch": "2", "torch_threads": "2", "runs": "7"},
    "figures": {"plan_ms_icem": 44.123},
}

SUCCESS = {
    "workers": 2,
    "episodes": 300,
    "seed": 1000,
    "machine": {"processor": "a quick one (AVX2)", "torch": "2", "torch_threads": 1},
    "answers": {
        "as_good_and_faster": ["quick"],
        "gradient": {
            "cem-300x30": {
                "gradient-4x8": {"difference": 0.01, "time_share": 0.0625, "passed": True},
                "lbfgs-2x6": {"difference": -0.05, "time_share": 0.01, "passed": False},
            },
            "cem-300x10": {},
        },
        "effort_follows": {"think-auto": {"energy": 0.25, "distance": -0.125, "steps": None, "plan_energy": 0.5}},
        "auto_beside_fixed": {"dominated_by": [], "best_fixed_points_per_ms": "quick"},
    },
    "settings": {
        "slow": {"episodes": 300, "success": 0.9, "success_ci95": [0.86, 0.93]}
        | {"observe_ms_p50": 4.5, "plan_ms_p50": 900.0, "plan_ms_mean": 950.0},
        "quick": {
            "episodes": 300,
            "success": 0.91,
            "success_ci95": [0.87, 0.94],
            "observe_ms_p50": 3.5,
            "plan_ms_p50": 30.0,
            "plan_ms_mean": 38.0,
            "beside_reference": {"difference": 0.01, "ci95": [-0.02, 0.04], "episodes": 300}
            | {"times_faster": 30.0, "times_faster_mean": 25.0},
        },
    },
}


EFFORT: dict[str, Any] = {
    "settings": {
        "think-auto": SUCCESS["settings"]["slow"],
        "quick": SUCCESS["settings"]["quick"],
    },
    "answers": {
        "as_good_and_faster": None,
        "gradient": {},
        "effort_follows": {},
        "auto_beside_fixed": {
            "dominated_by": [],
            "best_fixed_points_per_ms": "quick",
            "beside": {"quick": {"episodes": 300, "difference": 0.02, "ci95": [-0.01, 0.05], "time": 25.0}},
        },
    },
}


EVALUATION: dict[str, Any] = {
    "processor": "a quick one (AVX2)",
    "success_rate": 0.9625,
    "success_ci95": [0.94, 0.98],
    "episodes": 600,
    "observe_ms_p50": 3.0,
    "plan_ms_p50": 28.04,
    "plan_ms_p95": 1234.5,
    "config": {"env": "pusht", "model": {"name": "pusht"}, "planner": {"name": "icem"}, "think": None, "seed": 8}
    | {"goal_offset": 25, "budget_steps": 50, "threads": 2, "versions": {"torch": "2"}},
}


def put(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def test_every_study_stands_beside_its_command(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "STEPS", 5)
    bench, docs, search = tmp_path / "bench", tmp_path / "docs", Search(samples=4, topk=2)
    put(bench / "bench.json", PARTS)
    put(bench / "eval/metrics.json", EVALUATION)
    screened = EVALUATION["config"] | {"screen": {"name": "pusht"}, "think": "fast"}
    put(bench / "eval_patch/metrics.json", EVALUATION | {"success_rate": 0.5, "config": screened})
    put(bench / "success_curve/success_curve.json", SUCCESS)
    for folder in ("effort", "patch_curve"):
        put(bench / folder / "success_curve.json", SUCCESS | EFFORT)
    for folder in ("success_curve", "patch_curve"):
        Image.new("RGB", (8, 8)).save(bench / folder / "success_curve.png")
    made = deadline.run(2, (20.0, 50.0), 1, 1003, bench / "deadline.json", str(place.model), threads=1)
    deadline.run(2, (50.0,), 1, 1003, bench / "deadline_auto.json", str(place.model), think="auto", threads=1)
    deadline.run(2, (50.0,), 1, 1003, bench / "deadline_gradient.json", str(place.model), "gradient", threads=1)
    names = ["think-fast", "icem-16x1-p16"]
    energy = same_energy.run(names, 2, 1030, bench / "same_energy.json", str(place.model), 1, 8, 2)
    sweeps = {name: Sweep(Point(3, side=2, threads=1), {"candidates": (2, 3)}) for name in ("compact", "patch")}
    rolled = scaling.run(str(place.model), sweeps, bench / "scaling.json", sizes=DINO, runs=1, squares=(8,))
    rival_cem.run(DINO, search, 1, bench / "rival_cem.json", threads=1)
    rival_cem_lewm.run(SMALL, search, 1, bench / "rival_cem_lewm.json", threads=1)
    text = benchmarks.write(bench, docs).read_text()
    assert len(re.findall("^## ", text, re.M)) == len(benchmarks.SECTIONS)
    for section in benchmarks.SECTIONS:
        assert re.search(rf"^## {re.escape(section.title)}\n\n    (python -m |wm )", text, re.M)
    assert "    wm bench --out bench\n" in text and "| plan ms icem | 44.12 |" in text
    assert "rival_cem --out bench/rival_cem.json --samples 4 --iterations 1 --topk 2" in text
    assert f"deadline --out bench/deadline.json --replans 2 --tasks 1 --seed 1003 --model {place.model}" in text
    assert "--deadline-ms 20 --deadline-ms 50" in text
    assert "--out bench/deadline_auto.json" in text and "--planner icem --think auto --threads 1" in text
    assert "--planner gradient --threads 1 --deadline-ms 50" in text
    assert "wm eval --env pusht --model pusht --planner icem --episodes 600 --seed 8 --threads 2 --no-b" in text
    assert "--think fast --screen pusht --episodes 600" in text and "--out bench/eval_patch" in text
    assert "| pusht | 600 | 96.2 | 94.0 to 98.0 | 3.0 | 28.0 | 1,234.5 |" in text
    assert "To reach: at least 96 % and at most 100 ms a replan (median), of at least 600 episodes: met." in text
    assert "To reach: at most 1,500 ms a replan (median), of at least 100 episodes: met." in text
    assert ("host withheld processors for " in text) == (made["deadlines"][0]["withheld_s"] is not None)
    p99 = made["deadlines"][1]["overrun_ms"]["replan"]["p99"]
    assert f" | {p99:+.1f} | " in next(line for line in text.splitlines() if line.startswith("| 50 ms, replan"))
    assert "--most 3" in text and "| patch, candidates | 3 | 5 | 4 | 1 | 1 |" in text
    patch = max((row for row in rolled["rows"] if row["predictor"] == "patch"), key=lambda row: row["candidates"])
    fastest = max(row["gemm_gflop_per_s"] for row in rolled["rows"])
    fastest = max(fastest, *rolled["gemm_gflop_per_s"][1][8].values())
    assert f"3 candidates achieve {patch['gflop_per_s'] / fastest:.0%} of the fastest product of the whole run" in text
    quick = text.index("| quick | 300 | 91.0 | 87.0 to 94.0 | +1.0 | -2.0 to +4.0 | 3.5 | 30.0 | 38.0 | 30.0 | 25.0 |")
    assert quick < text.index("| slow | 300 | 90.0 | 86.0 to 93.0 |  |  | 4.5 | 900.0 | 950.0 |  |  |")
    assert "--out bench/effort --episodes 300 --seed 1000" in text
    assert "--out bench/patch_curve --model pusht-patch --episodes 300 --seed 1000" in text
    assert "| quick | 300 | 91.0 | 87.0 to 94.0 | -2.0 | -5.0 to +1.0 | 3.5 | 30.0 | 38.0 | 0.04 |" in text
    assert "| think-auto | 300 | 90.0 | 86.0 to 93.0 |  |  | 4.5 | 900.0 | 950.0 | 1.00 |" in text
    assert "a quick one (AVX2), torch 2, threads of torch: 1. Development seed 1000's goals;" in text
    assert "think-auto spends on a plan with the goal's energy +0.25, the true distance -0.12." in text
    assert "As successful in no more time than think-auto: none. Most success for a millisecond, of fixed" in text
    assert "By gradients alone within 3 points of cem-300x30 at 1/2 of its mean time: gradient-4x8 (at 0.062)." in text
    assert "cem-300x10 at" not in text and re.search(
        r"\(medians; run by run \S+ to \S+, in the middle \d\S*\); costs", text
    )
    assert "at 1/20 of its mean time: quick." in text and "--workers 2 --settings slow,quick" in text
    assert f"--model {place.model} --problems 2 --seed 1030 --population 8 --iterations 2 --threads 1" in text
    ratio = energy["settings"]["think-fast"]["energy"]["ratio"]["p50"]
    assert f" | {ratio:.3f} | " in next(line for line in text.splitlines() if line.startswith("| think-fast | 2 |"))
    for name in (benchmarks.SCALING_PNG, benchmarks.SUCCESS_PNG, benchmarks.PATCH_SUCCESS_PNG, benchmarks.ENERGY_PNG):
        assert f"]({name})" in text
        with Image.open(io.BytesIO((docs / name).read_bytes())) as picture:
            assert picture.format == "PNG"


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "bench/bench.json", PARTS)
    text = benchmarks.write(tmp_path / "bench", tmp_path / "docs").read_text()
    assert text.count("## ") == 1 and ".png" not in text
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["benchmarks.md"]


def test_bars_of_evaluations() -> None:
    assert PUSHT_BAR.met(EVALUATION) and PATCH_BAR.met(EVALUATION | {"success_rate": 0.0, "plan_ms_p50": 1500.0})
    for change in ({"success_rate": 0.959}, {"plan_ms_p50": 100.1}, {"episodes": 599}):
        assert not PUSHT_BAR.met(EVALUATION | change)
    assert not PATCH_BAR.met(EVALUATION | {"plan_ms_p50": 1501.0})


def test_a_section_without_a_result_stays(tmp_path: Path) -> None:
    bench, docs = tmp_path / "bench", tmp_path / "docs"
    put(bench / "bench.json", PARTS)
    put(bench / "success_curve/success_curve.json", SUCCESS)
    Image.new("RGB", (8, 8)).save(bench / "success_curve/success_curve.png")
    before = benchmarks.write(bench, docs).read_text()
    assert benchmarks.write(bench, docs).read_text() == before
    (bench / "success_curve/success_curve.png").unlink()  # as in a clone, whose page has the picture
    assert benchmarks.write(bench, docs).read_text() == before
    (bench / "success_curve/success_curve.json").unlink()
    put(bench / "bench.json", PARTS | {"figures": {"plan_ms_icem": 7.0}})
    assert benchmarks.write(bench, docs).read_text() == before.replace("44.12", "7.00")
    (docs / benchmarks.PAGE).write_bytes(b"\xff\xfe## ")
    with pytest.raises(BadInputError, match=r"benchmarks\.md: expected a page of text"):
        benchmarks.write(bench, docs)


def test_rows_of_a_table_are_as_wide_as_its_head(tmp_path: Path) -> None:
    put(tmp_path / "success_curve/success_curve.json", SUCCESS)
    put(tmp_path / "effort/success_curve.json", SUCCESS | EFFORT)
    lines = benchmarks.write(tmp_path, tmp_path).read_text().splitlines()
    assert {line.count("|") for line in lines if line.startswith("|")} == {11, 12}


def energies(**changes: Any) -> dict[str, Any]:
    one = {"index": 0, "plan_ms": 40.0, "energy": 2.0, "trace": [2.0], "ended_ms": [40.0], "candidates": 9}
    rows = [one, one | {"index": 1}]
    slow = [row | {"plan_ms": 1000.0, "energy": 4.0 - 2 * row["index"]} for row in rows]
    usual = dict.fromkeys(("model", "reference", "seed", "population", "iterations"), "x")
    table = {name: numbers(rows, slow) for name in same_energy.DEFAULT}
    about = {"processor": "x86_64", "torch": "2", "torch_threads": 2}
    rest = {"machine": about, "problems": 2, "reference_plan_ms_p50": 1000.0, "bar": {"times_faster": 20.0}}
    return usual | rest | {"settings": table, "met": ["icem"]} | changes


def test_energies_stand_over_the_reference_s(tmp_path: Path) -> None:
    put(tmp_path / "same_energy.json", energies())
    text = benchmarks.write(tmp_path, tmp_path).read_text()
    assert "--settings" not in text and "no higher: icem.**" in text and ".png" not in text
    row = next(line for line in text.splitlines() if line.startswith("| icem |"))
    # Means: 2 over 3, the bootstrap's ends -2 and 0 of it. Two of two are no higher: Wilson's 34 %.
    assert row == (
        "| icem | 2 | 40 | 25.0 | 25.0 | 25.0 | 0.750 | 0.667 | 0.333 to 1.000 | 100 (34 to 100) | 100 (34 to 100) "
        "| 25.0 |"
    )
    bad = {"index": 0, "plan_ms": 1.0, "energy": 9.0, "trace": [9.0], "ended_ms": [1.0], "candidates": 1}
    one = numbers([bad], [bad | {"plan_ms": 5.0, "energy": 3.0}])
    put(tmp_path / "same_energy.json", energies(settings={"icem": one}, met=[]))
    text = benchmarks.write(tmp_path, tmp_path).read_text()
    assert "--settings icem" in text and "no higher: none.**" in text
    assert "| 3.000 | 3.000 |  | 0 (0 to 79) | 0 (0 to 79) | never |" in text


def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInputError, match=r"expected at least one of bench\.json, rival_cem\.json, .*, came none\.$"):
        benchmarks.write(tmp_path, tmp_path / "docs")
    for broken in ("{", "[]", "{}", '{"figures": {}}'):
        (tmp_path / "bench.json").write_text(broken)
        with pytest.raises(BadInputError, match=r"bench\.json: expected a result of 'Parts', it cannot be read: "):
            benchmarks.write(tmp_path, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--bench", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as stopped:
        launch(benchmarks.main)
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1
