from __future__ import annotations

import numpy as np

from wm.experiments.assemble import make_env
from wm.experiments.baselines import NoOp, RandomActions, StatePolicy
from wm.experiments.episode import Actor, Task, run_episode

START = np.array([100.0, 100, 300, 300, 0.5, 0, 0])
TASK = Task(START, np.zeros((16, 16, 3), np.uint8), np.array([400.0, 400, 200, 200, 0.0, 0, 0]), 3)


def test_noop_stays() -> None:
    env = make_env("pusht", 16)
    outcome = run_episode(env, TASK, NoOp(np.zeros(2)), 7)
    assert outcome.steps == 7 and not outcome.reached and outcome.plans == [] and outcome.plan_ms == []
    np.testing.assert_allclose(outcome.states[-1], START, atol=1e-9)


def test_random_fills_the_box_anew_at_every_control_step() -> None:
    env = make_env("pusht", 16)
    actor = RandomActions(env.env_spec.action, 0)
    actions = np.concatenate([actor.plan()[1] for _ in range(2000)])
    assert actions.shape == (2000, 2) and (np.abs(actions) <= 1).all()
    np.testing.assert_allclose(actions.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(actions.std(0), 1 / np.sqrt(3), atol=0.03)
    assert abs(np.corrcoef(actions[:-1, 0], actions[1:, 0])[0, 1]) < 0.1


def test_random_repeats_itself_under_a_seed() -> None:
    env = make_env("pusht", 16)
    states = [run_episode(env, TASK, RandomActions(env.env_spec.action, seed), 9).states[-1] for seed in (1, 1, 2)]
    assert np.array_equal(states[0], states[1]) and not np.array_equal(states[0], states[2])


def test_a_state_policy_acts_on_the_state_it_is_shown() -> None:
    states = iter([np.array([0.5, -1.0]), np.array([0.25, 0.0])])
    actor = StatePolicy(lambda state: 2 * state, lambda: next(states))
    np.testing.assert_array_equal(np.concatenate([actor.plan()[1] for _ in range(2)]), [[1.0, -2.0], [0.5, 0.0]])
    assert isinstance(actor, Actor)


def test_both_are_actors() -> None:
    action = make_env("pusht", 16).env_spec.action
    assert isinstance(NoOp(np.zeros(2)), Actor) and isinstance(RandomActions(action, 0), Actor)
