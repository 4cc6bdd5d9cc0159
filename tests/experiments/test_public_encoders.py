"""`wm encode` and `wm train` on public encoders, from a log to a model that plans can be made with."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wm.experiments.encode
from tests.checkpoints import FAMILIES, write_checkpoint
from wm.checkpoint import load_tensors
from wm.datasets.reader import EpisodeStore
from wm.encoders.public import PublicEncoder
from wm.encoders.reduced import ReducedEncoder
from wm.encoders.registry import load_public
from wm.errors import BadInputError, CheckpointError, MismatchError
from wm.experiments import collect, encode, refine, train
from wm.experiments.cli import main as command
from wm.fit import FitConfig
from wm.model import WorldModel, load_model
from wm.refine import RefineConfig
from wm.train import TrainConfig

EPISODES = 20
FIT = FitConfig(steps=2, batch=16, warmup=1)
CONFIG = TrainConfig(width=4, hidden=16, depth=1, pairs=1200, components=20, predictor=FIT, proposal=FIT, proposals=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with smaller pictures than any encoder takes."""
    path = tmp_path_factory.mktemp("log") / "data"
    collect.collect("pusht", EPISODES, path, steps=50, seed=0, workers=0, image_size=24)
    return path


def imagined(model: WorldModel, store: EpisodeStore) -> torch.Tensor:
    proprio = store.proprio(0)
    assert proprio is not None
    latent = model.encode(torch.from_numpy(store.frames(0)[[0, 5]])[None], torch.from_numpy(proprio[[0, 5]])[None])
    return model.imagine(latent, torch.from_numpy(store.actions(0)[5:15]).reshape(1, 1, 2, 10)).tokens


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames that public encoders encode from now on."""
    seen, real = [0], PublicEncoder.encode

    def counting(self: PublicEncoder, frames: torch.Tensor) -> torch.Tensor:
        seen[0] += frames.shape[0] * frames.shape[1]
        return real(self, frames)

    monkeypatch.setattr(PublicEncoder, "encode", counting)
    return seen


@pytest.mark.parametrize("family", [*FAMILIES, "efficientnet-lite0"])
def test_a_world_model_is_trained_on_it_and_refers_to_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(wm.experiments.encode, "WIDTH", 16)
    monkeypatch.setattr(wm.experiments.encode, "REDUCTION_FRAMES", 16)
    name = family if family == "efficientnet-lite0" else str(write_checkpoint(tmp_path / "tiny", family))
    if family == "efficientnet-lite0":
        _without_its_network(monkeypatch)
    seen, store = counted(monkeypatch), EpisodeStore(data)
    path = train.run(data, name, tmp_path / "run", CONFIG, 0)
    narrow = family not in ("vjepa2", "efficientnet-lite0")
    assert seen[0] == int(store.observation_offsets[-1]) + (0 if narrow else 16)  # each frame once
    model, provenance = load_model(path)
    assert isinstance(model.encoder, PublicEncoder if narrow else ReducedEncoder)
    assert model.spec.encoder.name == name and model.spec.encoder.image_size == 24 and model.spec.encoder.width == 16
    assert provenance["encoder"] == model.spec.encoder.to_json()
    inside = {key for key in load_tensors(path)[0] if key.startswith("encoder.")}
    assert inside == (set() if narrow else {"encoder.centre", "encoder.axes"})
    tokens = imagined(model, store)
    assert tokens.shape == (1, 1, 2, 1, 8) and bool(torch.isfinite(tokens).all())
    report = json.loads((path.parent / "report.json").read_text())
    assert min(report["copy_last"]) > 0 and report["state_std"] > 0


def _without_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientNet's tokens of shrunken pictures: the real network on a thousand frames takes a minute."""
    from wm.encoders.efficientnet_lite import EfficientNetLite

    def tokens(self: EfficientNetLite, pixels: torch.Tensor) -> torch.Tensor:
        network = self.network
        small = network._swish(network._bn0(network._conv_stem(pixels[..., ::8, ::8])))
        return small.flatten(2).transpose(1, 2).repeat(1, 1, 4)[..., :112]

    monkeypatch.setattr(EfficientNetLite, "tokens", tokens)


def test_the_model_finds_its_very_encoder_or_is_refused(data: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", "dinov2")
    path = train.run(data, str(folder), tmp_path / "run", CONFIG, 0)
    expected = imagined(load_model(path)[0], EpisodeStore(data))
    folder.rename(tmp_path / "run" / "tiny")
    assert torch.equal(imagined(load_model(path)[0], EpisodeStore(data)), expected)
    write_checkpoint(folder, "dinov2", seed=1)
    with pytest.raises(MismatchError, match="encoder fingerprint"):
        load_model(path)
    (tmp_path / "run" / "tiny").rename(tmp_path / "elsewhere")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(CheckpointError, match="tiny': expected config.json, .* there is no such folder"):
        load_model(path)


def test_a_public_encoder_is_not_refined(data: Path, tmp_path: Path) -> None:
    path = train.run(data, str(write_checkpoint(tmp_path / "tiny", "ijepa")), tmp_path / "run", CONFIG, 0)
    with pytest.raises(BadInputError, match="expected one of our own to train, a public one stays as it is"):
        refine.run(data, path, tmp_path / "refined", RefineConfig(schedule=FIT), EPISODES)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["wm", "encode", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        command()
    found = capsys.readouterr()
    return int(end.value.code or 0), found.out, found.err


def test_encode_keeps_tokens_that_train_takes_up(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "tiny", "dinov3_vit")
    data = Path(shutil.copytree(data, tmp_path / "data"))  # beside which nothing is cached yet
    code, out, err = run(monkeypatch, capsys, data, "--encoder", folder, "--batch", 7)
    assert code == 0, err
    assert "1,020 frames, 4x4 tokens of 16 numbers; 1,020 frames encoded, " in out and "frames/s" in out
    store, encoder = EpisodeStore(data), load_public(str(folder), 24)
    cache = encode.cache_folder(data, encoder.spec(), EPISODES)
    table = torch.from_file(str(cache / "table.bin"), size=1020 * 16 * 16, dtype=torch.bfloat16).view(1020, 16, 16)
    wanted = encoder.encode(torch.from_numpy(store.frames(3))[None])[0]
    torch.testing.assert_close(table[153:204].float(), wanted, rtol=1e-2, atol=1e-2)
    assert "all encoded before" in run(monkeypatch, capsys, data, "--encoder", folder)[1]
    seen = counted(monkeypatch)
    train.run(data, str(folder), tmp_path / "run", CONFIG, 0)
    assert seen == [0]
    monkeypatch.setattr(wm.experiments.encode, "WIDTH", 8)
    monkeypatch.setattr(wm.experiments.encode, "REDUCTION_FRAMES", 16)
    path = train.run(data, str(folder), tmp_path / "narrow", CONFIG, 0)
    assert seen == [16] and load_model(path)[0].spec.encoder.width == 8


def test_a_stale_cache_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, cache = write_checkpoint(tmp_path / "tiny", "dinov2"), tmp_path / "cache"
    assert run(monkeypatch, capsys, data, "--encoder", folder, "--out", cache, "--episodes", 2)[0] == 0
    kept = (cache / "table.bin").read_bytes()
    write_checkpoint(folder, "dinov2", seed=1)
    code, out, err = run(monkeypatch, capsys, data, "--encoder", folder, "--out", cache, "--episodes", 2)
    assert (code, out) == (2, "") and "cached features of another coding or dataset" in err
    collect.collect("pusht", 2, tmp_path / "other", steps=50, seed=1, workers=0, image_size=24)
    write_checkpoint(folder, "dinov2")
    code, _, err = run(monkeypatch, capsys, tmp_path / "other", "--encoder", folder, "--out", cache)
    assert code == 2 and "cached features of another coding or dataset" in err
    assert (cache / "table.bin").read_bytes() == kept


def test_an_interrupted_encoding_is_continued(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm.datasets.features._COMMIT_EVERY", 2)
    folder, whole = str(write_checkpoint(tmp_path / "tiny", "dinov2")), tmp_path / "whole"
    encode.run(data, folder, whole, 6)
    real, calls = PublicEncoder.encode, []

    def failing(self: PublicEncoder, frames: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, frames)

    monkeypatch.setattr(PublicEncoder, "encode", failing)
    with pytest.raises(KeyboardInterrupt):
        encode.run(data, folder, tmp_path / "halves", 6)
    done = encode.run(data, folder, tmp_path / "halves", 6)
    assert "; 204 frames encoded, " in done  # the last four of six episodes
    found = [np.fromfile(path / "table.bin", np.uint16) for path in (whole, tmp_path / "halves")]
    np.testing.assert_array_equal(*found)


def test_encode_takes_our_own_encoders_too(data: Path, tmp_path: Path) -> None:
    from wm.encoders.registry import build_encoder, save_encoder

    tiny: Any = build_encoder("wm-tiny", 8)
    save_encoder(tiny, tmp_path / "tiny.safetensors", {})
    with pytest.raises(BadInputError, match="'wm-tiny' expects 96x96 pixels, came 24x24"):
        encode.run(data, str(tmp_path / "tiny.safetensors"), tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"none\.safetensors: expected a \.safetensors file, there is none"):
        encode.run(data, str(tmp_path / "none.safetensors"))
    with pytest.raises(BadInputError, match="batch: expected >= 1, came 0"):
        encode.run(data, str(tmp_path / "tiny.safetensors"), batch=0)


def test_a_run_is_one_encoders(data: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", "ijepa")
    train.run(data, str(folder), tmp_path / "run", CONFIG, 0)
    with pytest.raises(MismatchError, match="run folder of another run: encoder"):
        train.run(data, f"{folder}:bf16", tmp_path / "run", CONFIG, 0)
    with pytest.raises(MismatchError, match="run folder of another run: width"):
        train.run(data, str(folder), tmp_path / "run", replace(CONFIG, width=5), 0)
