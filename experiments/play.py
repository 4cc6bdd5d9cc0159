"""Play many tasks with one kind of actor, in this process or in workers."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from wm.experiments.assemble import PLAIN, make_model, make_mpc
from wm.experiments.baselines import NoOp, RandomActions
from wm.experiments.controllers import Mind, make_controller, make_screen
from wm.experiments.episode import Actor, Controller, Outcome, Task, run_episode
from wm.experiments.episode_log import Record
from wm.experiments.rules import Rules
from wm.experiments.screening import rescoring
from wm.experiments.worlds import find_world
from wm.experiments.worlds.base import Baseline
from wm.model import WorldModel
from wm.planners.mpc import MPC
from wm.workers import end_with_parent

MODEL, ORACLE = "model", "oracle"
"""Actors that plan; the others' names are in `Player.baselines`."""


@dataclass(frozen=True)
class Setting:
    """What decides the outcome of a task.

    Attributes:
        env: Environment's name.
        model: Model's shipped name or path.
        planner: Planner's name.
        budget_steps: Control steps per episode.
        deadline_ms: For each search in the model; the oracle has none.
        threads: Of each process.
        think: How much the planner thinks for a plan, see `Thinking.parse`; None: as it suits the world, or where
            another model screens, as rescoring needs.
        screen: Shipped name or path of a model that proposes (`wm.experiments.screening`), or None.
        rollout: How the model's rollouts are computed, one of `ROLLOUTS`.
    """

    env: str
    model: str
    planner: str
    budget_steps: int
    deadline_ms: float | int | None
    threads: int
    think: str | None = None
    screen: str | None = None
    rollout: str = PLAIN


class Player:
    """Environment, model and planner of a setting, built once and used for many episodes.

    Raises:
        WmError: as `find_world`, `make_model` and `make_mpc`.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.world = find_world(setting.env)  # an unknown environment is refused as such, not as the model's
        self.model: WorldModel = make_model(setting.model, setting.env, setting.rollout)
        self.env: Any = self.world.make_env(self.model.spec.encoder.image_size)
        frameskip = self.model.spec.frameskip
        think = rescoring(setting.planner, setting.think, setting.screen)
        self.mpc: MPC = make_mpc(setting.planner, frameskip, self.world.planning, think=think)
        self.screen = None if setting.screen is None else make_screen(setting.screen, self.world, self.model)
        self.guardrails = self.world.guardrails(Rules(), getattr(self.env, "kinematics", None))

    @cached_property
    def baselines(self) -> dict[str, Baseline]:
        """Who plays beside the model, in the order of the tables."""
        world, action = self.world, self.env.env_spec.action
        found = {
            "noop": Baseline(lambda task: NoOp(world.rest_action())),
            "random": Baseline(lambda task: RandomActions(action, task.seed)),
            **world.baselines(self.env),
        }
        if world.oracle_facts is not None:
            found[ORACLE] = Baseline(self._oracle, world.oracle_facts)
        return found

    def play(self, name: str, index: int, task: Task) -> Record:
        """The record of `run`."""
        outcome = self.run(name, task)
        assert task.goal_state is not None
        return Record.of(index, task, outcome, self.world.measures(task.goal_state, np.stack(outcome.states)))

    def run(self, name: str, task: Task) -> Outcome:
        """One episode within the budget."""
        actor = self._controller(task) if name == MODEL else self.baselines[name].make(task)
        return run_episode(self.env, task, actor, self.setting.budget_steps)

    @cached_property
    def oracle_mpc(self) -> MPC:
        """The planner by itself: it has no proposals to begin with, which a world's way of thinking counts on."""
        setting, planning = self.setting, replace(self.world.planning, think=None)
        return make_mpc(setting.planner, self.mpc.frameskip, planning, setting.think)

    def _oracle(self, task: Task) -> Actor:
        return self.world.oracle(self.env, self.oracle_mpc, task, self.guardrails, self.setting.budget_steps)

    def _controller(self, task: Task) -> Controller:
        budget, deadline_ms = self.setting.budget_steps, self.setting.deadline_ms
        mind = Mind(self.model, self.mpc, self.screen)
        return make_controller(self.world, mind, task, self.env, self.guardrails, budget, deadline_ms)


def play_all(player: Player, name: str, tasks: Sequence[tuple[int, Task]], workers: int) -> Iterator[Record]:
    """Records of numbered tasks, in order; the number of workers changes nothing but the time.

    Args:
        player: Used as it is with one worker; others build their own from its setting.
        name: Who acts.
        tasks: Place in the list, and task.
        workers: Processes, >= 1.
    """
    if workers == 1:
        for index, task in tasks:
            yield player.play(name, index, task)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(player.setting.threads))
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_start_worker, initargs=(player.setting,)) as pool:
        yield from pool.imap(functools.partial(_play, name), tasks, chunksize=1)


_worker: list[Player] = []


def _start_worker(setting: Setting) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's, which then ends its workers
    torch.set_num_threads(setting.threads)
    _worker[:] = [Player(setting)]


def _play(name: str, numbered: tuple[int, Task]) -> Record:
    return _worker[0].play(name, *numbered)
