"""`wm build`: make a shipped model again from nothing (collect, pretrain, refine, train, decoder)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wm.datasets.reader import EpisodeStore
from wm.decoder import DECODER_FILE, load_decoder, model_fingerprint, save_decoder, train_decoder
from wm.errors import UnknownNameError
from wm.experiments import collect, pretrain, refine, train
from wm.experiments.assemble import ASSETS
from wm.experiments.logs import load_frames
from wm.experiments.refine import RefineConfig, frame_states
from wm.fit import FitConfig
from wm.model import load_model
from wm.train import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """How much of everything a model is made of.

    Attributes:
        episodes: Logged episodes of `steps` control steps.
        steps: Control steps per episode.
        pretrain_episodes: The first of them, whose frames train the encoder without labels.
        pretrain_steps: Optimiser steps of that.
        draft_episodes: The first of them, which train the predictor of the draft model.
        draft_steps: Optimiser steps of that.
        refine_episodes: The first of them, whose frames train encoder, head and draft predictor on together.
        refine_steps: Optimiser steps of that.
        predictor_steps: Optimiser steps of the predictor.
        proposal_steps: Optimiser steps of the proposal.
        decoder_steps: Optimiser steps of the decoder (only for looking).
        seed: Of all of them.
    """

    episodes: int = 40_000
    steps: int = 100
    pretrain_episodes: int = 2500
    pretrain_steps: int = 3000
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

SHIPPED = {"pusht": Recipe()}
"""The recipe of each shipped model."""


def build(env: str, out: Path, recipe: Recipe, workers: int) -> Path:
    """Make a model; every stage continues where an interrupted run stopped.

    Returns:
        Folder with `model.safetensors`, `decoder.safetensors` and the held-out report.
    """
    console, seed = Console(stderr=True), recipe.seed
    data = out / "data"
    console.rule("1/6 collect")
    collect.collect(env, recipe.episodes, data, steps=recipe.steps, seed=seed, workers=workers, image_size=96)
    console.rule("2/6 pretrain the encoder")
    first = pretrain.run(
        data, out / "encoder", encoder="wm-tiny", width=64, episodes=recipe.pretrain_episodes,
        steps=recipe.pretrain_steps, batch=80, seed=seed,
    )  # fmt: skip
    console.rule("3/6 train a draft of the world model")
    draft = train.run(data, first, out / "draft", _draft(recipe), seed)
    console.rule("4/6 refine the encoder")
    refining = RefineConfig()
    refining = replace(refining, schedule=replace(refining.schedule, steps=recipe.refine_steps, seed=seed))
    encoder = refine.run(data, draft, out / "refined", refining, recipe.refine_episodes)
    console.rule("5/6 train the world model")
    path = train.run(data, encoder, out / "model", _final(recipe), seed)
    console.rule("6/6 train the decoder (only for looking)")
    decode(data, path, recipe)
    return path.parent


def _draft(recipe: Recipe) -> TrainConfig:
    """It plans nothing, and so needs no proposal."""
    config = TrainConfig(episodes=recipe.draft_episodes, proposals=0)
    return train.scheduled(config, recipe.draft_steps, recipe.seed)


def _final(recipe: Recipe) -> TrainConfig:
    config = train.scheduled(TrainConfig(), recipe.predictor_steps, recipe.seed)
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
    decoder = train_decoder(states, frames, config, model_path.parent)
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
    ship: Annotated[bool, typer.Option(help="Also install the result as the shipped model.")] = False,
) -> None:
    """Make a shipped model again from nothing: collect, pretrain, refine, train, decoder."""
    if env not in SHIPPED:
        raise UnknownNameError("environment", env, SHIPPED)
    folder = build(env, out, SHIPPED[env], workers)
    print(f"{folder}: built; `wm eval --model {folder / 'model.safetensors'}` measures it.")
    if ship:
        print(f"{install(folder, env)}: installed.")
