"""`wm build`: make a shipped model again from nothing (collect, pretrain, refine, train, decoder)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wm.datasets.reader import EpisodeStore
from wm.decoder import DECODER_FILE, Decoder, load_decoder, model_fingerprint, save_decoder, train_decoder
from wm.encoders.registry import load_encoder
from wm.errors import UnknownNameError
from wm.experiments import collect, pretrain, refine, train
from wm.experiments.assemble import ASSETS
from wm.experiments.logs import load_frames
from wm.experiments.refine import RefineConfig, frame_states
from wm.experiments.worlds import find_world
from wm.fit import FitConfig
from wm.model import load_model
from wm.patch_decoder import PatchDecoder, train_patch_decoder
from wm.train import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """How much of everything a model is made of.

    Attributes:
        episodes: Logged episodes of `steps` control steps.
        steps: Control steps per episode.
        encoder: Which of our encoders is trained.
        token_width: Numbers in its tokens.
        pretrain_episodes: The first of them, whose frames train the encoder without labels.
        pretrain_steps: Optimiser steps of that.
        pretrain_batch: Windows per step.
        draft_episodes: The first of them, which train the predictor of the draft model.
        draft_steps: Optimiser steps of that; 0: there is no draft, and the encoder is not refined.
        refine_episodes: The first of them, whose frames train encoder, head and draft predictor on together.
        refine_steps: Optimiser steps of that.
        predictor_steps: Optimiser steps of the predictor.
        proposal_steps: Optimiser steps of the proposal; 0: the model has none.
        decoder_steps: Optimiser steps of the decoder (only for looking).
        seed: Of all of them.
    """

    episodes: int = 40_000
    steps: int = 100
    encoder: str = "wm-tiny"
    token_width: int = 64
    pretrain_episodes: int = 2500
    pretrain_steps: int = 3000
    pretrain_batch: int = 80
    draft_episodes: int = 5000
    draft_steps: int = 4000
    refine_episodes: int = 3000
    refine_steps: int = 4500
    predictor_steps: int = 20_000
    proposal_steps: int = 6000
    decoder_steps: int = 4000
    seed: int = 0


DECODER_EPISODES = 600
"""Episodes whose frames train the decoder."""

_ARM = Recipe(
    episodes=2500, steps=60, pretrain_steps=1500, draft_steps=0, predictor_steps=3500, proposal_steps=2500,
    decoder_steps=1500,
)  # fmt: skip

SHIPPED = {
    "pusht": Recipe(),
    "chips": Recipe(
        episodes=8000, steps=20, encoder="wm-tiny-fine", token_width=16, pretrain_episodes=2000, pretrain_steps=2500,
        pretrain_batch=64, draft_steps=0, predictor_steps=10_000, proposal_steps=0, decoder_steps=1500,
    ),
    "arm-push": _ARM,
    "arm-reach": replace(
        _ARM, episodes=1200, pretrain_episodes=1200, pretrain_steps=3000, predictor_steps=2500
    ),
}  # fmt: skip
"""The recipe of each shipped model."""

FOREIGN = Recipe(
    episodes=1000, pretrain_episodes=1000, pretrain_steps=1000, draft_steps=0, predictor_steps=3000,
    proposal_steps=1500, decoder_steps=1000,
)  # fmt: skip
"""The recipe of any other world: small, about half an hour on two cores; the encoder is not refined."""


def build(env: str, out: Path, recipe: Recipe, workers: int, encoder: Path | None = None) -> Path:
    """Make a model; every stage continues where an interrupted run stopped.

    Args:
        env: Its world.
        out: Folder of everything that is made.
        recipe: How much of everything.
        workers: Processes that collect.
        encoder: A file of `wm pretrain` to build on as it is, so that one encoder serves several worlds; None: one of
            this world's own is pretrained, and refined if the recipe says so.

    Returns:
        Folder with `model.safetensors`, `decoder.safetensors` and the held-out report.

    Raises:
        CheckpointError: `encoder` cannot be read, or is none; before anything is collected.
    """
    console, seed, data, refined = Console(stderr=True), recipe.seed, out / "data", encoder is None
    if encoder is not None:
        load_encoder(encoder)
    console.rule("1/6 collect")
    collect.collect(env, recipe.episodes, data, steps=recipe.steps, seed=seed, workers=workers, image_size=96)
    if encoder is None:
        console.rule("2/6 pretrain the encoder")
        encoder = pretrain.run(
            data, out / "encoder", encoder=recipe.encoder, width=recipe.token_width, episodes=recipe.pretrain_episodes,
            steps=recipe.pretrain_steps, batch=recipe.pretrain_batch, seed=seed, frameskip=find_world(env).frameskip,
        )  # fmt: skip
    config = _config(env, data, recipe)
    if recipe.draft_steps and refined:
        console.rule("3/6 train a draft of the world model")
        draft = replace(config, episodes=recipe.draft_episodes, proposals=0)  # it plans nothing
        first = train.run(data, encoder, out / "draft", train.scheduled(draft, recipe.draft_steps, seed), seed)
        console.rule("4/6 refine the encoder")
        refining = RefineConfig()
        refining = replace(refining, schedule=replace(refining.schedule, steps=recipe.refine_steps, seed=seed))
        encoder = refine.run(data, first, out / "refined", refining, recipe.refine_episodes)
    console.rule("5/6 train the world model")
    path = train.run(data, encoder, out / "model", config, seed)
    console.rule("6/6 train the decoder (only for looking)")
    decode(data, path, recipe)
    return path.parent


def _config(env: str, data: Path, recipe: Recipe) -> TrainConfig:
    """Of the final model: the form follows from the world's actions."""
    config = train.config_for(EpisodeStore(data).spec.env)
    if config.form != "strokes":
        config = replace(config, frameskip=find_world(env).frameskip)
    config = train.scheduled(config, recipe.predictor_steps, recipe.seed)
    if recipe.proposal_steps == 0:
        return replace(config, proposals=0)
    return replace(config, proposal=replace(config.proposal, steps=recipe.proposal_steps))


def decode(data: Path, model_path: Path, recipe: Recipe) -> None:
    """Train the decoder of a model on some of a store's frames and write it beside it, unless its own is there."""
    store, (model, _) = EpisodeStore(data), load_model(model_path)
    target = model_path.parent / DECODER_FILE
    if target.exists():
        load_decoder(target, model_fingerprint(model))
        return
    frames = load_frames(store, min(DECODER_EPISODES, len(store)))
    states = frame_states(model, frames).unflatten(1, (model.spec.tokens, model.spec.width))
    config = FitConfig(steps=recipe.decoder_steps, batch=192, learning_rate=3e-3, seed=recipe.seed)
    decoder: Decoder | PatchDecoder
    if model.grid is None:
        decoder = train_decoder(states, frames, config, model_path.parent)
    else:
        decoder = train_patch_decoder(states, frames, replace(config, batch=64), model_path.parent)
    provenance = {"command": "wm build", "data": store.spec.recipe, "steps": recipe.decoder_steps, "seed": recipe.seed}
    save_decoder(decoder, target, model_fingerprint(model), provenance)


def install(model: Path, env: str) -> Path:
    """Copy a built model to where shipped models live."""
    target = ASSETS / env
    target.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", DECODER_FILE, "report.json", "report.png"):
        shutil.copyfile(model / name, target / name)
    return target


def main(
    out: Annotated[Path, typer.Option(help="Folder of everything that is made; an interrupted build is continued.")],
    env: Annotated[str, typer.Option(help="Environment.")] = "pusht",
    workers: Annotated[int, typer.Option(help="Processes that collect.")] = 2,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Encoder of `wm pretrain` to build on as it is; else one is made."),
    ] = None,
    ship: Annotated[bool, typer.Option(help="Also install the result as the shipped model.")] = False,
) -> None:
    """Make a model from nothing: collect, pretrain, refine, train, decoder; a shipped one by its own recipe."""
    world = find_world(env)
    if ship and world.name not in SHIPPED:
        raise UnknownNameError("shipped model", env, SHIPPED)
    folder = build(env, out, SHIPPED.get(world.name, FOREIGN), workers, encoder)
    print(f"{folder}: built; `wm eval --env {env} --model {folder / 'model.safetensors'}` measures it.")
    if ship:
        print(f"{install(folder, world.name)}: installed.")
