"""`wm pretrain --objective`: data good and bad, what a run leaves, and that a collapse is said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from tests.experiments import crash_pretrain
from wm.checkpoint import load_tensors
from wm.encoders.base import fingerprint
from wm.encoders.registry import load_encoder
from wm.errors import BadInputError, MismatchError, StoreError, UnknownNameError
from wm.experiments import collect, pretrain
from wm.experiments.report.pretraining import pretraining_png
from wm.fit import FitConfig
from wm.objectives import OBJECTIVES, monitors

SIZES: dict[str, Any] = {"encoder": "wm-tiny", "width": 4, "episodes": 6, "steps": 3, "batch": 4, "seed": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laboratory") / "data"
    collect.collect("pusht", 6, folder, steps=25, seed=0, workers=0, image_size=96)
    return folder


@pytest.fixture(scope="module")
def strokes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of another world, of other actions and without proprioception."""
    folder = tmp_path_factory.mktemp("laboratory") / "strokes"
    collect.collect("chips", 4, folder, steps=5, seed=0, workers=0, image_size=96)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index in range(40):
        small = rng.integers(0, 255, (4, 5, 3)).astype(np.uint8)
        Image.fromarray(small).resize((100, 80)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def schedule(steps: int, batch: int, **settings: Any) -> FitConfig:
        return FitConfig(steps, batch, warmup=1, log_every=1, **settings)

    monkeypatch.setattr(pretrain, "FitConfig", schedule)


def invoke(main: Callable[..., None], *arguments: object) -> str:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns_from_a_store(objective: str, store: Path, tmp_path: Path) -> None:
    path = pretrain.run(store, tmp_path / "run", objective=objective, **SIZES)
    provenance = load_tensors(path)[1]["provenance"]
    assert load_encoder(path).width == 4 and provenance["objective"] == objective
    names = {"config.json", "encoder.safetensors", "monitors.json", "pretrain.ckpt.safetensors"}
    assert {p.name for p in path.parent.iterdir()} == names | {"pretrain.jsonl", "pretrain.png"}
    monitors = json.loads((path.parent / "monitors.json").read_text())
    assert monitors["collapsed"] is None and monitors["objective"] == objective  # too short to be judged
    assert monitors["figures"].keys() >= {"feature_rank", "embedding_std", "probe_r2", "knn_r2"}
    assert Image.open(path.parent / "pretrain.png").size[0] > 800


@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - {"acjepa", "vjepa"}))
def test_objectives_on_single_frames_learn_from_a_folder(objective: str, pictures: Path, tmp_path: Path) -> None:
    path = pretrain.run(pictures, tmp_path, objective=objective, **SIZES)
    made_of = load_tensors(path)[1]["provenance"]["data"]
    assert made_of["pictures"] == 40 and made_of["skipped"] == 0
    figures = json.loads((tmp_path / "monitors.json").read_text())["figures"]
    assert "probe_r2" not in figures and figures["feature_rank"] > 1
    before = fingerprint(load_encoder(path))
    assert fingerprint(load_encoder(pretrain.run(pictures, tmp_path, objective=objective, **SIZES))) == before


def test_a_folder_is_refused_where_clips_or_actions_are_needed(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadInputError, match="'acjepa' expects an episode store, with actions; came a folder of pict"):
        pretrain.run(pictures, out, **SIZES)
    with pytest.raises(BadInputError, match="'vjepa' expects an episode store, for clips of 4 frames; came a folder"):
        pretrain.run(pictures, out, objective="vjepa", **SIZES)
    with pytest.raises(BadInputError, match="'vicreg' expects an episode store, for clips of 2 frames; came a folder"):
        pretrain.run(pictures, out, objective="vicreg", positive=2, **SIZES)
    with pytest.raises(StoreError, match="not an episode store"):
        pretrain.run(tmp_path, out, **SIZES)
    with pytest.raises(BadInputError, match="expected pictures .*, there are none"):
        pretrain.run(tmp_path, out, objective="dino", **SIZES)
    with pytest.raises(StoreError, match="expected the folder of an episode store, came nothing"):
        pretrain.run(tmp_path / "nowhere", out, objective="dino", **SIZES)
    assert not out.exists()


def test_bad_options_are_refused_before_anything_is_written(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UnknownNameError, match=r"unknown objective 'sigregg'\. Did you mean 'sigreg'\?"):
        pretrain.run(store, out, objective="sigregg", **SIZES)
    with pytest.raises(BadInputError, match="positive: expected >= 0, came -1"):
        pretrain.run(store, out, objective="vicreg", positive=-1, **SIZES)
    with pytest.raises(BadInputError, match="positive: objective 'ijepa' has no views of two frames"):
        pretrain.run(store, out, objective="ijepa", positive=3, **SIZES)
    with pytest.raises(BadInputError, match="light: objective 'vicreg' has views in other light already"):
        pretrain.run(store, out, objective="vicreg", light=True, **SIZES)
    with pytest.raises(BadInputError, match="expected at least 2 episodes, of which one is held out, came 1"):
        pretrain.run(store, out, objective="ijepa", **SIZES | {"episodes": 1})
    assert not out.exists()


@pytest.mark.parametrize("objective", ["acjepa", "vjepa", "simclr"])
def test_one_encoder_learns_from_the_logs_of_several_worlds(
    objective: str, store: Path, strokes: Path, tmp_path: Path
) -> None:
    path = pretrain.run([store, strokes], tmp_path, objective=objective, **SIZES)
    provenance = load_tensors(path)[1]["provenance"]
    assert provenance["episodes"] == [6, 4] and [each["env"] for each in provenance["data"]] == ["pusht", "chips"]
    figures = json.loads((tmp_path / "monitors.json").read_text())["figures"]
    assert figures.keys() >= {"feature_rank", "embedding_std", "probe_r2"}
    before = path.read_bytes()
    assert pretrain.run([store, strokes], tmp_path, objective=objective, **SIZES).read_bytes() == before
    for others in ([store], [strokes, store]):
        with pytest.raises(MismatchError, match="run folder of another run"):
            pretrain.run(others, tmp_path, objective=objective, **SIZES)


def test_several_worlds_are_refused_where_they_do_not_fit(
    store: Path, strokes: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadInputError, match="expected one folder of pictures, or episode stores; came several"):
        pretrain.run([store, pictures], out, objective="dino", **SIZES)
    with pytest.raises(BadInputError, match="batch: expected a sample or more of each of 2 stores, came 1"):
        pretrain.run([store, strokes], out, **SIZES | {"batch": 1})
    with pytest.raises(BadInputError, match="strokes: windows: expected an episode of at least 15 .*, came 5"):
        pretrain.run([store, strokes], out, objective="vicreg", positive=15, **SIZES)
    assert not out.exists()


def test_a_run_in_other_light_is_another_run_and_says_so(store: Path, tmp_path: Path) -> None:
    path = pretrain.run(store, tmp_path / "light", light=True, **SIZES)
    plain = pretrain.run(store, tmp_path / "plain", **SIZES)
    assert load_tensors(path)[1]["provenance"]["light"] is True
    assert "light" not in load_tensors(plain)[1]["provenance"]
    assert fingerprint(load_encoder(path)) != fingerprint(load_encoder(plain))
    with pytest.raises(MismatchError):
        pretrain.run(store, tmp_path / "light", **SIZES)


def test_a_run_folder_belongs_to_one_objective(store: Path, tmp_path: Path) -> None:
    pretrain.run(store, tmp_path, objective="barlow", **SIZES)
    with pytest.raises(MismatchError, match="run folder of another run: objective in .*: expected barlow, came acjepa"):
        pretrain.run(store, tmp_path, **SIZES)
    pretrain.run(store, tmp_path / "before", **SIZES)
    with pytest.raises(MismatchError, match="objective in .*: expected acjepa, came dino"):
        pretrain.run(store, tmp_path / "before", objective="dino", **SIZES)
    with pytest.raises(MismatchError, match="another run: redundancy in .*: expected 0.02, came 0.0"):
        pretrain.run(store, tmp_path, objective="barlow", regularised=False, **SIZES)


def test_a_killed_run_ends_in_the_encoder_of_one_that_never_stopped(store: Path, tmp_path: Path) -> None:
    script = Path(crash_pretrain.__file__)
    command = [sys.executable, script, store, tmp_path / "killed", "6"]
    process = subprocess.run(command, capture_output=True, timeout=100)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert not (tmp_path / "killed" / "encoder.safetensors").exists()
    assert load_tensors(tmp_path / "killed" / "pretrain.ckpt.safetensors")[1]["step"] == 4
    whole, resumed = (crash_pretrain.run(store, tmp_path / name) for name in ("whole", "killed"))
    assert fingerprint(load_encoder(whole)) == fingerprint(load_encoder(resumed))
    one, other = (load_tensors(path.parent / "pretrain.ckpt.safetensors")[0] for path in (whole, resumed))
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_a_finished_run_of_before_there_were_objectives_is_left_as_it_is(store: Path, tmp_path: Path) -> None:
    path = pretrain.run(store, tmp_path, **SIZES)
    found = json.loads((tmp_path / "config.json").read_text())
    assert list(found) == [
        "form", "history", "width", "hidden", "depth", "regulariser", "segment", "encoder", "token_width", "data",
        "episodes", "steps", "batch", "seed", "frameskip",
    ]  # fmt: skip
    for name in ("monitors.json", "pretrain.png"):
        (tmp_path / name).unlink()
    before = path.read_bytes()
    assert pretrain.run(store, tmp_path, **SIZES).read_bytes() == before
    assert pretrain.summary(path) == f"{path}: pretrained."


def test_the_command_says_how_it_went(
    store: Path, tmp_path: Path, short_warm_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("LEAST_STD", "LEAST_RANK", "LEAST_SPREAD"):  # after twelve steps nothing is healthy yet
        monkeypatch.setattr(monitors, limit, 0.0)
    sizes = ["--steps", 12, "--batch", 8, "--width", 4, "--episodes", 6]
    good = invoke(pretrain.main, store, "--out", tmp_path / "good", "--objective", "simclr", "--positive", 2, *sizes)
    assert good.startswith(f"{tmp_path / 'good' / 'encoder.safetensors'}: pretrained by simclr; rank ")
    assert "COLLAPSED" not in good and "probe R²" in good and len(good.splitlines()) == 1


def test_a_collapse_is_said_and_kept(
    store: Path,
    tmp_path: Path,
    short_warm_up: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitors, "LEAST_STD", 1e9)
    path = pretrain.run(store, tmp_path, objective="vicreg", regularised=False, **SIZES)
    assert "wm: COLLAPSE seen at step 2: std of the embedding" in capsys.readouterr().err
    found = json.loads((tmp_path / "monitors.json").read_text())
    assert found["collapsed"] is True and found["first_seen_at_step"] == 2 and "std of the emb" in found["because"][0]
    assert "COLLAPSED: std of the embedding" in pretrain.summary(path)
    assert load_tensors(path)[1]["provenance"]["regularised"] is False


def test_curves_are_drawn_with_and_without_monitors() -> None:
    plain = [{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}]
    watched = [
        line | {"feature_rank": 3.0, "feature_std": 0.2, "embedding_std": 0.1, "collapsed": 1.0} for line in plain
    ]
    pictures = {pretraining_png("vicreg", log) for log in (plain, watched, [watched[0] | {"collapsed": 0.0}])}
    assert len(pictures) == 3 and all(data.startswith(b"\x89PNG") for data in pictures)
