"""`wm build` chains the stages and can be called again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.experiments.place import runner
from tests.experiments.small_planner import plan_little
from tests.experiments.small_training import TINY, small_training
from wm.datasets.reader import EpisodeStore
from wm.decoder import DECODER_FILE, load_decoder, model_fingerprint
from wm.encoders.base import fingerprint
from wm.encoders.registry import load_encoder
from wm.errors import CheckpointError, MismatchError
from wm.experiments import build
from wm.experiments.worlds import WORLDS, find_world
from wm.model import load_model
from wm.patch_decoder import PatchDecoder

TINY_STROKES = replace(TINY, steps=9, encoder="wm-tiny-fine", draft_steps=0, proposal_steps=0)


@pytest.fixture(scope="module")
def small() -> Iterator[pytest.MonkeyPatch]:
    """See `small_training`."""
    with small_training() as patch:
        yield patch


@pytest.fixture(scope="module")
def pusht(small: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a build with every stage."""
    out = tmp_path_factory.mktemp("pusht")
    assert build.build("pusht", out, TINY, workers=0) == out / "model"
    return out


@pytest.fixture(scope="module")
def chips(small: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a build of strokes that was interrupted in its last stage and called again."""
    out = tmp_path_factory.mktemp("chips")
    with small.context() as patch:
        patch.setattr(build, "decode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build.build("chips", out, TINY_STROKES, workers=0)
    build.build("chips", out, TINY_STROKES, workers=0)
    return out


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def train_again(*_: object) -> None:
    raise AssertionError("trained again")


def test_every_stage_leaves_its_artifact(pusht: Path) -> None:
    folder = pusht / "model"
    model, provenance = load_model(folder / "model.safetensors")
    load_decoder(folder / DECODER_FILE, model_fingerprint(model))
    assert provenance["predictor_steps"] == 4 and (folder / "head.safetensors").exists()
    assert provenance["encoder"]["command"] == "wm refine"  # type: ignore[index]
    report = json.loads((folder / "report.json").read_text())
    assert len(report["error"]) == len(report["copy_last"]) == len(report["latent_steps"])


@pytest.mark.parametrize(("env", "recipe"), [("pusht", TINY), ("chips", TINY_STROKES)])
def test_a_second_call_trains_nothing(
    env: str, recipe: build.Recipe, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = request.getfixturevalue(env)
    monkeypatch.setattr("wm.fit._step", train_again)
    before = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    build.build(env, out, recipe, workers=0)
    assert before == {path: path.read_bytes() for path in out.rglob("*.safetensors")}


def test_a_given_encoder_is_built_on_as_it_is(small: pytest.MonkeyPatch, pusht: Path, tmp_path: Path) -> None:
    given = pusht / "encoder" / "encoder.safetensors"
    recipe = replace(TINY, proposal_steps=0)  # whose draft and refining are left out
    shutil.copytree(pusht / "data", tmp_path / "data")
    build.build("pusht", tmp_path, recipe, workers=0, encoder=given)
    model, provenance = load_model(tmp_path / "model" / "model.safetensors")
    assert fingerprint(model.encoder) == fingerprint(load_encoder(given))
    assert provenance["encoder"]["command"] == "wm pretrain"  # type: ignore[index]
    assert {path.name for path in tmp_path.iterdir()} >= {"data", "model"}
    assert not any((tmp_path / stage).exists() for stage in ("encoder", "draft", "refined"))
    with pytest.raises(CheckpointError, match="expected an encoder, came 'world-model'"):
        build.build("pusht", tmp_path / "none", recipe, workers=0, encoder=tmp_path / "model" / "model.safetensors")
    assert not (tmp_path / "none").exists()


def test_install_puts_the_files_where_shipped_models_live(
    pusht: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ASSETS", tmp_path / "assets")
    shipped = build.install(pusht / "model", "pusht")
    assert {p.name for p in shipped.iterdir()} >= {"model.safetensors", DECODER_FILE, "report.json", "report.png"}
    assert (shipped / "model.safetensors").read_bytes() == (pusht / "model" / "model.safetensors").read_bytes()


def test_a_build_of_strokes_keeps_a_token_for_each_patch(chips: Path) -> None:
    model, provenance = load_model(chips / "model" / "model.safetensors")
    assert (model.spec.form, model.spec.frameskip, model.spec.proposals) == ("strokes", 1, 0)
    assert model.grid is not None and model.spec.tokens == model.grid**2
    assert provenance["encoder"]["command"] == "wm pretrain"  # type: ignore[index]
    assert provenance["data"]["policy"] == "random strokes"  # type: ignore[index]
    decoder = load_decoder(chips / "model" / DECODER_FILE, model_fingerprint(model))
    assert isinstance(decoder, PatchDecoder)
    assert not (chips / "draft").exists() and not (chips / "refined").exists()


def test_a_model_of_strokes_plans(
    chips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_little(monkeypatch)
    task = find_world("chips").sample_tasks(1000, 1)[0]
    Image.fromarray(task.goal_image).save(tmp_path / "goal.png")
    model, goal, out = chips / "model" / "model.safetensors", tmp_path / "goal.png", tmp_path / "plan"
    run = runner(monkeypatch, capsys, "plan", {"env": "chips", "model": model, "goal": goal, "out": out})
    code, text, err = run(budget_steps=2)
    assert code == 0 and "chips: " in text, err
    record = json.loads((out / "plan.json").read_text())
    assert np.array(record["actions"]).shape == (2, 4) and np.abs(record["actions"]).max() <= 1.0
    with Image.open(out / "rollout.gif") as film:
        assert film.width > 800  # what was imagined is shown, too


@pytest.mark.parametrize("recipe", [*build.SHIPPED.values(), build.FOREIGN], ids=[*build.SHIPPED, "foreign"])
def test_recipes_use_what_they_collect_and_train_what_they_name(recipe: build.Recipe) -> None:
    optional = {"draft_steps", "refine_steps", "proposal_steps", "seed", "encoder"}
    assert all(value >= 1 for name, value in asdict(recipe).items() if name not in optional)
    assert recipe.episodes >= 20
    assert min(recipe.draft_steps, recipe.refine_steps, recipe.proposal_steps, recipe.seed) >= 0
    if recipe.draft_steps:
        assert recipe.refine_steps >= 1 and recipe.episodes >= max(recipe.draft_episodes, recipe.refine_episodes)
    assert build.pretrain.build_encoder(recipe.encoder, recipe.token_width).image_size == 96


def test_every_world_of_ours_has_a_recipe_of_its_episodes_length() -> None:
    assert set(build.SHIPPED) == set(WORLDS)
    for name, recipe in build.SHIPPED.items():
        world = find_world(name)
        assert recipe.steps == world.steps
        assert recipe.steps >= (build.train.REPORT_HORIZON + 1) * world.frameskip  # what the held-out report looks at


def test_stores_of_another_recipe_are_not_continued(chips: Path) -> None:
    store = EpisodeStore(chips / "data")
    assert len(store) == 20 and store.spec.recipe["steps"] == 9 and "declaration" not in store.spec.recipe
    with pytest.raises(MismatchError, match=r"spec\.recipe\.steps: expected 9, came 10"):
        build.build("chips", chips, replace(TINY_STROKES, steps=10), workers=0)
