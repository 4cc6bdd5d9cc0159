"""The study of the options of the training: what each option trains, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.experiments.place import Place
from wm.errors import UnknownNameError
from wm.experiments.studies import success_curve, training_options, training_options_report
from wm.experiments.studies.training_options import OPTIONS, Budget

BUDGET = Budget(refine_steps=3, predictor_steps=4, extra_steps=5, played=6, seed=2)


@pytest.fixture
def trained(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """Trainings that only note what they are asked for: the command, the folder's name and the settings."""
    asked: list[tuple[str, str, Any]] = []

    def refined(data: Path, model: Path, out: Path, config: Any, episodes: int) -> Path:
        asked.append(("refine", out.name, config))
        return out / "model.safetensors"

    def predicted(data: Path, encoder: Path, out: Path, config: Any, seed: int) -> Path:
        asked.append(("train", out.name, (config, encoder.parent.name)))
        return place.model

    def corrected(data: Path, setting: Any, out: Path, play: Any, config: Any, **more: Any) -> Path:
        asked.append(("correct", out.name, (play, config, setting.model)))
        return place.model

    monkeypatch.setattr(training_options.refine, "run", refined)
    monkeypatch.setattr(training_options.train, "run", predicted)
    monkeypatch.setattr(training_options.correct, "run", corrected)
    monkeypatch.setattr(success_curve, "BUDGET", 5)
    return asked


def made(name: str, out: Path) -> None:
    training_options.made(name, out, out, out, BUDGET)


def test_options_of_the_refining_refine_apart(trained: list[tuple[str, str, Any]], tmp_path: Path) -> None:
    for name in ("none", "straightening", "inverse", "adversarial"):
        made(name, tmp_path)
    refines = [each for each in trained if each[0] == "refine"]
    assert [folder for _, folder, _ in refines] == ["refined", "refined-straightening", "refined-inverse", "refined"]
    weights = [(config.straightening, config.inverse) for _, _, config in refines]
    expected = [
        (0.0, 0.0),
        (OPTIONS["straightening"].straightening, 0.0),
        (0.0, OPTIONS["inverse"].inverse),
        (0.0, 0.0),
    ]
    assert weights == expected
    trains = {folder: settings for command, folder, settings in trained if command == "train"}
    assert {name: config.adversarial for name, (config, _) in trains.items()} == {
        "none": 0.0, "straightening": 0.0, "inverse": 0.0, "adversarial": OPTIONS["adversarial"].adversarial,
    }  # fmt: skip
    assert trains["straightening"][1] == "refined-straightening" and trains["adversarial"][1] == "refined"
    schedules = {(c.predictor.steps, c.predictor.seed, c.proposal.seed) for c, _ in trains.values()}
    assert schedules == {(4, 2, 2)}


def test_correction_starts_from_the_plain_model_and_its_control_plays_nothing(
    trained: list[tuple[str, str, Any]], tmp_path: Path, place: Place
) -> None:
    made("online", tmp_path)
    made("longer", tmp_path)
    (_, _, online), (_, _, longer) = (each for each in trained if each[0] == "correct")
    assert {folder for command, folder, _ in trained if command == "train"} == {"none"}
    assert online[2] == longer[2] == str(place.model)
    assert (online[0].episodes, online[1].share) == (6, 0.5)
    assert longer[1].share * Budget().batch * Budget().extra_steps < 0.001  # not a window in all of the training
    assert online[1].schedule == longer[1].schedule and online[1].schedule.steps == 5


def test_the_table_has_every_option_under_every_search(trained: list[tuple[str, str, Any]], tmp_path: Path) -> None:
    arguments = (["think-fast", "think-1"], tmp_path, tmp_path, tmp_path / "out", BUDGET, 1, 1000)
    result = training_options.run(["none", "adversarial"], *arguments)
    rows = [(row["option"], row["search"], row["episodes"]) for row in result["rows"]]
    assert rows == [(o, s, 1) for o in ("none", "adversarial") for s in ("think-fast", "think-1")]
    written = json.loads((tmp_path / "out" / "training_options.json").read_text())
    assert written == json.loads(json.dumps(result)) and written["budget"]["extra_steps"] == 5
    beside = [row.get("beside") for row in result["rows"]]
    assert beside[:2] == [None, None]
    assert all(each.keys() == {"none"} and each["none"]["difference"] == 0 for each in beside[2:])  # one model plays
    for row, ms in zip(result["rows"], (10.0, 20.0, 30.0, 25.0), strict=True):
        row["plan_ms_p50"] = ms
    page = training_options_report.write(result, tmp_path / "docs").read_text()
    assert "| ms a plan | 20.0 | 22.5 |" in page
    assert all(f"| {option} | " in page and f"- {option}: " in page for option in ("none", "adversarial"))
    assert (
        "`wm train --adversarial 0.05`" in page
        and "+0.0 (" in page
        and "(development seed " in page
        and "**" not in page
    )
    with Image.open(tmp_path / "docs" / training_options_report.PICTURE) as image:
        assert image.width > 500
    assert training_options.printed(result).row_count == 2
    result["rows"][2]["beside"]["none"] |= {"difference": -0.2, "ci95": [-0.3, -0.1]}
    result["rows"][3]["beside"]["longer"] = {"difference": 0.1, "ci95": [-0.1, 0.3]}
    page = training_options_report.write(result, tmp_path / "docs").read_text()
    assert "Better than `none` by more than its interval: none of them. Worse: adversarial (think-fast)." in page
    assert ", **-20.0 (-30.0 to -10.0)** |" in page
    assert "`adversarial` beside `longer`, points: think-1 +10.0 (-10.0 to +30.0)." in page
    alone = training_options.run(["adversarial"], *arguments)
    assert not any("beside" in row for row in alone["rows"])  # who knows what the others played
    with pytest.raises(UnknownNameError, match="option of the training 'inverted'. Did you mean 'inverse'"):
        training_options.run(["inverted"], *arguments)
