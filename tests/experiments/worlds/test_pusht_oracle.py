from __future__ import annotations

import math

import numpy as np
import torch

from wm.envs.pusht.physics import PushTPhysics
from wm.experiments.assemble import make_env
from wm.experiments.episode import Actor, Outcome, Task, run_episode
from wm.experiments.goals import sample_tasks
from wm.experiments.worlds.pusht_oracle import PUSHER_SCALE, OracleController, embed, simulate
from wm.planners import ICEM, MPC
from wm.planners.guardrails import WorkspaceBox

FRAMESKIP = 5


def controller(env, task: Task, horizon: int = 3, population: int = 24, guardrails: list | None = None):  # type: ignore[no-untyped-def]
    mpc = MPC(ICEM(FRAMESKIP, population=population, elites=6, iterations=3), horizon, 1, FRAMESKIP)
    state, kinematics = env.get_state, env.kinematics
    return OracleController(
        env.env_spec.action, mpc, task.goal_state, state, kinematics, guardrails=guardrails, earlier_weight=1.0, seed=1
    )


def test_the_success_tests_tolerances_are_distances_of_one() -> None:
    state = torch.tensor([100.0, 200.0, 300.0, 250.0, 3.1])
    pusher = 20.0 / PUSHER_SCALE
    for index, change in [(0, pusher), (2, 20.0), (3, -20.0), (4, math.pi / 9), (4, math.pi / 9 - 2 * math.pi)]:
        other = state.clone()
        other[index] += change
        assert math.isclose(float((embed(state) - embed(other)).norm()), 1.0, rel_tol=1e-4)
    assert embed(state.expand(2, 3, 5)).shape == (2, 3, 1, 6)


def test_simulate_agrees_with_the_environment(rng: np.random.Generator) -> None:
    env = make_env("pusht", 16)
    env.reset(options={"state": [200, 200, 250, 260, 0.4, 30, -20]})
    start = env.get_state()
    actions = rng.uniform(-1, 1, (3, 10, 2))
    states = simulate(PushTPhysics(), start, actions, env.kinematics)
    assert states.shape == (3, 10, 10)
    for sequence, imagined in zip(actions, states, strict=True):
        env.set_state(start)
        for action, expected in zip(sequence, imagined, strict=True):
            env.step(action)
            np.testing.assert_allclose(env.get_state(), expected, atol=1e-9)


def test_the_trajectory_is_the_true_one_after_each_latent_step(rng: np.random.Generator) -> None:
    env = make_env("pusht", 16)
    task = Task(np.array([200.0, 200, 250, 260, 0.4, 30, -20]), np.zeros((16, 16, 3), np.uint8), np.full(7, 100.0), 0)
    env.reset(options={"state": task.start_state})
    start = env.get_state()
    oracle = controller(env, task, guardrails=[WorkspaceBox((0.0, 0.0), (512.0, 512.0))])
    actions = torch.from_numpy(rng.uniform(-1, 1, (1, 2, 3, 2 * FRAMESKIP))).float()
    trajectory = oracle.imagination()(actions)
    assert trajectory.tokens.shape == (1, 2, 3, 1, 6)
    assert trajectory.path is not None and trajectory.proprio is not None
    torch.testing.assert_close(trajectory.path[:, :, :, -1], trajectory.proprio, rtol=1e-3, atol=1e-2)
    env.set_state(start)
    for step, action in enumerate(actions[0, 1].reshape(-1, 2).numpy()):
        env.step(action)
        if step % FRAMESKIP == FRAMESKIP - 1:
            expected = embed(torch.from_numpy(env.get_state()).float())
            torch.testing.assert_close(trajectory.tokens[0, 1, step // FRAMESKIP], expected, rtol=0, atol=1e-3)


def play(task: Task) -> Outcome:
    env = make_env("pusht", 16)
    return run_episode(env, task, controller(env, task), 50)


def test_solves_near_tasks_and_repeats_itself() -> None:
    tasks = sample_tasks("pusht", 1000, 6, 10, image_size=16)
    outcomes = [play(task) for task in tasks]
    assert sum(outcome.reached for outcome in outcomes) >= 5
    again = play(tasks[0])
    assert np.array_equal(np.stack(again.states), np.stack(outcomes[0].states))


def test_is_an_actor() -> None:
    env = make_env("pusht", 16)
    task = Task(np.zeros(7), np.zeros((16, 16, 3), np.uint8), np.zeros(7), 0)
    assert isinstance(controller(env, task), Actor)
