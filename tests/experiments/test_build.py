"""`wm build` chains the stages and can be called again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wm.decoder import DECODER_FILE, load_decoder, model_fingerprint
from wm.experiments import build
from wm.fit import FitConfig
from wm.model import load_model
from wm.refine import RefineConfig
from wm.train import TrainConfig

TINY = build.Recipe(
    episodes=26, steps=60, pretrain_episodes=22, pretrain_steps=3, draft_episodes=22, draft_steps=3,
    refine_episodes=22, refine_steps=3, predictor_steps=4, proposal_steps=3, decoder_steps=2,
)  # fmt: skip


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, a small encoder and a small predictor instead of the shipped model's."""
    small = TrainConfig(
        hidden=32,
        depth=1,
        pairs=1200,
        components=20,
        predictor=FitConfig(steps=1, batch=8),
        proposal=FitConfig(steps=1, batch=8),
    )
    monkeypatch.setattr(build, "TrainConfig", lambda **changes: replace(small, **changes))
    refining = RefineConfig(schedule=FitConfig(steps=1, batch=8))
    monkeypatch.setattr(build, "RefineConfig", lambda: refining)
    run = build.pretrain.run
    monkeypatch.setattr(build.pretrain, "run", lambda *a, **settings: run(*a, **settings | {"width": 8, "batch": 8}))


@pytest.mark.usefixtures("small_steps")
def test_every_stage_leaves_its_artifact_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    folder = build.build("pusht", tmp_path / "out", TINY, workers=0)
    model, provenance = load_model(folder / "model.safetensors")
    load_decoder(folder / DECODER_FILE, model_fingerprint(model))
    assert provenance["predictor_steps"] == 4 and (folder / "head.safetensors").exists()
    report = json.loads((folder / "report.json").read_text())
    assert len(report["error"]) == len(report["copy_last"]) == len(report["latent_steps"])
    again, _ = load_model(build.build("pusht", tmp_path / "out", TINY, workers=0) / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.usefixtures("small_steps")
def test_install_puts_the_files_where_shipped_models_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ASSETS", tmp_path / "assets")
    folder = build.build("pusht", tmp_path / "out", replace(TINY, seed=1), workers=0)
    shipped = build.install(folder, "pusht")
    assert {p.name for p in shipped.iterdir()} >= {"model.safetensors", DECODER_FILE, "report.json", "report.png"}
    assert (shipped / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
