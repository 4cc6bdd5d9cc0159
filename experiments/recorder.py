"""A model plays, and what happens is recorded as a log is: into an episode store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import wm
from wm.datasets.collect.runner import in_order
from wm.datasets.reader import EpisodeStore
from wm.datasets.schema import DatasetSpec, Episode
from wm.datasets.writer import EpisodeWriter
from wm.encoders.base import fingerprint
from wm.errors import BadInputError
from wm.experiments.episode import Actor, Task, run_episode
from wm.experiments.evaluate import planner_settings
from wm.experiments.options import at_least
from wm.experiments.play import Player, Setting
from wm.specs import ActionSpec
from wm.types import Plan

PLAYED_SEED = 1_000_000
"""Added to a play's seed for that of its tasks (`World.sample_tasks`): evaluations have smaller ones, and so other
tasks. None of them is out of an episode that `wm collect` may have logged, whatever the seeds
(`wm.experiments.worlds.tasks.evaluation_seeds`)."""


@dataclass(frozen=True)
class Play:
    """What is played.

    Attributes:
        episodes: Each on a task of its own, and for the whole budget, whether the goal is reached or not.
        noise: Standard deviation of white noise on executed actions, as a share of half the bounds' range, 0 to 1.
        seed: Of the tasks, of the planner's noise and of this one, >= 0; see `PLAYED_SEED`.

    Raises:
        BadInputError: a number is out of its range.
    """

    episodes: int
    noise: float | int = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, episodes=self.episodes)
        at_least(0, seed=self.seed)
        if not 0 <= self.noise <= 1:
            raise BadInputError(f"noise: expected 0 to 1, came {self.noise}.")


class Noisy:
    """An actor whose actions are executed with white noise, within the bounds.

    Args:
        actor: Who acts.
        action: One control step's action.
        noise: As in `Play`.
        seed: Of the noise.
    """

    def __init__(self, actor: Actor, action: ActionSpec, noise: float | int, seed: int) -> None:
        self.actor, self.guardrails = actor, actor.guardrails
        self.low, self.high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        self.std, self.rng = noise * (self.high - self.low) / 2, np.random.default_rng(seed)

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        """For the actor."""
        self.actor.observe(observation)

    def plan(self) -> tuple[Plan | None, np.ndarray]:
        """The actor's plan, and what is executed of it, ``(steps, W)`` float32 raw units."""
        plan, actions = self.actor.plan()
        moved = actions + self.std * self.rng.standard_normal(actions.shape)
        return plan, np.clip(moved, self.low, self.high).astype(np.float32)


class Recorder(Player):
    """Plays with the model and keeps everything."""

    def record(self, task: Task, noise: float | int) -> Episode:
        """One episode of the whole budget: the environment is told no goal, so that reaching it ends nothing."""
        actor = Noisy(self._controller(task), self.env.env_spec.action, noise, task.seed)
        outcome = run_episode(self.env, replace(task, goal_state=None), actor, self.setting.budget_steps)
        return Episode(
            frames=np.stack(outcome.frames),
            proprio=np.stack(outcome.proprio).astype(np.float32) if outcome.proprio else None,
            state=np.stack(outcome.states).astype(np.float64),
            actions=np.stack(outcome.actions).astype(np.float32),
            seed=task.seed,
        )


def recipe(player: Player, play: Play) -> dict[str, Any]:
    """How the episodes are made, as their store tells it; not how many there are."""
    setting, world = player.setting, player.world
    planner = {"name": setting.planner, "think": setting.think} | planner_settings(player.mpc, world.planning)
    made = {"command": "wm correct", "policy": "model", "seed": play.seed + PLAYED_SEED, "noise": play.noise}
    made |= {"steps": setting.budget_steps, "model": fingerprint(player.model), "planner": planner}
    return made | world.recipe() | {"wm": wm.__version__}


def record_play(player: Player, play: Play, out: Path, workers: int) -> EpisodeStore:
    """Play, and record it; episodes that an interrupted run left are not played again.

    Args:
        player: Its setting is played, by as many players as there are workers.
        play: What is played.
        out: Folder of the store.
        workers: Processes, >= 1; they change nothing but the time.

    Raises:
        StoreError, MismatchError: the store cannot be written, or holds something else.
        BadInputError: the world has no goals, or its episodes do not fit a store.
    """
    size = player.model.spec.encoder.image_size
    spec = DatasetSpec(env=player.model.spec.env, image_size=size, recipe=recipe(player, play))
    alone = workers == 1
    make = partial(_make if alone else _make_in_worker, player.setting, play.noise)
    columns = (TextColumn("play"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with EpisodeWriter(out, spec, resume=True) as writer, Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=play.episodes, completed=len(writer))
        missing: Sequence[Task] = []
        if len(writer) < play.episodes:
            tasks = player.world.sample_tasks(play.seed + PLAYED_SEED, play.episodes, image_size=size)
            missing = tasks[len(writer) :]
        with closing(in_order(make, missing, 0 if alone else workers)) as episodes:  # its workers end with it
            for episode in episodes:
                writer.append(episode)
                progress.advance(bar)
    return EpisodeStore(out)


def _make(setting: Setting, noise: float | int) -> Callable[[Task], Episode]:
    """For `in_order`: a recorder of the process that calls this."""
    return partial(Recorder(setting).record, noise=noise)


def _make_in_worker(setting: Setting, noise: float | int) -> Callable[[Task], Episode]:
    """In a process that does nothing else, and so may be given its threads."""
    torch.set_num_threads(setting.threads)
    return _make(setting, noise)
