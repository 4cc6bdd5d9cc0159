"""Play many tasks with one kind of actor, in this process or in workers."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from wm.experiments.assemble import make_env, make_model, make_mpc
from wm.experiments.baselines import NoOp, RandomActions
from wm.experiments.episode import Actor, Controller, Outcome, Task, run_episode
from wm.experiments.episode_log import Record
from wm.experiments.oracle import OracleController
from wm.experiments.rules import Rules
from wm.model import WorldModel
from wm.planners.mpc import MPC
from wm.workers import end_with_parent

ActorName = Literal["model", "noop", "random", "oracle"]


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
        think: How much the planner thinks for a plan, see `Thinking.parse`; None: as it is by itself.
    """

    env: str
    model: str
    planner: str
    budget_steps: int
    deadline_ms: float | int | None
    threads: int
    think: str | None = None


class Player:
    """Environment, model and planner of a setting, built once and used for many episodes.

    Raises:
        WmError: as `make_env`, `make_model` and `make_mpc`.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        make_env(setting.env)  # an unknown environment is refused as such, not as the model's
        self.model: WorldModel = make_model(setting.model, setting.env)
        self.env: Any = make_env(setting.env, self.model.spec.encoder.image_size)
        self.mpc: MPC = make_mpc(setting.planner, self.model.spec.frameskip, think=setting.think)
        self.guardrails = Rules().guardrails()

    def play(self, name: ActorName, index: int, task: Task) -> Record:
        """The record of `run`."""
        return Record.of(index, task, self.run(name, task))

    def run(self, name: ActorName, task: Task) -> Outcome:
        """One episode within the budget."""
        return run_episode(self.env, task, self._actor(name, task), self.setting.budget_steps)

    def _actor(self, name: ActorName, task: Task) -> Actor:
        action = self.env.env_spec.action
        if name == "noop":
            return NoOp(action)
        if name == "random":
            return RandomActions(action, task.seed)
        if name == "oracle":
            assert task.goal_state is not None
            kinematics, state = self.env.kinematics, self.env.get_state
            budget = self.setting.budget_steps
            return OracleController(
                action, self.mpc, task.goal_state, state, kinematics,
                guardrails=self.guardrails, budget=budget, seed=task.seed,
            )  # fmt: skip
        goal = self.model.encode(torch.from_numpy(task.goal_image)[None, None])
        deadline, kinematics = self.setting.deadline_ms, self.env.kinematics
        return Controller(
            self.model,
            self.mpc,
            goal,
            guardrails=self.guardrails,
            kinematics=kinematics,
            budget=self.setting.budget_steps,
            deadline_ms=deadline,
            seed=task.seed,
        )


def play_all(player: Player, name: ActorName, tasks: Sequence[tuple[int, Task]], workers: int) -> Iterator[Record]:
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


def _play(name: ActorName, numbered: tuple[int, Task]) -> Record:
    return _worker[0].play(name, *numbered)
