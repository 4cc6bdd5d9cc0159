"""`wm correct`: a model plays, and its predictor is trained on with what happened (online correction)."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

import wm
from wm.checkpoint import load_tensors
from wm.correct import CorrectConfig, correct
from wm.datasets.reader import EpisodeStore
from wm.datasets.windows import WindowIndex
from wm.errors import BadInputError
from wm.experiments.assemble import MODELS, find_model
from wm.experiments.encode import log_states
from wm.experiments.logs import HELD_OUT, SPLIT_SEED
from wm.experiments.options import BudgetSteps, Think, at_least
from wm.experiments.play import Player, Setting
from wm.experiments.recorder import PLAYED_SEED, Play, recipe, record_play
from wm.experiments.run_folder import claimed
from wm.experiments.train import config_for
from wm.experiments.worlds import find_world
from wm.logs import Log, LogWindows, Moments
from wm.model import WorldModel
from wm.specs import require_equal


def run(
    data: Path,
    setting: Setting,
    out: Path,
    play: Play,
    config: CorrectConfig,
    *,
    data_episodes: int | None = None,
    workers: int = 1,
) -> Path:
    """Play into the store `<out>/data`, train the model's predictor on, save `<out>/model.safetensors`.

    All but the predictor stays as it is. An interrupted run is continued, its play after the last finished episode, and
    ends in the same weights; a finished one is left as it is.

    Args:
        data: Episode store of the model's world, best the one that the model was trained on.
        setting: Model, planner and budget; without a deadline.
        out: Run folder.
        play: What is played.
        config: How the predictor is trained on.
        data_episodes: Use the data's first episodes only; None: all. A twentieth of them is held out, as in training.
        workers: Processes that play, >= 1; they change nothing but the time.

    Raises:
        StoreError, CheckpointError: data or model cannot be read, or `out` cannot be written.
        BadInputError: a number is out of its range, the budget or the data is too short for the predictor's rollout, or
            the world has no goals.
        MismatchError: the model is of another world or picture size than the data, or `out` holds another run.
    """
    at_least(1, steps=config.schedule.steps, data_episodes=data_episodes, workers=workers)
    if not 0 < config.schedule.learning_rate < math.inf:
        raise BadInputError(f"learning-rate: expected a finite number > 0, came {config.schedule.learning_rate}.")
    store, player, source = EpisodeStore(data), Player(setting), MODELS.get(setting.model, Path(setting.model))
    model, path = player.model, out / "model.safetensors"
    require_equal("model of another world than the data", store.spec.env, model.spec.env, source)
    size = model.spec.encoder.image_size
    require_equal("pictures of another size than the model's [px]", size, store.spec.image_size, data)
    at_least((model.spec.history - 1 + model.spec.reach) * model.spec.frameskip, budget_steps=setting.budget_steps)
    player.world.sample_tasks(play.seed + PLAYED_SEED, 1)  # a world without goals is refused before anything is written
    count = min(data_episodes or len(store), len(store))
    of_data = store.spec.recipe | {"episodes": count, "fingerprint": store.fingerprint()}
    of_play = recipe(player, play) | {"episodes": play.episodes}
    with claimed(out, asdict(config) | {"data": of_data, "played": of_play}):
        if path.exists():
            return path
        index = _index(store, model, count).split(HELD_OUT, SPLIT_SEED)[0]
        played = record_play(player, play, out / "data", workers)
        logged = _windows(store, model, index, out / "states" / "data", count)
        new = _windows(played, model, _index(played, model, len(played)), out / "states" / "played", len(played))
        correct(model, logged, new, config, out)
    of_play |= {"fingerprint": played.fingerprint()}
    provenance = {"command": "wm correct", "share": config.share, **asdict(config.schedule)}
    provenance |= {"data": of_data, "played": of_play, "base": load_tensors(source)[1]["provenance"]}
    model.save(path, provenance | {"wm": wm.__version__, "torch": torch.__version__})
    return path


def _index(store: EpisodeStore, model: WorldModel, episodes: int) -> WindowIndex:
    """Windows of the first episodes, as long as those that the predictor was trained on."""
    return WindowIndex(store.lengths[:episodes], model.spec.history, model.spec.reach, model.spec.frameskip)


def _windows(store: EpisodeStore, model: WorldModel, index: WindowIndex, folder: Path, episodes: int) -> LogWindows:
    """Windows of what the model sees in a store's first episodes, normalised by its own moments."""
    action, proprio = (Moments(*moments) for moments in (model.action_moments, model.proprio_moments))
    states = log_states(store, model.encoder, model.joint.head, folder, episodes, f"states ({folder.name})")
    log = Log(states, store.all_proprio(), store.all_actions())
    return LogWindows(log, index, action, None if model.spec.env.proprio is None else proprio)


def main(
    data: Annotated[Path, typer.Argument(help="Episode store, best the one that the model was trained on.")],
    model: Annotated[str, typer.Option(help="Model whose predictor is trained on: a shipped name or a path.")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it is continued.")],
    env: Annotated[str | None, typer.Option(help="Environment to play in (default: the data's).")] = None,
    planner: Annotated[str, typer.Option(help="Planner that plays.")] = "icem",
    think: Think = None,
    budget_steps: BudgetSteps = None,
    episodes: Annotated[int, typer.Option(help="Episodes to play, each for the whole budget.")] = 500,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of noise on executed actions, of half the bounds' range.")
    ] = 0.0,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    share: Annotated[float, typer.Option(help="Of each batch that comes from the played episodes.")] = 0.5,
    learning_rate: Annotated[float, typer.Option(help="At its peak; a fresh predictor's is 1e-3.")] = 3e-4,
    data_episodes: Annotated[int | None, typer.Option(help="Use DATA's first episodes only.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random; the tasks are those of seed 1,000,000 + this.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that play.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Of torch, in each process (default: torch's own).")] = None,
) -> None:
    """Let a model play, record what happens, and train its predictor on with it (online correction).

    The played episodes become the store OUT/data. No evaluation has their goals as long as its seed is below 1,000,000.
    """
    at_least(1, threads=threads)
    if threads is not None:
        torch.set_num_threads(threads)
    spec, known = EpisodeStore(data).spec.env, find_model(model)[0].spec
    env = spec.env if env is None else env
    budget_steps = find_world(env).budget_steps if budget_steps is None else budget_steps
    schedule = config_for(known.env, known.form).predictor
    schedule = replace(schedule, steps=steps, learning_rate=learning_rate, seed=seed)
    setting = Setting(env, model, planner, budget_steps, None, torch.get_num_threads(), think)
    path = run(
        data,
        setting,
        out,
        Play(episodes, noise, seed),
        CorrectConfig(share, schedule),
        data_episodes=data_episodes,
        workers=workers,
    )
    print(f"{path}: corrected; what was played is in {out / 'data'}.")
