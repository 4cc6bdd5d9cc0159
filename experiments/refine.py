"""`wm refine`: train an encoder on, so that the states of a model on it become predictable; then freeze it again."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

import wm
from wm.datasets.reader import EpisodeStore
from wm.encoders.base import fingerprint
from wm.experiments.logs import load_frames, log_windows, random_rows
from wm.experiments.options import at_least
from wm.experiments.run_folder import claimed
from wm.model import BANK, WorldModel, load_model
from wm.refine import OPTIONS, RefineConfig, refine
from wm.specs import require_equal
from wm.train import states_of


def run(data: Path, model_path: Path, out: Path, config: RefineConfig, episodes: int) -> Path:
    """Refine the encoder and the head of a model, save `<out>/model.safetensors`.

    An interrupted run is continued, a finished one left as it is.

    Raises:
        StoreError, CheckpointError: data or model cannot be read.
        BadInputError: a number is out of its range.
        MismatchError: the model is of another world than the data, or `out` holds another run.
    """
    at_least(1, episodes=episodes, steps=config.schedule.steps)
    at_least(0, seed=config.schedule.seed)
    options = config.options()
    store, (model, provenance) = EpisodeStore(data), load_model(model_path)
    require_equal("model of another world than the data", store.spec.env, model.spec.env, model_path)
    episodes = min(episodes, len(store))
    settings = {name: value for name, value in asdict(config).items() if name not in OPTIONS}
    identity = settings | options | {"data": store.fingerprint(), "model": fingerprint(model), "episodes": episodes}
    path = out / "model.safetensors"
    with claimed(out, identity):
        if path.exists():
            return path
        frames = load_frames(store, episodes)
        states = frame_states(model, frames)
        windows, held_out = log_windows(
            store, frames, history=model.spec.history, horizon=config.horizon, frameskip=model.spec.frameskip,
            episodes=episodes,
        )  # fmt: skip
        torch.manual_seed(config.schedule.seed)
        refine(model.encoder, model.joint, windows, states, config, out)
    model.spec, model.proposal = replace(model.spec, encoder=model.encoder.spec(), proposals=0), None
    states = frame_states(model, frames)
    model.remember(states[random_rows(windows, BANK * 4)], states[random_rows(held_out, 8192)])
    recipe = {"command": "wm refine", "data": store.spec.recipe, "episodes": episodes, "anchor": config.anchor}
    recipe |= {"steps": config.schedule.steps, "batch": config.schedule.batch, "seed": config.schedule.seed}
    model.save(path, recipe | options | {"draft": provenance, "wm": wm.__version__, "torch": torch.__version__})
    return path


def frame_states(model: WorldModel, frames: np.ndarray, batch: int = 256) -> Tensor:
    """States ``(O, N * D)`` of frames ``(O, H, W, 3)`` uint8."""
    parts = [torch.from_numpy(frames[i : i + batch]) for i in range(0, len(frames), batch)]
    return torch.cat([states_of(model.encoder, model.joint.head, part) for part in parts])


def main(
    data: Annotated[Path, typer.Argument(help="Episode store.")],
    model: Annotated[Path, typer.Option(help="Model of `wm train` whose encoder is refined.")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it is continued.")],
    episodes: Annotated[int, typer.Option(help="Use the first episodes only (frames are held in memory).")] = 3000,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 3000,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    straightening: Annotated[
        float, typer.Option(metavar="W", help="Weight of straightening the state's way through time; 0: without.")
    ] = 0.0,
    inverse: Annotated[
        float, typer.Option(metavar="W", help="Weight of telling the action from two states; 0: without.")
    ] = 0.0,
) -> None:
    """Refine a model's encoder and head: the states that they see become predictable. `wm train` builds on it."""
    config = RefineConfig(straightening=straightening, inverse=inverse)
    config = replace(config, schedule=replace(config.schedule, steps=steps, seed=seed))
    path = run(data, model, out, config, episodes)
    print(f"{path}: refined; `wm train {data} --encoder {path}` builds on it.")
