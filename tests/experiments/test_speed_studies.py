"""The studies of deadlines and of scaling, at small size."""

from __future__ import annotations

import gc
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.experiments.place import Place, tiny_model
from wm.errors import BadInputError, MismatchError
from wm.experiments.studies import deadline, rollout_formats, scaling
from wm.experiments.studies.deadline import Replan
from wm.experiments.studies.launch import launch
from wm.experiments.studies.rival_flops import Layer, ours
from wm.experiments.studies.rival_weights import Sizes
from wm.experiments.studies.scaling import Point, Sweep

DINO = Sizes(image=28, width=12, encoder_depth=1, encoder_heads=2, depth=2, heads=2, head_width=8, hidden=24)


def printed(table: Any) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def replan(plan_ms: float, **changes: Any) -> Replan:
    usual: dict[str, Any] = {
        "search_ms": plan_ms - 1.0,
        "observe_ms": 2.0,
        "iterations": 3,
        "stopped_by": "deadline",
        "collections": 0,
        "collected_ms": 0.0,
        "switches": 0,
    }
    return Replan(plan_ms=plan_ms, **(usual | changes))


def test_rollout_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(rollout_formats.FORMATS, "compiled")  # the tests' checks of annotations cannot be compiled
    result = rollout_formats.run("pusht", 8, tmp_path / "formats.json", runs=2, threads=1)
    found = {row["format"]: row for row in result["rows"]}
    assert list(found) == list(rollout_formats.FORMATS)
    assert found["fp32"]["error"] == 0
    assert found["fp32"]["ratio"] == 1
    assert 0 < found["int8"]["error"] < 0.05
    assert 0 < found["bf16"]["error"] < 0.05
    assert json.loads((tmp_path / "formats.json").read_text()) == json.loads(json.dumps(result))
    assert result["impossible"] == {}
    patch = rollout_formats.run("pusht-patch", 2, tmp_path / "patch.json", runs=1, threads=1)
    assert [row["format"] for row in patch["rows"]] == ["fp32", "bf16"]
    assert patch["impossible"] == {"int8": "int8 rollouts: expected a model of form 'compact', came 'patch'."}
    with pytest.raises(BadInputError, match="--candidates: expected >= 1, came 0"):
        rollout_formats.run("pusht", 0, tmp_path / "formats.json")


def test_deadline(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "STEPS", 12)
    result = deadline.run(7, (30.0, 1e5), 2, 1003, tmp_path / "deadline.json", str(place.model), threads=1)
    assert json.loads((tmp_path / "deadline.json").read_text()) == json.loads(json.dumps(result))
    bound, free = result["deadlines"]
    for row in (bound, free):
        assert 7 <= row["replans"] <= 9  # whole episodes of three
        search, plan, seen = (row["overrun_ms"][k] for k in ("search", "replan", "observation and replan"))
        for name in ("p50", "p95", "p99", "max"):
            assert search[name] <= plan[name] <= seen[name]
        assert list(plan.values()) == sorted(plan.values())
    assert free["stopped_by_deadline"] == 0 and free["overrun_ms"]["replan"]["max"] < 0
    assert result["machine"]["torch_threads"] == 1 and result["machine"]["processor"]
    assert "100000" in printed(deadline.shown(result)) and "think" not in printed(deadline.shown(result))


def test_deadline_of_what_thinks_as_it_is_told(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deadline, "STEPS", 5)
    told: dict[str, Any] = {"think": "3", "threads": 1}
    result = deadline.run(1, (1e5,), 1, 1003, tmp_path / "deadline.json", str(place.model), **told)
    assert result["deadlines"][0]["iterations"]["max"] == 3
    assert "icem, think 3, 1 torch threads" in printed(deadline.shown(result))


def test_a_deadline_ends_searches(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deadline, "STEPS", 5)
    result = deadline.run(2, (1e-3,), 1, 1003, tmp_path / "deadline.json", str(place.model), threads=1)
    assert result["deadlines"][0]["stopped_by_deadline"] == 1 and result["deadlines"][0]["iterations"]["max"] == 1


def test_deadline_table_says_what_the_late_ones_had_in_them() -> None:
    made = [replan(40.0)] * 95 + [replan(54.0, switches=2)] * 3 + [replan(60.0, collections=1, collected_ms=9.0)] * 2
    found = deadline.table([*made[:-1], replan(70.0, switches=1, stopped_by="converged")], 50.0)
    assert found["replans"] == 100 and found["overrun_ms"]["replan"]["p50"] == -10.0
    assert found["overrun_ms"]["replan"]["max"] == 20.0 and found["overrun_ms"]["search"]["max"] == 19.0
    assert found["overrun_ms"]["observation and replan"]["max"] == 22.0
    assert found["late"] == {"replans": 2, "with_collection": 1, "with_context_switch": 1}
    assert found["stopped_by_deadline"] == 0.99 and found["collection_ms_max"] == 9.0
    assert not deadline.kept({"deadlines": [found]})
    assert deadline.kept({"deadlines": [deadline.table(made[:98], 50.0)]})
    assert deadline.kept({"deadlines": [found | {"deadline_ms": 20.0}]})


def test_what_the_host_withheld_is_told_where_the_system_tells(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(f"cpu  1 2 3 4 5 6 7 {3 * os.sysconf('SC_CLK_TCK')} 9 10\ncpu0 1 2 3\n")
    assert deadline.withheld_s(stat) == 3.0
    stat.write_text("cpu  1 2\n")
    assert deadline.withheld_s(stat) is None and deadline.withheld_s(tmp_path / "none") is None


def test_collections_are_counted_while_watching() -> None:
    collector = deadline.Collector()
    gc.collect()
    with collector.watching():
        gc.collect()
        count, milliseconds = collector.count, collector.milliseconds
        assert count >= 1 and milliseconds > 0
    gc.collect()
    assert (collector.count, collector.milliseconds) == (count, milliseconds)


def test_bad_deadlines_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "--deadline-ms", "0"])
    with pytest.raises(SystemExit) as stopped:
        launch(deadline.main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "wm: error: --deadline-ms: expected numbers above 0, came [0.0].\n"


def test_scaling(place: Place, tmp_path: Path) -> None:
    sweeps = {
        "compact": Sweep(Point(6, threads=1), {"candidates": (2, 6), "problems": (1, 3), "threads": (1,)}),
        "patch": Sweep(
            Point(3, horizon=2, side=2, threads=1), {"candidates": (300,), "side": (2, 3), "horizon": (1, 4)}
        ),
    }
    out = tmp_path / "scaling.json"
    result = scaling.run(str(place.model), sweeps, out, sizes=DINO, runs=2, squares=(8, 16))
    assert json.loads(out.read_text())["rows"] == json.loads(json.dumps(result["rows"]))
    rows = result["rows"]
    assert [row["predictor"] for row in rows] == ["compact"] * 5 + ["patch"] * 5
    assert [row["tokens"] for row in rows if row["varied"] == "side"] == [4, 9]
    for row in rows:
        assert 0 < row["min_s"] <= row["median_s"] <= row["max_s"]
        assert row["gflop_per_s"] == pytest.approx(row["gflop"] / row["median_s"])
        assert row["of_gemm"] == pytest.approx(row["gflop_per_s"] / row["gemm_gflop_per_s"])
        assert row["product"].split()[0] in ("torch.mm", "wm.linear") and row["product"].split()[1] in ("8", "16")
    assert set(result["gemm_gflop_per_s"][1]) == {8, 16}
    fastest = max(result["gemm_gflop_per_s"][1][8].values())
    fastest = max(fastest, *result["gemm_gflop_per_s"][1][16].values(), *(row["gemm_gflop_per_s"] for row in rows))
    assert scaling.achieved(result) == rows[5]["gflop_per_s"] / fastest and rows[5]["candidates"] == 300
    assert result["largest_patch"]["fastest_gflop_per_s"] == fastest
    assert scaling.largest_patch(result | {"rows": rows[:5]}) is None
    assert scaling.achieved({"largest_patch": None}) is scaling.achieved({"largest_patch": {"candidates": 3}}) is None
    assert "of product" in printed(scaling.shown(result))


def test_scaling_goes_on_where_it_was(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps, out = {"compact": Sweep(Point(6, threads=1), {"candidates": (2, 4, 6)})}, tmp_path / "scaling.json"
    measured, sizes = scaling.measured, list[float]()

    def once(rolled: Any, *arguments: Any) -> dict[str, float]:
        if len(sizes) == 2:
            raise KeyboardInterrupt
        sizes.append(rolled[1])
        return measured(rolled, *arguments)

    monkeypatch.setattr(scaling, "measured", once)
    with pytest.raises(KeyboardInterrupt):
        scaling.run(str(place.model), sweeps, out, runs=2, squares=(8, 16))
    assert not out.exists() and (tmp_path / "scaling.json.part").exists()
    monkeypatch.setattr(scaling, "measured", measured)
    with pytest.raises(MismatchError, match="seed"):
        scaling.run(str(place.model), sweeps, out, runs=2, squares=(8, 16), seed=1)
    rows = scaling.run(str(place.model), sweeps, out, runs=2, squares=(8, 16))["rows"]
    assert [row["candidates"] for row in rows] == [2, 4, 6]
    assert [row["gflop"] for row in rows[:2]] == sizes
    assert out.exists() and not (tmp_path / "scaling.json.part").exists()


def test_arithmetic_of_a_compact_rollout() -> None:
    predictor = tiny_model().joint.predictor
    state, hidden, action = 2 * 4 + 4, 16, 10
    step = 2 * (2 * state * hidden + action * hidden + 2 * hidden * 2 * hidden + hidden * state)
    history = 2 * 2 * state * hidden
    assert scaling.compact_gigaflop(predictor, 1, 1) == pytest.approx(1e-9 * step)
    assert scaling.compact_gigaflop(predictor, 3, 7) == pytest.approx(1e-9 * (7 * 3 * step - 6 * history))


def test_rollouts_have_the_points_size() -> None:
    model = tiny_model()
    rolled, work, tokens = scaling.compact_rollout(model, Point(3, horizon=4, problems=2))
    assert rolled().tokens.shape == (2, 3, 4, 2, 4) and tokens == 2  # type: ignore[attr-defined]
    assert work == pytest.approx(2 * scaling.compact_gigaflop(model.joint.predictor, 4, 3))
    rolled, work, tokens = scaling.patch_rollout(DINO, Point(5, horizon=3, side=3, problems=2), 0, 2)
    found = rolled()
    assert isinstance(found, torch.Tensor) and found.shape == (2, 5, 3, 9, 12 + 10) and tokens == 9
    assert work == pytest.approx(10 * ours(Layer(DINO, 9, 12 + 20, False), 3))


def test_sweeps_are_bounded() -> None:
    points = list(scaling.bounded(scaling.PATCH, 1, 10).points())
    assert {point.threads for point in points} == {1} and max(point.candidates for point in points) == 10
    assert [point.candidates for point in points if point.varied == "candidates"] == [4]
    middle = list(scaling.PATCH.points())
    assert len([p for p in middle if p.varied == "side"]) == 4 and {p.side for p in middle if p.varied != "side"} == {
        14
    }
    assert max(p.candidates for p in middle) == scaling.BAR_CANDIDATES


def test_scaling_refuses_a_model_of_another_form(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"^--model: expected a model of form 'compact', came 'patch'\.$"):
        scaling.run("pusht-patch", {}, tmp_path / "scaling.json")
    assert not any(tmp_path.iterdir())
