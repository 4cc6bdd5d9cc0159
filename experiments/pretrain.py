"""`wm pretrain`: train an encoder without labels on frames, by one of many objectives, then freeze it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import wm
from wm.datasets.reader import EpisodeStore
from wm.encoders.registry import build_encoder, save_encoder
from wm.errors import BadInputError
from wm.experiments.atomic import write_files, write_json
from wm.experiments.options import at_least
from wm.experiments.pictures import PictureFolder
from wm.experiments.pretrain_data import (
    Sampling,
    identity_of,
    of_pictures,
    of_stores,
    open_data,
    provenance_of,
    require_single,
)
from wm.experiments.report.pretraining import pretraining_png
from wm.experiments.run_folder import CONFIG_FILE, claimed
from wm.fit import FitConfig
from wm.objectives import OBJECTIVES, find_objective
from wm.objectives.acjepa import AcjepaConfig, WorldsConfig, config_for
from wm.objectives.base import ObjectiveConfig
from wm.objectives.monitors import collapse
from wm.objectives.multiview import MultiViewConfig
from wm.pretrain import NAME, pretrain
from wm.specs import require_equal

FRAMESKIP = 5
MONITORS_FILE = "monitors.json"


def run(
    data: Path | Sequence[Path],
    out: Path,
    *,
    encoder: str,
    width: int,
    episodes: int,
    steps: int,
    batch: int,
    seed: int,
    frameskip: int = FRAMESKIP,
    objective: str = AcjepaConfig.name,
    regularised: bool = True,
    positive: int = 0,
    light: bool = False,
) -> Path:
    """Pretrain and save `<out>/encoder.safetensors`; an interrupted run is continued, a finished one left as it is.

    `data` is a folder of pictures, or one or several episode stores; of several, a batch has as many samples of each,
    and their worlds may differ.

    Beside it are `pretrain.jsonl` (losses and monitors), `monitors.json` (the monitors in the end, and whether the
    features have collapsed) and `pretrain.png`.

    Raises:
        StoreError: no readable store.
        MismatchError: `out` holds a run of another configuration.
        UnknownNameError: no such encoder or objective.
        BadInputError: a number out of its range, or data that the encoder or the objective cannot take.
    """
    paths = [data] if isinstance(data, Path) else list(data)
    at_least(0, seed=seed, positive=positive)
    at_least(1, width=width, episodes=episodes, steps=steps, batch=batch, frameskip=frameskip)
    if not 1 <= len(paths) <= batch:
        raise BadInputError(f"batch: expected a sample or more of each of {len(paths)} stores, came {batch}.")
    chosen = find_objective(objective)
    torch.manual_seed(seed)
    model = build_encoder(encoder, width)
    found, sampling = open_data(paths, model, chosen), Sampling(episodes, frameskip, positive)
    config = _config(chosen, found, paths[0], positive, light, regularised)
    made_of = {"encoder": encoder, "token_width": width} | identity_of(found, sampling)
    identity = config.identity() | made_of | {"steps": steps, "batch": batch, "seed": seed, "frameskip": frameskip}
    path, schedule = out / "encoder.safetensors", FitConfig(steps, batch, learning_rate=config.rate, seed=seed)
    _require_same_objective(out, objective)
    with claimed(out, identity):
        if path.exists():
            return path
        parts = of_pictures(found) if isinstance(found, PictureFolder) else of_stores(found, config, sampling)
        figures = pretrain(model, parts.source, config, schedule, out, parts.watched)
    _report(out, objective, figures)
    recipe = {"command": "wm pretrain", "objective": objective} | provenance_of(found, sampling)
    recipe |= {"steps": steps, "batch": batch, "seed": seed, "wm": wm.__version__, "torch": torch.__version__}
    if light:
        recipe |= {"light": True}
    if not regularised:
        recipe |= {"regularised": False}
    save_encoder(model, path, {"provenance": recipe})
    return path


def _config(
    chosen: type[ObjectiveConfig],
    found: Sequence[EpisodeStore] | PictureFolder,
    data: Path,
    positive: int,
    light: bool,
    regularised: bool,
) -> ObjectiveConfig:
    """The objective's settings for this data."""
    config = chosen()
    if isinstance(config, AcjepaConfig) and not isinstance(found, PictureFolder):
        worlds = tuple(config_for(store.spec.env.action.segment) for store in found)
        config = worlds[0] if len(worlds) == 1 else WorldsConfig(worlds)
    if positive:
        if not isinstance(config, MultiViewConfig):
            raise BadInputError(f"positive: objective '{config.name}' has no views of two frames.")
        config = replace(config, positive=positive)
    if light:
        if not isinstance(config, (AcjepaConfig, WorldsConfig)):
            raise BadInputError(f"light: objective '{config.name}' has views in other light already, or hidden parts.")
        config = replace(config, light=True)
    if isinstance(found, PictureFolder):
        require_single(data, config)
    return config if regularised else config.unregulated()


def _require_same_objective(out: Path, objective: str) -> None:
    """Say so first, where a folder holds a run of another objective: its settings have other names."""
    path = out / CONFIG_FILE
    with contextlib.suppress(OSError, ValueError, TypeError):  # whatever else is wrong with it is said by `claimed`
        found = dict(json.loads(path.read_text())).get("objective", AcjepaConfig.name)
        require_equal("run folder of another run: objective", found, objective, path)


def _report(out: Path, objective: str, figures: dict[str, float]) -> None:
    """Write what the monitors say in the end, and the curves."""
    log = [json.loads(line) for line in (out / f"{NAME}.jsonl").read_text().splitlines()]
    first = next((int(line["step"]) for line in log if line.get("collapsed")), None)
    judged = "collapsed" in figures  # not in a run that ends within its warm-up
    verdict: dict[str, Any] = {"objective": objective, "collapsed": bool(figures["collapsed"]) if judged else None}
    verdict |= {"because": collapse(figures) if judged else [], "first_seen_at_step": first}
    write_json(out / MONITORS_FILE, verdict | {"figures": figures})
    write_files({out / f"{NAME}.png": pretraining_png(objective, log)})


def summary(path: Path) -> str:
    """A line on a finished run.

    Args:
        path: What `run` returned.
    """
    monitors = path.parent / MONITORS_FILE
    if not monitors.exists():  # a run of before there were any
        return f"{path}: pretrained."
    found = json.loads(monitors.read_text())
    figures = found["figures"]
    said = f"{path}: pretrained by {found['objective']}; "
    said += f"rank {figures['feature_rank']:.1f}, std {figures['feature_std']:.3g}"
    if "probe_r2" in figures:
        said += f", probe R² {figures['probe_r2']:.2f}"
    return said + (f"; COLLAPSED: {', '.join(found['because'])}." if found["collapsed"] else ".")


def main(
    data: Annotated[
        list[Path],
        typer.Argument(help="Episode stores, of different worlds too; or a folder of PNG and JPEG pictures."),
    ],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it is continued.")],
    objective: Annotated[str, typer.Option(help=f"One of {', '.join(OBJECTIVES)}.")] = AcjepaConfig.name,
    encoder: Annotated[str, typer.Option(help="Encoder to train.")] = "wm-tiny",
    width: Annotated[int, typer.Option(help="Numbers per token.")] = 64,
    episodes: Annotated[int, typer.Option(help="Use a store's first ones only (frames are held in memory).")] = 2500,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 3000,
    batch: Annotated[int, typer.Option(help="Windows or pictures per step, of several stores as many of each.")] = 80,
    frameskip: Annotated[int, typer.Option(help="Control steps per latent step (of strokes always 1).")] = FRAMESKIP,
    positive: Annotated[
        int, typer.Option(help="Views are of two frames that lie so many control steps apart; 0: of one frame.")
    ] = 0,
    light: Annotated[
        bool, typer.Option("--light", help="acjepa: see each frame in light of its own, to be blind to it.")
    ] = False,
    no_regulariser: Annotated[
        bool, typer.Option("--no-regulariser", help="Leave out what prevents collapse, to watch one.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Train an encoder without labels, then freeze it.

    The default is action-conditioned joint embedding, which the shipped models build on; the others are described in
    docs/laboratory.md.
    """
    sizes = {"width": width, "episodes": episodes, "steps": steps, "batch": batch}
    path = run(
        data, out, encoder=encoder, seed=seed, frameskip=frameskip, objective=objective,
        regularised=not no_regulariser, positive=positive, light=light, **sizes,
    )  # fmt: skip
    print(summary(path))
