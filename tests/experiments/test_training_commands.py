"""`wm collect`, `wm pretrain` and `wm train`, from nothing to a model that plans can be made with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from wm.checkpoint import load_tensors
from wm.datasets.reader import EpisodeStore
from wm.encoders.registry import load_encoder
from wm.errors import BadInputError, MismatchError, StoreError, UnknownNameError
from wm.experiments import build, cli, collect, logs, pretrain, refine, train
from wm.experiments.run_folder import claim
from wm.fit import FitConfig
from wm.model import load_model
from wm.refine import OPTIONS, RefineConfig
from wm.train import TrainConfig

EPISODES, STEPS = 22, 60
FIT = FitConfig(steps=40, batch=32, learning_rate=3e-3, warmup=5, log_every=5, checkpoint_every=10)
CONFIG = TrainConfig(
    width=12, hidden=32, depth=1, pairs=3000, components=60, predictor=replace(FIT, steps=80), proposal=FIT
)


def invoke(main: Callable[..., None], *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def log_of(path: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [float(value)]


@dataclass(frozen=True)
class Made:
    data: Path
    encoder: Path
    model: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tiny store, encoder and model."""
    folder = tmp_path_factory.mktemp("made")
    data = folder / "data"
    invoke(collect.main, "--out", data, "--episodes", EPISODES, "--steps", STEPS, "--workers", 0)
    invoke(pretrain.main, data, "--out", folder / "encoder", "--width", 8, "--episodes", 6, "--steps", 3, "--batch", 4)
    encoder = folder / "encoder" / "encoder.safetensors"
    return Made(data, encoder, train.run(data, encoder, folder / "model", CONFIG, 0))


def test_collect_records_what_was_asked_for(made: Made) -> None:
    store = EpisodeStore(made.data)
    assert len(store) == EPISODES and (store.lengths == STEPS).all() and store.spec.image_size == 96
    assert store.spec.recipe["policy"] == "block-seeking" and store.spec.recipe["seed"] == 0
    assert len(set(store.seeds().tolist())) == EPISODES
    store.verify()


def test_collect_continues_to_the_same_store_and_seeds_differ(tmp_path: Path) -> None:
    def run(name: str, episodes: int, seed: int = 0) -> str:
        collect.collect("pusht", episodes, tmp_path / name, steps=5, seed=seed, workers=0, image_size=32)
        return EpisodeStore(tmp_path / name).fingerprint()

    whole = run("whole", 4)
    assert run("halves", 2) != whole
    assert run("halves", 4) == whole and run("halves", 4) == whole
    assert run("other", 4, seed=1) != whole
    with pytest.raises(MismatchError, match=r"made with another spec\.recipe\.seed: expected 0, came 1"):
        run("whole", 5, seed=1)


def test_collect_refuses_bad_requests(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 5, "seed": 0, "workers": 0, "image_size": 32}
    with pytest.raises(UnknownNameError, match="unknown environment 'push'. Did you mean 'pusht'?"):
        collect.collect("push", 1, tmp_path / "a", **settings)
    with pytest.raises(BadInputError, match="expected episodes, steps >= 1, workers >= 0, came 0, 5, 0"):
        collect.collect("pusht", 0, tmp_path / "a", **settings)
    (tmp_path / "a").touch()
    with pytest.raises(StoreError, match="/a: expected "):
        collect.collect("pusht", 1, tmp_path / "a", **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_windows_are_split_by_episode(made: Made) -> None:
    store = EpisodeStore(made.data)
    frames = logs.load_frames(store, 3)
    np.testing.assert_array_equal(frames[61:122], store.frames(1))
    rows = np.arange(store.observation_offsets[-1])[:, None].astype(np.float32)
    kept, held = logs.log_windows(store, rows, history=2, horizon=3, frameskip=5)
    seen = [{int(e) for e in windows.sampler.sample(np.random.default_rng(0), 500)[0]} for windows in (kept, held)]
    assert not seen[0] & seen[1] and seen[0] | seen[1] == set(range(EPISODES)) and 1 <= len(seen[1]) <= 8
    few, _ = logs.log_windows(store, frames, history=2, horizon=3, frameskip=5, episodes=3)
    assert max(few.sampler.sample(np.random.default_rng(0), 200)[0]) <= 2
    assert torch.equal(few.action_moments.mean, kept.action_moments.mean)


def test_pretraining_writes_a_frozen_encoder(made: Made) -> None:
    encoder, header = load_encoder(made.encoder), load_tensors(made.encoder)[1]
    assert encoder.width == 8 and not encoder.training
    assert header["provenance"]["steps"] == 3 and header["provenance"]["data"]["policy"] == "block-seeking"
    assert log_of(made.encoder.parent / "pretrain.jsonl")[-1]["step"] == 3


def test_pretraining_refuses_what_does_not_fit(made: Made, tmp_path: Path) -> None:
    collect.collect("pusht", 2, tmp_path / "small", steps=30, seed=0, workers=0, image_size=32)
    settings: dict[str, Any] = {"width": 8, "episodes": 6, "batch": 4, "seed": 0}
    with pytest.raises(BadInputError, match="'wm-tiny' expects pictures of 96 px, came 32 px"):
        pretrain.run(tmp_path / "small", tmp_path / "out", encoder="wm-tiny", steps=1, **settings)
    with pytest.raises(UnknownNameError, match="unknown encoder 'tiny'"):
        pretrain.run(made.data, tmp_path / "out", encoder="tiny", steps=1, **settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(MismatchError, match="run folder of another run: steps in .*: expected 3, came 4"):
        pretrain.run(made.data, made.encoder.parent, encoder="wm-tiny", steps=4, **settings)


def test_refused_run_leaves_nothing_behind(tmp_path: Path) -> None:
    collect.collect("pusht", 2, tmp_path / "short", steps=5, seed=0, workers=0, image_size=96)
    out = tmp_path / "runs" / "new"
    with pytest.raises(BadInputError, match="expected an episode of at least"):
        pretrain.run(tmp_path / "short", out, encoder="wm-tiny", width=8, episodes=2, steps=1, batch=2, seed=0)
    assert not out.parent.exists()


def test_training_learns_and_reports(made: Made) -> None:
    folder = made.model.parent
    predictor, head = log_of(folder / "predictor.jsonl"), load_tensors(folder / "head.safetensors")[1]
    assert len(head["slowness"]) == 12 and head["slowness"][0] < head["slowness"][-1] < 2
    assert min(head["visible"][:2]) > max(head["visible"][2:])  # places are visible, velocities are not
    assert predictor[-1]["share_of_copy"] < 0.9 * predictor[0]["share_of_copy"] and predictor[-1]["step"] == 80
    report = json.loads((folder / "report.json").read_text())
    assert report["latent_steps"] == list(range(1, 9)) and all(map(math.isfinite, numbers(report)))
    for key in ("error", "copy_last", "share_of_copy"):
        assert len(report[key]) == 8 and min(report[key]) > 0
    shares = [e / c for e, c in zip(report["error"], report["copy_last"], strict=True)]
    assert report["share_of_copy"] == pytest.approx(shares)
    assert set(report["probe"]) == {"agent_x", "agent_y", "block_x", "block_y", "cos(block_angle)", "sin(block_angle)"}
    assert all(figures["r2"] <= 1 and figures["rmse"] > 0 for figures in report["probe"].values())
    picture = np.asarray(Image.open(folder / "report.png").convert("RGB"))
    assert picture.shape[1] > 800 and picture.std() > 10


def test_the_model_file_works_alone(made: Made) -> None:
    model, provenance = load_model(made.model)
    store = EpisodeStore(made.data)
    assert model.spec.env == store.spec.env and model.spec.encoder == load_encoder(made.encoder).spec()
    assert provenance["data"]["fingerprint"] == store.fingerprint()  # type: ignore[index]
    proprio = store.proprio(0)
    assert proprio is not None
    latent = model.encode(torch.from_numpy(store.frames(0)[[0, 5]])[None], torch.from_numpy(proprio[[0, 5]])[None])
    actions = torch.from_numpy(store.actions(0)[5:15]).reshape(1, 1, 2, 10)
    imagined = model.imagine(latent, actions)
    assert imagined.proprio is not None
    error = np.abs(imagined.proprio[0, 0, :, :2].numpy() - proprio[[10, 15], :2])
    assert error.max() < 150.0 and model.unfamiliarity(torch.from_numpy(store.frames(1))[None]).median() < 1.5
    noise = torch.randint(0, 256, (1, 1, 96, 96, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert model.unfamiliarity(noise) > 1.5


def test_a_rerun_trains_nothing_and_gives_the_same_model(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(*_: object) -> None:
        raise AssertionError("trained again")

    before, header = load_tensors(made.model)
    report = (made.model.parent / "report.json").read_text()
    monkeypatch.setattr("wm.fit._step", boom)
    monkeypatch.setattr("wm.encoders.tiny.TinyEncoder.forward", boom)  # nor is any frame encoded again
    train.run(made.data, made.encoder, made.model.parent, CONFIG, 0)
    after, header_after = load_tensors(made.model)
    assert header == header_after and before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (made.model.parent / "report.json").read_text() == report


def test_an_interrupted_run_ends_in_the_same_model(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wm.fit
    import wm.train

    real, taken = wm.fit._step, []
    fit_head, fitted = wm.train.fit_state_head, []

    def failing(*arguments: Any) -> dict[str, float]:
        taken.append(1)
        if len(taken) in (26, 60):
            raise KeyboardInterrupt
        return real(*arguments)

    def counting(*arguments: Any) -> Any:
        fitted.append(1)
        if len(fitted) == 1:
            raise KeyboardInterrupt
        return fit_head(*arguments)

    monkeypatch.setattr("wm.fit._step", failing)
    monkeypatch.setattr("wm.train.fit_state_head", counting)
    for _ in range(3):  # once in the head, twice in the predictor
        with pytest.raises(KeyboardInterrupt):
            train.run(made.data, made.encoder, tmp_path, CONFIG, 0)
    path = train.run(made.data, made.encoder, tmp_path, CONFIG, 0)
    whole, halves = load_tensors(made.model), load_tensors(path)
    assert whole[1] == halves[1] and all(torch.equal(t, halves[0][name]) for name, t in whole[0].items())
    assert len(fitted) == 2 and log_of(tmp_path / "predictor.jsonl") == log_of(made.model.parent / "predictor.jsonl")


def test_training_refuses_what_does_not_fit(made: Made, tmp_path: Path) -> None:
    collect.collect("pusht", 2, tmp_path / "few", steps=5, seed=0, workers=0, image_size=32)
    with pytest.raises(BadInputError, match="expected at least 20 episodes to train on, came 2"):
        train.run(tmp_path / "few", made.encoder, tmp_path / "out", CONFIG, 0)
    with pytest.raises(MismatchError, match="run folder of another run: components in .*: expected 60, came 50"):
        train.run(made.data, made.encoder, made.model.parent, replace(CONFIG, components=50), 0)
    with pytest.raises(MismatchError, match="run folder of another run: seed in .*: expected 0, came 1"):
        train.run(made.data, made.encoder, made.model.parent, CONFIG, 1)
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInputError, match=r"expected at least 192 pairs .*\(2 for each of 96 features\), came 100"):
        train.run(made.data, made.encoder, tmp_path / "out", replace(CONFIG, pairs=100), 0)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_train_command_says_where_things_are(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "TrainConfig", lambda **changes: replace(CONFIG, **changes))
    steps = ["--steps", 2, "--width", 8, "--hidden", 16, "--depth", 1, "--adversarial", 0.05]
    result = invoke(train.main, made.data, "--encoder", made.encoder, "--out", tmp_path / "out", *steps)
    assert result.stdout.startswith(f"{tmp_path / 'out' / 'model.safetensors'}: trained; report in ")
    assert len(result.stdout.splitlines()) == 1
    model, provenance = load_model(tmp_path / "out" / "model.safetensors")
    assert model.spec.hidden == 16 and provenance["adversarial"] == 0.05
    assert json.loads((tmp_path / "out" / "config.json").read_text())["adversarial"] == 0.05


def test_a_run_folder_belongs_to_one_configuration(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    claim(out, {"steps": 3, "sizes": (1, 2)})
    claim(out, {"steps": 3, "sizes": [1, 2]})
    with pytest.raises(MismatchError, match=r"run folder of another run: steps in .*config.json: expected 3, came 4\."):
        claim(out, {"steps": 4, "sizes": [1, 2]})
    with pytest.raises(MismatchError, match="another run: extra in .*: expected None, came 1"):
        claim(out, {"steps": 3, "sizes": [1, 2], "extra": 1})
    (out / "config.json").write_text("{")
    with pytest.raises(BadInputError, match="config.json: expected the configuration of a run, it cannot be read"):
        claim(out, {"steps": 3})


def test_numbers_out_of_range_are_refused_before_anything_is_written(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = RefineConfig(schedule=FIT)
    with pytest.raises(BadInputError, match="episodes: expected >= 1, came -5"):
        refine.run(made.data, made.model, out, settings, -5)
    with pytest.raises(BadInputError, match="episodes: expected >= 1, came 0"):
        train.run(made.data, made.encoder, out, replace(CONFIG, episodes=0), 0)
    with pytest.raises(BadInputError, match="seed: expected >= 0, came -1"):
        train.run(made.data, made.encoder, out, CONFIG, -1)
    with pytest.raises(BadInputError, match="seed: expected >= 0, came -1"):
        collect.collect("pusht", 1, out, steps=5, seed=-1, workers=0, image_size=32)
    with pytest.raises(UnknownNameError, match="unknown environment 'foo'"):
        build.main(out, env="foo")
    assert not out.exists()


def test_training_on_a_model_of_other_sizes_or_another_world_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"refined head in .*: expected \(1, 24\), came \(1, 16\)"):
        train.run(made.data, made.model, tmp_path / "out", replace(CONFIG, width=20), 0)
    model, _ = load_model(made.model)
    model.spec = replace(model.spec, env=replace(model.spec.env, env="chips"))
    model.save(tmp_path / "chips.safetensors", {})
    with pytest.raises(MismatchError, match="model of another world than the data"):
        train.run(made.data, tmp_path / "chips.safetensors", tmp_path / "out", CONFIG, 0)
    assert not (tmp_path / "out").exists()


def test_a_refined_model_is_trained_on_with_its_own_head(made: Made, tmp_path: Path) -> None:
    schedule = replace(FIT, steps=2, batch=4)
    refined = refine.run(made.data, made.model, tmp_path / "refined", RefineConfig(schedule=schedule), 22)
    settings = json.loads((tmp_path / "refined" / "config.json").read_text())
    assert settings.keys().isdisjoint(OPTIONS)  # as in folders from before there were any
    spec = load_model(refined)[0].spec
    assert spec.proposals == 0 and spec.encoder != load_encoder(made.encoder).spec()
    path = train.run(made.data, refined, tmp_path / "model", replace(CONFIG, predictor=schedule, proposal=schedule), 0)
    model, provenance = load_model(path)
    assert model.spec.encoder == spec.encoder and model.spec.proposals == CONFIG.proposals
    assert provenance["encoder"]["command"] == "wm refine"  # type: ignore[index]
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    assert "adversarial" not in settings and "adversarial" not in provenance


def test_weights_of_optional_terms_are_recorded(made: Made, tmp_path: Path) -> None:
    weights = {"straightening": 0.5, "inverse": 0.25}
    config = RefineConfig(schedule=FitConfig(steps=2, batch=4), **weights)
    refined = refine.run(made.data, made.model, tmp_path, config, 22)
    recipe, settings = load_model(refined)[1], json.loads((tmp_path / "config.json").read_text())
    assert recipe | weights == recipe and settings | weights == settings
    assert not any("inverse" in name for name in load_tensors(refined)[0])
    assert refine.run(made.data, made.model, tmp_path, config, 22) == refined
    with pytest.raises(MismatchError, match="run folder of another run: inverse in .*: expected 0.25, came None"):
        refine.run(made.data, made.model, tmp_path, replace(config, inverse=0.0), 22)


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
@pytest.mark.parametrize("option", ["--straightening", "--inverse", "--adversarial"])
def test_an_option_out_of_range_is_refused_in_one_line(
    option: str,
    value: str,
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["train", made.data, "--encoder", made.encoder]
    if option != "--adversarial":
        command = ["refine", made.data, "--model", made.model]
    monkeypatch.setattr("sys.argv", ["wm", *map(str, command), "--out", str(tmp_path / "out"), option, value])
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    wanted = f"wm: error: {option[2:]}: expected a finite number >= 0, came {float(value)}."
    assert end.value.code == 2 and lines == [wanted] and not (tmp_path / "out").exists()
