"""The encoder study with few of everything: its parts go on where they were, and its page says what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.experiments.small_planner import plan_little
from tests.experiments.small_training import small_training
from wm.encoders.base import fingerprint
from wm.encoders.registry import build_encoder, load_encoder, save_encoder
from wm.errors import BadInputError, MismatchError, UnknownNameError
from wm.experiments import collect, pretrain, train
from wm.experiments.interval import wilson
from wm.experiments.studies import encoders, encoders_candidates, encoders_models
from wm.experiments.studies.encoders_candidates import CONTROLS, NAMES, Study, chosen, make_encoders
from wm.experiments.studies.encoders_models import FORMS, LOOKS, USUAL, Goals, Plan, Trained, play, train_models
from wm.experiments.studies.encoders_numbers import Figures, Success, beside, scores
from wm.experiments.studies.encoders_numbers import collect as figures_of
from wm.experiments.studies.encoders_report import write

PLAN = Plan(["simclr"], [0], [20, 22], ["compact", "pooled"], 22)
GOALS = Goals(1000, 2, 0.25)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """Done, its page in ``docs``."""
    folder = tmp_path_factory.mktemp("study")
    collect.collect("pusht", 22, folder / "data", steps=45, seed=0, workers=0, image_size=96)
    made = Study(folder / "data", folder / "out", pretrain_steps=2, pretrain_episodes=4, train_steps=2)
    with small_training() as patch:
        small = train.TrainConfig
        patch.setattr(train, "TrainConfig", lambda **changes: small(**{"pairs": 2600} | changes))
        patch.setattr(encoders_candidates, "WIDTH", 8)
        patch.setattr(encoders_models, "BUDGET", 10)
        plan_little(patch)
        encoders.run(made, PLAN, GOALS, folder / "docs")
        yield made


def page(study: Study) -> str:
    return (study.out.parent / "docs" / "encoders.md").read_text()


def rows(study: Study, look: str = USUAL, episodes: int = 22) -> Path:
    return GOALS.folder(study, Trained("simclr", 0, "compact", episodes), look) / "episodes.jsonl"


def test_a_study_leaves_models_rows_and_a_page(study: Study) -> None:
    for form, episodes, looks in [("compact", 20, 1), ("compact", 22, 4), ("pooled", 22, 1)]:
        model = Trained("simclr", 0, form, episodes)
        assert model.done(study) and not (model.folder(study) / "states").exists()
        assert not list(model.folder(study).glob("*.ckpt.*"))
        found = [look for look in LOOKS if (GOALS.folder(study, model, look) / "episodes.jsonl").exists()]
        assert len(found) == looks
    assert not list((study.out / "tokens").iterdir())
    text = page(study)
    assert "Nothing is missing" in text and "**simclr**" in text and "development seed 1000" in text
    assert "| simclr | " in text and "pooled: probe R²" in text
    for name in ("encoders-logs.png", "encoders-shifts.png", "encoders-looks.png"):
        assert name in text and Image.open(study.out.parent / "docs" / name).size[0] > 800


def test_what_is_there_is_not_made_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    before = {path: path.stat().st_mtime_ns for path in study.out.rglob("*.safetensors")}
    monkeypatch.setattr(train, "run", never)
    monkeypatch.setattr(encoders_candidates, "save_encoder", never)
    encoders.run(study, PLAN, GOALS, study.out.parent / "docs")
    assert before == {path: path.stat().st_mtime_ns for path in study.out.rglob("*.safetensors")}


def test_goals_go_on_after_the_last_that_was_played(study: Study) -> None:
    path = rows(study)
    whole = path.read_text()
    path.write_text(whole.splitlines(keepends=True)[0] + '{"index": 1, "rea')  # killed while it wrote
    other = rows(study, "distractor").read_text()
    play(study, PLAN, GOALS)
    assert path.read_text() == whole and rows(study, "distractor").read_text() == other


def test_a_partial_study_says_what_is_missing(study: Study, tmp_path: Path) -> None:
    more = replace(PLAN, names=["dino", "simclr"], episodes=[20, 22, 40])
    text = write(study, more, replace(GOALS, count=3), tmp_path).read_text()
    assert "- Nothing of dino." in text
    assert "- simclr: 40 logs; 20 logs: 2 of 3 goals of seed 0" in text
    assert "No objective has all of these figures yet." in text
    assert "Not measured" in write(replace(study, out=tmp_path / "none"), PLAN, GOALS, tmp_path).read_text()


def test_raw_pixels_and_random_weights_are_played_like_the_others(study: Study) -> None:
    few = Plan(["untrained", "pixels"], [0], [20], ["compact"], 22)
    encoders.run(study, few, replace(GOALS, count=1), study.out.parent / "docs-of-controls")
    text = (study.out.parent / "docs-of-controls" / "encoders.md").read_text()
    assert "| untrained | " in text and "| pixels | " in text and "No objective has all" in text
    torch.manual_seed(0)
    random = build_encoder("wm-tiny", 8)
    assert fingerprint(load_encoder(Path(study.encoder("untrained", 0)))) == fingerprint(random)


def test_an_encoder_that_is_not_there_is_left_out(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    for stages in (("train", "evaluate"), ("rate",)):
        encoders.run(study, replace(PLAN, names=["barlow"]), GOALS, study.out.parent / "docs", stages)
        assert "left out: barlow of seed 0 has not been pretrained" in capsys.readouterr().err


def test_a_rate_is_measured_again_when_that_is_asked_for(study: Study) -> None:
    path = study.folder("simclr", 0) / "rate.json"
    path.write_text('{"frames_per_s": 0.5}')
    encoders.run(study, PLAN, GOALS, study.out.parent / "docs", ("pretrain",))
    assert json.loads(path.read_text())["frames_per_s"] == 0.5
    encoders.run(study, PLAN, GOALS, study.out.parent / "docs", ("rate",))
    assert json.loads(path.read_text())["frames_per_s"] > 1


def test_a_model_of_another_encoder_than_the_present_one_is_refused(study: Study, tmp_path: Path) -> None:
    other = replace(study, out=tmp_path / "out")
    for part in ("encoders", "models", "goals"):
        shutil.copytree(study.out / part, other.out / part)
    torch.manual_seed(7)
    encoder, folder = build_encoder("wm-tiny", 8), other.folder("simclr", 0)
    before = fingerprint(load_encoder(folder / "encoder.safetensors"))
    save_encoder(encoder, folder / "encoder.safetensors", {"provenance": {}})
    line = r"model on another encoder than the present simclr of seed 0 in .*-20/config\.json"
    with pytest.raises(MismatchError, match=f"{line}: expected {fingerprint(encoder)}, came {before}"):
        train_models(other, PLAN)
    with pytest.raises(MismatchError, match="present simclr of seed 0"):
        play(other, PLAN, GOALS)
    with pytest.raises(MismatchError, match="present simclr of seed 0"):
        write(other, PLAN, GOALS, tmp_path)


def test_the_pooled_encoder_is_made_anew_with_the_whole_one(study: Study, tmp_path: Path) -> None:
    other = replace(study, out=tmp_path / "out")
    make_encoders(other, ["untrained"], [0])
    torch.manual_seed(7)
    encoder = build_encoder("wm-tiny", 8)
    save_encoder(encoder, Path(other.encoder("untrained", 0)), {"provenance": {}})
    make_encoders(other, ["untrained"], [0])
    assert fingerprint(load_encoder(Path(other.encoder("untrained", 0, pooled=True)))) == fingerprint(encoder)


def test_another_study_in_the_folder_is_refused(study: Study) -> None:
    with pytest.raises(MismatchError, match="run folder of another run: steps"):
        encoders.run(replace(study, train_steps=3), PLAN, GOALS, study.out.parent / "docs")


def test_stores_of_frames_are_told_apart(study: Study, tmp_path: Path) -> None:
    many = replace(study, out=tmp_path / "out", frames=(study.data,))
    many.claim()  # frames of a store of the same name as the logs'
    with pytest.raises(MismatchError, match="run folder of another run: frames"):
        replace(many, frames=()).claim()


def test_too_few_logs_are_refused(study: Study) -> None:
    with pytest.raises(BadInputError, match="data: expected 40 or more episodes, came 22"):
        encoders.run(study, replace(PLAN, episodes=[20, 40]), GOALS, study.out.parent / "docs")


def test_the_pooled_encoder_has_the_weights_of_the_whole_one(study: Study) -> None:
    whole, pooled = (load_encoder(Path(study.encoder("simclr", 0, pooled))) for pooled in (False, True))
    assert (whole.grid, pooled.grid) == (8, 1) and fingerprint(whole) == fingerprint(pooled)
    made_of = Trained("simclr", 0, "pooled", 22).folder(study) / "config.json"
    assert json.loads(made_of.read_text())["encoder"] == pooled.spec().to_json()


def test_encoders_are_trained_on_all_stores_that_are_named(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def note(data: Path, out: Path, **_: Any) -> None:
        asked.append(data)
        raise BadInputError("enough")

    monkeypatch.setattr(pretrain, "run", note)
    for frames in ((), (study.data, tmp_path)):
        with pytest.raises(BadInputError, match="enough"):
            make_encoders(replace(study, frames=frames), ["vicreg"], [3])
    assert asked == [study.data, (study.data, tmp_path)]


def of(reached: int, played: int = 100, seeds: int = 1) -> Success:
    """The first goals reached, by all seeds."""
    return Success({seed: {index: index < reached for index in range(played)} for seed in range(seeds)})


def figures(few: int, shifted: int, most: int) -> Figures:
    """Of so many goals in a hundred."""
    success = {("compact", 20, USUAL): of(few), ("compact", 22, USUAL): of(most)}
    return Figures({0}, success | {("compact", 22, look): of(shifted) for look in LOOKS[1:]})


def test_the_rule_of_the_winner() -> None:
    found = {
        "dino": figures(50, 20, 90),
        "simclr": figures(40, 40, 85),
        "vicreg": figures(90, 90, 60),  # worse where logs are plenty
        "barlow": Figures({0}, {("compact", 22, USUAL): of(100)}),  # not all measured
        "pixels": figures(100, 100, 100),  # a control
    }
    marks = scores(found, PLAN)
    assert list(marks) == ["simclr", "dino"] and marks["simclr"] == pytest.approx(0.4)
    assert marks["dino"] == pytest.approx((0.5 + 3 * 0.2) / 4)
    assert scores({"pixels": found["pixels"]}, PLAN) == {}


def test_intervals_apart() -> None:
    assert beside(of(90), of(50)) == "above" and beside(of(50), of(90)) == "below"
    assert beside(of(52), of(50)) == "not apart"


def test_seeds_that_play_the_same_goals_are_no_more_goals() -> None:
    assert of(60).interval == wilson(60, 100)
    for seeds in (2, 3):  # agreeing on every goal: as much is known as of one seed
        low, high = of(60, seeds=seeds).interval
        assert (low, high) == pytest.approx(wilson(60, 100), abs=0.02)
    assert of(0, seeds=3).interval == wilson(0, 100) and of(100, seeds=2).interval == wilson(100, 100)


def test_what_seeds_differ_by_is_in_the_interval() -> None:
    good, bad = dict.fromkeys(range(100), True), {i: i >= 100 for i in range(100)}
    apart = Success({0: good, 1: bad})
    assert apart.rate == 0.5 and apart.interval == (0.0, 1.0)
    partly = Success({0: dict.fromkeys(range(100), True), 1: {0: False}})  # interrupted at its second goal
    assert partly.rate == pytest.approx(100 / 101) and 0 <= partly.interval[0] < partly.interval[1] <= 1
    once, again = (Success({0: good, 1: {i: i % 3 == 0 for i in range(100)}}).interval for _ in range(2))
    assert once == again


def test_seeds_are_put_together(study: Study, tmp_path: Path) -> None:
    other = replace(study, out=tmp_path)
    for seed, reached in enumerate([True, False]):
        model = Trained("dino", seed, "compact", 20)
        model.folder(other).mkdir(parents=True)
        path = GOALS.folder(other, model, USUAL)
        path.mkdir(parents=True)
        (path / "episodes.jsonl").write_text(json.dumps({"index": 0, "reached": reached}) + "\n")
    found = figures_of(other, replace(PLAN, names=["dino"]), GOALS)["dino"]
    success = Success({0: {0: True}, 1: {0: False}})
    assert found.seeds == {0, 1} and found.success == {("compact", 20, USUAL): success} and success.rate == 0.5
    text = write(other, replace(PLAN, names=["dino"], seeds=[0, 1, 2]), GOALS, tmp_path).read_text()
    assert (
        "20 logs: 1 of 2 goals of seed 0, 1 of 2 goals of seed 1, 0 of 2 goals of seed 2" in text
    )  # 2 in all, as many as asked for


def test_names_that_are_misspelt_are_refused() -> None:
    assert chosen(None) == list(NAMES) and chosen("pixels, dino") == ["dino", "pixels"] and set(CONTROLS) < set(NAMES)
    with pytest.raises(UnknownNameError, match=r"unknown encoder of the study 'din'\. Did you mean 'dino'\?"):
        chosen("din")
    with pytest.raises(UnknownNameError, match="unknown form of the study 'strokes'"):
        Plan(["dino"], [0], [20], ["strokes"], 20)
    with pytest.raises(BadInputError, match="episodes: expected whole numbers between commas, came 'few'"):
        encoders.numbers("episodes", "few")
    assert encoders.numbers("seeds", "2,0,0") == [0, 2] and FORMS[0] == "compact"
