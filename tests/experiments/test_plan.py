from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.experiments.place import NEAR, START, Place, Run, refused, runner, tiny_model, write_start
from wm.checkpoint import load_tensors, save_tensors
from wm.decoder import DECODER_FILE, Decoder, model_fingerprint, save_decoder
from wm.experiments import assemble

FILES = ["energy.png", "plan.json", "report.html", "rollout.gif"]


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`wm plan` with sensible options."""
    options = {"env": "pusht", "goal": place.goal, "model": place.model, "out": place.out, "budget-steps": 7}
    return runner(monkeypatch, capsys, "plan", options)


def strict_json(text: str) -> dict[str, Any]:
    def fail(name: str) -> None:
        raise AssertionError(f"not strict JSON: {name}")

    return json.loads(text, parse_constant=fail)


def test_everything_is_written_and_agrees(place: Place, run: Run) -> None:
    code, out, err = run("--keep-out", "450,450,20", "--keep-out", "50,450,10", workspace="0,0,512,512", max_speed=2000)
    assert code == 0, err
    assert sorted(p.name for p in place.out.iterdir()) == FILES
    assert sorted(p.name for p in place.folder.iterdir()) == ["goal.json", "goal.png", "model.safetensors", "out"]
    record = strict_json((place.out / "plan.json").read_text())
    assert record["reached"] is False
    assert record["stopped_by"] == "budget"
    assert record["steps"] == 7
    assert np.array(record["states"]).shape == (8, 7)
    assert np.array(record["actions"]).shape == (7, 2)
    assert record["states"][0] == START
    assert record["planned_at"] == [0, 5]
    for per_replan in ("plan_ms", "energies", "searches", "margins"):
        assert len(record[per_replan]) == 2
    for energy, search in zip(record["energies"], record["searches"], strict=True):
        assert energy["total"] == pytest.approx(sum(energy["terms"].values()))
        assert search["trace"] == sorted(search["trace"], reverse=True)
    assert set(record["margins"][0]) == set(record["executed_margins"]) == {"keep_out", "workspace", "speed"}
    assert record["guardrail_violations"] == 0
    assert min(record["executed_margins"].values()) >= 0
    assert record["goal"]["sha256"] == hashlib.sha256(place.goal.read_bytes()).hexdigest()
    assert record["model"]["fingerprint"] == model_fingerprint(tiny_model())
    assert set(record["versions"]) == {"wm", "torch", "numpy", "python"}
    assert record["start"]["source"] == "goal.json"
    assert "goal not reached in 7 control steps" in out
    with Image.open(place.out / "rollout.gif") as film:
        assert film.n_frames == 8


def test_the_report_names_how_it_was_planned(place: Place, run: Run) -> None:
    code, out, _ = run("--json", rollout="int8", think="2")
    assert code == 0
    planner = strict_json(out)["planner"]
    assert (planner["rollout"], planner["think"]) == ("int8", "2")
    page = (place.out / "report.html").read_text()
    assert "rollouts" in page and "int8" in page and "how much it thinks" in page
    refused(run(rollout="int9"), "unknown rollout 'int9'. Did you mean 'int8'")


def test_json_alone_on_stdout(place: Place, run: Run) -> None:
    code, out, _ = run("--json")
    assert code == 0
    assert out == (place.out / "plan.json").read_text()
    strict_json(out)


def test_same_seed_same_motion(place: Place, run: Run) -> None:
    start = place.folder / "goal.json"
    first, again, other = (strict_json(run("--json", seed=seed, start=start)[1]) for seed in (4, 4, 5))
    assert first["actions"] == again["actions"]
    assert first["actions"] != other["actions"]


def test_goal_that_is_reached(place: Place, run: Run) -> None:
    write_start(place.folder / "goal.json", goal_state=NEAR)
    record = strict_json(run("--json", max_speed=50)[1])
    assert record["reached"] is True
    assert record["stopped_by"] == "reached"
    assert record["steps"] == 1
    assert "goal reached in 1 control step" in (place.out / "report.html").read_text()


def test_seed_alone_gives_the_start_and_leaves_success_unknown(place: Place, run: Run) -> None:
    record = strict_json(run("--json", seed=11)[1])
    expected = assemble.make_env("pusht").reset(seed=11)[1]["state"]
    assert record["states"][0] == expected.tolist()
    assert record["reached"] is None
    assert record["measures"] is None
    assert record["seeds"] == {"search": 11, "start": 11}
    assert record["steps"] == 7


def test_without_any_start_it_is_seed_0(place: Place, run: Run) -> None:
    (place.folder / "goal.json").unlink()
    code, _, err = run()
    assert code == 0
    assert "start: seed 0" in err


def test_start_file_wins_over_seed(place: Place, run: Run) -> None:
    start = write_start(place.folder / "other.json", start_state=NEAR)
    record = strict_json(run("--json", start=start, seed=9)[1])
    assert record["states"][0] == NEAR
    assert record["seeds"] == {"search": 9, "start": None}


def test_guardrail_margins_are_those_of_the_states(place: Place, run: Run) -> None:
    record = strict_json(run("--json", keep_out="160,120,20")[1])
    positions = np.array(record["states"])[:, :2]
    margins = np.hypot(*(positions - (160, 120)).T) - 20 - 15
    assert record["executed_margins"]["keep_out"] == pytest.approx(margins.min(), abs=1e-3)
    assert record["guardrail_violations"] == 0


def test_a_rules_file_is_kept_and_drawn(place: Place, run: Run) -> None:
    rules = place.folder / "rules.toml"
    rules.write_text("keep_out_polygons = [[[400, 400], [500, 400], [450, 500]]]\nworkspace = [20, 20, 490, 490]\n")
    record = strict_json(run("--json", rules=rules)[1])
    assert record["guardrails"]["keep_out_polygons"] == [[[400, 400], [500, 400], [450, 500]]]
    assert record["executed_margins"].keys() == {"keep_out_polygons", "workspace"}
    assert record["guardrail_violations"] == 0


def test_the_default_workspace_is_on_record(run: Run) -> None:
    assert strict_json(run("--json")[1])["guardrails"]["workspace"] == [0, 0, 512, 512]


def test_former_results_are_replaced_and_other_files_stay(place: Place, run: Run) -> None:
    place.out.mkdir()
    (place.out / "plan.json").write_text("old")
    (place.out / "notes.txt").write_text("mine")
    assert run()[0] == 0
    strict_json((place.out / "plan.json").read_text())
    assert sorted(p.name for p in place.out.iterdir()) == sorted([*FILES, "notes.txt"])


@pytest.mark.parametrize("kind", ["trained for it", "of another model", "none"])
def test_film_with_and_without_decoder(place: Place, run: Run, kind: str) -> None:
    model = tiny_model()
    name = model_fingerprint(model) if kind == "trained for it" else "0" * 16
    if kind != "none":
        save_decoder(Decoder(2, 4), place.folder / DECODER_FILE, name, {})
    code, _, err = run()
    assert code == 0
    with Image.open(place.out / "rollout.gif") as film:
        assert (film.width > 800) == (kind == "trained for it")
    assert ("decoder of another model" in err) == (kind == "of another model")
    assert ("no decoder.safetensors beside the model" in err) == (kind == "none")


def test_unfamiliar_goal_is_planned_with_a_warning(place: Place, run: Run) -> None:
    model = tiny_model()
    model.usual_distance.fill_(1e-3)
    model.save(place.model, {"command": "test"})
    code, _, err = run()
    assert code == 0
    distance = strict_json((place.out / "plan.json").read_text())["goal"]["unfamiliarity"]
    assert distance > 1.5
    text = "warning: the goal picture is unlike the training data: distance"
    assert f"{text} {distance:.1f} times the 99th percentile of held-out frames" in err
    assert "unlike the training data" in (place.out / "report.html").read_text()


def broken_png(place: Place) -> Path:
    path = place.folder / "broken.png"
    path.write_bytes(place.goal.read_bytes()[:600])
    return path


def one_pixel(place: Place) -> Path:
    path = place.folder / "one.png"
    Image.new("RGB", (1, 1)).save(path)
    return path


def text_file(place: Place) -> Path:
    path = place.folder / "goal.txt"
    path.write_text("push it there")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text_file, r"goal\.txt: expected a picture .*came something else"),
        (broken_png, r"broken\.png: expected a whole picture"),
        (one_pixel, r"one\.png: expected at least 16x16 px, came 1x1"),
        (lambda place: place.folder / "none.png", r"none\.png: expected a picture file, there is none"),
        (lambda place: place.folder, "expected a picture file, came a folder"),
    ],
)
def test_goals_that_are_refused(place: Place, run: Run, make: Callable[[Place], Path], message: str) -> None:
    refused(run(goal=make(place)), message)
    assert not place.out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_out": "100,120,30"}, r"guardrail 'keep_out': the start \[100\.0, 120\.0\] breaks it by 45\.0 px"),
        ({"workspace": "110,0,500,500"}, r"guardrail 'workspace': the start .* breaks it by 25\.0 px"),
        ({"keep_out": "1,2"}, "--keep-out: expected x,y,r as finite numbers between commas, came '1,2'"),
        ({"keep_out": "1,2,nan"}, "--keep-out: expected x,y,r as finite numbers between commas, came '1,2,nan'"),
        ({"keep_out": "a,b,c"}, "--keep-out: expected x,y,r"),
        ({"keep_out": "400,400,-1"}, "radii must be >= 0"),
        ({"workspace": "0,0,512"}, "--workspace: expected x0,y0,x1,y1"),
        ({"workspace": "400,0,300,512"}, "low .* must be below high"),
        ({"max_speed": "nan"}, "max_speed must be finite"),
        ({"max_speed": "-1"}, "max_speed must be one number >= 0"),
        ({"deadline_ms": "0"}, "deadline-ms: expected a number above 0"),
        ({"deadline_ms": "nan"}, "deadline-ms: expected a number above 0"),
        ({"budget_steps": "0"}, "budget-steps: expected at least 1 control step, came 0"),
        ({"seed": "-1"}, "seed: expected a whole number of at least 0"),
        ({"env": "pushtt"}, r"unknown environment 'pushtt'\. Did you mean 'pusht'\?"),
        ({"model": "pushtt"}, r"unknown model .*'pushtt'\. Did you mean 'pusht'\?"),
        ({"planner": "icme"}, r"unknown planner 'icme'\. Did you mean 'icem'\?"),
    ],
)
def test_options_that_are_refused(place: Place, run: Run, options: dict[str, str], message: str) -> None:
    refused(run(**options), message)
    assert not place.out.exists()


def test_model_of_another_env_is_refused(place: Place, run: Run) -> None:
    tensors, header = load_tensors(place.model)
    header["spec"]["env"]["env"] = "chips"
    save_tensors(place.model, tensors, header)
    refused(run(), r"model of another environment: env in .*: expected pusht, came chips")


def test_truncated_model_is_refused(place: Place, run: Run) -> None:
    place.model.write_bytes(place.model.read_bytes()[:1000])
    refused(run(), "not a readable safetensors file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON, came something else"),
        ("[1, 2]", "expected an object with 'env' and 'start_state', came list"),
        ('{"env": "pusht"}', r"expected an object with 'env' and 'start_state', came \['env'\]"),
        ('{"env": "chips", "start_state": [1]}', "start of another environment: env .*expected pusht, came chips"),
        ('{"env": "pusht", "start_state": "here"}', "expected 'start_state' as a list of finite numbers"),
        ('{"env": "pusht", "start_state": [1, 2]}', "expected 5, 7 or 10 finite numbers"),
        ('{"env": "pusht", "start_state": [1, 2, 3, 4, NaN]}', "expected 'start_state' as a list of finite numbers"),
        (
            '{"env": "pusht", "start_state": [1, 2, 3, 4, 1%s]}' % ("0" * 400),
            "'start_state' as a list of finite numbers",
        ),
        ("[" * 100_000, "expected JSON, came something else"),
        ('{"env": "pusht", "start_state": [9, 9, 9, 9, 9], "goal_state": [1]}', "expected 5, 7 or 10 finite numbers"),
    ],
)
def test_start_files_that_are_refused(place: Place, run: Run, content: str, message: str) -> None:
    path = place.folder / "start.json"
    path.write_text(content)
    refused(run(start=path), message)


def test_missing_start_file_is_refused(place: Place, run: Run) -> None:
    refused(run(start=place.folder / "none.json"), "none.json: expected a JSON file, it cannot be read")


def test_file_in_place_of_the_folder_is_refused(place: Place, run: Run) -> None:
    place.out.write_text("mine")
    refused(run(), "--out .*: expected a folder, there is a file of that name")
    assert place.out.read_text() == "mine"


def test_file_in_place_of_a_parent_is_refused(place: Place, run: Run) -> None:
    (place.folder / "file").write_text("mine")
    refused(run(out=place.folder / "file" / "deeper" / "out"), "--out .*: cannot be written")


def test_nothing_is_left_of_a_run_that_fails(place: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wm.experiments.plan.report_html", fail)
    before = sorted(place.folder.iterdir())
    refused(run(out=place.folder / "new" / "out"), "No space left on device")
    assert sorted(place.folder.iterdir()) == before
    place.out.mkdir()
    (place.out / "plan.json").write_text("old")
    refused(run(), "No space left on device")
    assert [(p.name, p.read_text()) for p in place.out.iterdir()] == [("plan.json", "old")]
