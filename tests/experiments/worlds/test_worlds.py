"""What every world keeps."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wm.datasets.collect.runner import episode_seed, record
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.baselines import NoOp
from wm.experiments.episode import Actor, run_episode
from wm.experiments.episode_log import Record
from wm.experiments.rules import Rules
from wm.experiments.worlds import WORLDS, find_world
from wm.experiments.worlds.base import World
from wm.experiments.worlds.tasks import evaluation_seeds, fresh_tasks, picture, solved
from wm.planners import ICEM, MPC

SIZE = 32
FOREIGN = "foreign"
ERROR = {"pusht": "block_error_px"}
"""The measure that the oracle makes smaller, where it is not the first of the averaged ones."""


@pytest.fixture(params=[*sorted(WORLDS), FOREIGN])
def name(request: pytest.FixtureRequest, pendulum: Path) -> str:
    """As after `--env`: every world of ours, and one that is none."""
    return str(pendulum) if request.param == FOREIGN else request.param


@pytest.fixture
def world(name: str) -> World:
    return find_world(name)


def test_it_goes_by_its_name_everywhere(name: str, world: World) -> None:
    env = world.make_env(SIZE)
    assert find_world(name) is world and env.env_spec.env == world.name
    assert world.name == ("pendulum" if name not in WORLDS else name)
    assert env.reset(seed=0)[0]["image"].shape == (SIZE, SIZE, 3)
    assert world.drivable == (env.kinematics is not None)


def test_its_numbers_fit_each_other(world: World) -> None:
    planning = world.planning
    assert 1 <= planning.execute <= planning.horizon and planning.earlier_weight >= 0 and planning.robot_weight > 0
    assert world.steps >= 2 * world.frameskip and world.budget_steps >= world.frameskip >= 1
    assert len(set(world.goal_kinds)) == len(world.goal_kinds) >= 1
    if world.goal_offset is not None:
        assert world.goal_offset <= world.budget_steps


def test_its_policy_acts_and_its_logs_are_described(world: World) -> None:
    env = world.make_env(SIZE)
    make = pickle.loads(pickle.dumps(world.policy))  # as for a worker that collects
    episodes = [record(env, make(3), 2 * world.frameskip, 3) for _ in range(2)]
    assert np.array_equal(episodes[0].actions, episodes[1].actions)
    assert (episodes[0].actions >= env.env_spec.action.low).all()
    assert (episodes[0].actions <= env.env_spec.action.high).all()
    assert "on average" in world.logged([(episode.state[0], episode.state[-1]) for episode in episodes])


def test_tasks_depend_on_the_seed_and_their_place_alone(world: World) -> None:
    longer, shorter, other = (world.sample_tasks(s, n, image_size=SIZE) for s, n in ((5, 3), (5, 2), (6, 2)))
    assert (len(longer), len(shorter)) == (3, 2)
    for a, b, c in zip(longer, shorter, other, strict=False):
        assert np.array_equal(a.start_state, b.start_state) and np.array_equal(a.goal_state, b.goal_state)
        assert np.array_equal(a.goal_image, b.goal_image) and a.seed == b.seed
        assert not np.array_equal(a.start_state, c.start_state) and not np.array_equal(a.goal_state, c.goal_state)


def test_no_task_is_solved_and_its_picture_is_the_goals(world: World) -> None:
    env = world.make_env(SIZE)
    for task in world.sample_tasks(0, 2, image_size=SIZE):
        assert not solved(env, task.start_state, task.goal_state)
        assert not np.array_equal(task.start_state, task.goal_state)
        assert np.array_equal(task.goal_image, picture(env, task.goal_state))
        assert np.array_equal(env.reset(options={"state": task.start_state})[1]["state"], task.start_state)


def test_every_kind_of_goal_is_another(world: World) -> None:
    goals = [world.sample_tasks(1, 1, kind=kind, image_size=SIZE)[0].goal_state for kind in world.goal_kinds]
    assert len({goal.tobytes() for goal in goals}) == len(world.goal_kinds)
    default = world.sample_tasks(1, 1, image_size=SIZE)[0].goal_state
    assert np.array_equal(default, goals[0])


def test_measures_are_finite_numbers(world: World) -> None:
    env, task = world.make_env(SIZE), world.sample_tasks(2, 1, image_size=SIZE)[0]
    outcome = run_episode(env, task, NoOp(world.rest_action()), 2)
    found = world.measures(task.goal_state, np.stack(outcome.states))
    assert set(world.flags) | set(world.averaged) <= set(found)
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert all(found[name] in (0.0, 1.0) for name in world.flags)
    logged = [Record.of(0, task, outcome, found)]
    assert all(type(v) is float and math.isfinite(v) for v in world.goal_metrics(logged).values())
    assert world.failure_note(logged[0])
    for panel in world.panels(logged):
        assert len(panel.x) == len(panel.y) == 1 and np.isfinite([panel.x, panel.y]).all()


def test_resting_is_allowed(world: World) -> None:
    action, rest = world.make_env(SIZE).env_spec.action, world.rest_action()
    assert rest.shape == (action.width,) and (rest >= action.low).all() and (rest <= action.high).all()


def test_baselines_play_and_repeat_themselves(world: World) -> None:
    env, task = world.make_env(SIZE), world.sample_tasks(2, 1, image_size=SIZE)[0]
    for name, baseline in world.baselines(env).items():
        assert name not in ("model", "noop", "random", "oracle") and baseline.facts["sees"]
        actors = [baseline.make(task) for _ in range(2)]
        first, again = (run_episode(env, task, actor, 3) for actor in actors)
        assert isinstance(actors[0], Actor) and first.steps == 3
        assert np.array_equal(np.stack(first.states), np.stack(again.states)), name


def test_the_oracle_improves_on_the_start(world: World) -> None:
    env, task = world.make_env(SIZE), world.sample_tasks(1000, 1, image_size=SIZE)[0]
    solver = ICEM(world.frameskip, population=24, elites=6, iterations=3)
    mpc = MPC(solver, min(3, world.planning.horizon), 1, world.frameskip)
    if world.oracle_facts is None:
        with pytest.raises(BadInputError, match=f"oracle: '{world.name}' has none"):
            world.oracle(env, mpc, task, [], 1)
        return
    budget = 5 * world.frameskip
    actor = world.oracle(env, mpc, task, world.guardrails(Rules(), env.kinematics), budget)
    outcome = run_episode(env, task, actor, budget)
    assert isinstance(actor, Actor) and outcome.plans[0].candidates >= 24
    states, name = np.stack(outcome.states), ERROR.get(world.name) or world.averaged[0]
    before, after = (world.measures(task.goal_state, each)[name] for each in (states[:1], states))
    assert outcome.reached or after < 0.9 * before


@pytest.mark.parametrize(("name", "least"), [("arm-reach", 0.95), ("arm-push", 0.8)])
def test_the_arms_hand_written_controllers_reach_most_goals(name: str, least: float) -> None:
    world = find_world(name)
    env = world.make_env(16)
    (baseline,) = world.baselines(env).values()
    tasks = world.sample_tasks(5000, 20, image_size=16)
    reached = [run_episode(env, task, baseline.make(task), world.budget_steps).reached for task in tasks]
    assert np.mean(reached) >= least
    env.close()


def test_no_evaluation_episode_can_be_a_logged_one() -> None:
    for seed in (0, 7):
        assert all(episode >= 2**32 for (episode, _, _), _ in zip(evaluation_seeds(seed), range(50), strict=False))
        assert all(episode_seed(seed, index) < 2**32 for index in range(50))


def test_fresh_tasks_give_up_where_every_start_is_solved() -> None:
    class Solved:
        def reset(self, **_: object) -> tuple[dict, dict]:
            return {"image": None}, {"state": np.zeros(1), "is_success": True}

    with pytest.raises(BadInputError, match="only 0 of 1 found in 80 episodes; nearly every start is solved"):
        fresh_tasks(Solved(), lambda rng, start: np.zeros(1), 0, 1)
    with pytest.raises(BadInputError, match="expected seed >= 0, count >= 1, came 0, 0"):
        fresh_tasks(Solved(), lambda rng, start: np.zeros(1), 0, 0)


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(UnknownNameError, match="unknown environment 'chip'. Did you mean 'chips'"):
        find_world("chip")
    with pytest.raises(UnknownNameError, match="unknown kind of chips goal 'sqare'. Did you mean 'square'"):
        find_world("chips").sample_tasks(0, 1, kind="sqare")
    with pytest.raises(
        BadInputError, match="goal-offset: goals of 'chips' are not taken from logged episodes, came 25"
    ):
        find_world("chips").sample_tasks(0, 1, offset=25)


def test_a_world_is_imported_when_it_is_asked_for() -> None:
    simulators = ("mujoco", "pybullet", "pymunk")
    code = f"""
import sys
from wm.experiments.worlds import WORLDS, find_world
import wm.experiments.goals, wm.experiments.worlds.base
print([name for name in {simulators} if name in sys.modules])
find_world("pusht")
print([name for name in {simulators} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "['pymunk']"]


def test_an_id_of_ours_that_is_no_world_is_not_taken_for_a_foreign_one() -> None:
    with pytest.raises(UnknownNameError, match="unknown environment 'wm/Arm-v0'.*wm/ArmPush-v0, wm/ArmReach-v0"):
        find_world("wm/Arm-v0")
