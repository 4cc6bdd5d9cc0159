"""`wm collect`: record logs into an episode store."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import wm
from wm.datasets.collect.runner import Recording, record_episodes
from wm.datasets.schema import DatasetSpec
from wm.datasets.writer import EpisodeWriter
from wm.errors import BadInputError
from wm.experiments.options import at_least
from wm.experiments.worlds import find_world


def collect(env: str, episodes: int, out: Path, *, steps: int, seed: int, workers: int, image_size: int) -> None:
    """Record `episodes` episodes; a store that an earlier, interrupted run left is continued.

    Raises:
        UnknownNameError: no such environment.
        BadInputError: a number out of range.
        StoreError, MismatchError: the store cannot be written, or holds something else.
    """
    world = find_world(env)
    at_least(0, seed=seed)
    if episodes < 1 or steps < 1 or workers < 0:
        raise BadInputError(
            f"collect: expected episodes, steps >= 1, workers >= 0, came {episodes}, {steps}, {workers}."
        )
    make = partial(world.make_env, image_size)
    recipe: dict[str, Any] = {"command": "wm collect", "policy": world.policy_name, "seed": seed, "steps": steps}
    recipe |= world.recipe() | {"wm": wm.__version__}
    spec = DatasetSpec(env=make().env_spec, image_size=image_size, recipe=recipe)
    recording = Recording(make, world.policy, steps, seed)
    columns = (TextColumn("collect"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    ends = []
    with EpisodeWriter(out, spec, resume=True) as writer, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=episodes, completed=len(writer))
        for episode in record_episodes(recording, len(writer), episodes, workers):
            writer.append(episode)
            ends.append((episode.state[0].copy(), episode.state[-1].copy()))
            progress.advance(task)
    if ends:
        print(f"{out}: {episodes} episodes of {steps} steps; {world.logged(ends)}", file=sys.stderr)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the new episode store; an interrupted one is continued.")],
    env: Annotated[str, typer.Option(help="Environment.")] = "pusht",
    episodes: Annotated[int, typer.Option(help="Episodes to record.")] = 2000,
    steps: Annotated[int | None, typer.Option(help="Control steps per episode (default: the environment's).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the run; episode i depends on it and i alone.")] = 0,
    workers: Annotated[int, typer.Option(help="Worker processes (0: none).")] = 2,
    image_size: Annotated[int, typer.Option(help="Side of the pictures, pixels.")] = 96,
) -> None:
    """Record logs of a collection policy into an episode store."""
    steps = find_world(env).steps if steps is None else steps
    collect(env, episodes, out, steps=steps, seed=seed, workers=workers, image_size=image_size)
