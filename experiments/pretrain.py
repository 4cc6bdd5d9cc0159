"""`wm pretrain`: train an encoder without labels on a store's frames, then freeze it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

import wm
from wm.datasets.reader import EpisodeStore
from wm.encoders.registry import build_encoder, save_encoder
from wm.errors import BadInputError
from wm.experiments.logs import load_frames, log_windows
from wm.experiments.options import at_least
from wm.experiments.run_folder import claimed
from wm.fit import FitConfig
from wm.pretrain import config_for, pretrain

HORIZON = 2
FRAMESKIP = 5


def run(
    data: Path,
    out: Path,
    *,
    encoder: str,
    width: int,
    episodes: int,
    steps: int,
    batch: int,
    seed: int,
    frameskip: int = FRAMESKIP,
) -> Path:
    """Pretrain and save `<out>/encoder.safetensors`; an interrupted run is continued, a finished one left as it is.

    Raises:
        StoreError: no readable store.
        MismatchError: `out` holds a run of another configuration.
        BadInputError: pictures of another size than the encoder's.
    """
    at_least(0, seed=seed)
    at_least(1, width=width, episodes=episodes, steps=steps, batch=batch, frameskip=frameskip)
    torch.manual_seed(seed)
    model = build_encoder(encoder, width)
    store = EpisodeStore(data)
    if store.spec.image_size != model.image_size:
        raise BadInputError(
            f"{data}: encoder '{encoder}' expects pictures of {model.image_size} px, came {store.spec.image_size} px."
        )
    config, episodes = config_for(store.spec.env.action.segment), min(episodes, len(store))
    made_of = {"encoder": encoder, "token_width": width, "data": store.fingerprint(), "episodes": episodes}
    identity = asdict(config) | made_of | {"steps": steps, "batch": batch, "seed": seed, "frameskip": frameskip}
    path = out / "encoder.safetensors"
    with claimed(out, identity):
        if path.exists():
            return path
        frames = load_frames(store, episodes)
        strokes = config.form == "strokes"
        windows, _ = log_windows(
            store, frames, history=config.history, horizon=HORIZON, frameskip=1 if strokes else frameskip,
            episodes=episodes, raw_actions=strokes,
        )  # fmt: skip
        pretrain(model, windows, config, FitConfig(steps=steps, batch=batch, learning_rate=2e-3, seed=seed), out)
    recipe = {"command": "wm pretrain", "objective": "acjepa", "data": store.spec.recipe, "episodes": episodes}
    recipe |= {"steps": steps, "batch": batch, "seed": seed, "wm": wm.__version__, "torch": torch.__version__}
    save_encoder(model, path, {"provenance": recipe})
    return path


def main(
    data: Annotated[Path, typer.Argument(help="Episode store.")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it is continued.")],
    encoder: Annotated[str, typer.Option(help="Encoder to train.")] = "wm-tiny",
    width: Annotated[int, typer.Option(help="Numbers per token.")] = 64,
    episodes: Annotated[int, typer.Option(help="Use the first episodes only (frames are held in memory).")] = 2500,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 3000,
    batch: Annotated[int, typer.Option(help="Windows per step.")] = 80,
    frameskip: Annotated[int, typer.Option(help="Control steps per latent step (of strokes always 1).")] = FRAMESKIP,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Train an encoder without labels (action-conditioned joint embedding), then freeze it."""
    sizes = {"width": width, "episodes": episodes, "steps": steps, "batch": batch}
    run(data, out, encoder=encoder, seed=seed, frameskip=frameskip, **sizes)
