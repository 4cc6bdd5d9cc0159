"""The arm's environments: what their docstring promises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import wm.envs
from wm.envs.arm.env import ArmEnv
from wm.envs.arm.physics import ANGLES
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.rules import read_rules
from wm.planners.guardrails import JointLimits, WorkspaceBox

TORCH = pytest.importorskip("torch")


@pytest.fixture
def make() -> Iterator[Any]:
    """Environments that are closed at the end."""
    made: list[ArmEnv] = []

    def one(*arguments: Any, **options: Any) -> ArmEnv:
        made.append(ArmEnv(*arguments, **options))
        return made[-1]

    yield one
    for env in made:
        env.close()


def tip_of(env: ArmEnv) -> np.ndarray:
    """Where the arm really has its tip."""
    env.physics.write()
    return env.physics._tip(env.physics.state[ANGLES])[1]


def behind_cube() -> np.ndarray:
    """The tip just behind the cube in y."""
    return np.array([0.44, -0.06, 0.44, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("task", ["reach", "push"])
def test_the_arm_follows_its_set_point_within_a_millimetre(make: Any, task: str) -> None:
    env = make(task)
    rng = np.random.default_rng(0)
    env.reset(seed=1)
    for _ in range(8):
        action = rng.uniform(-1, 1, env.action_space.shape)
        for _ in range(6):
            env.step(action)
            assert np.linalg.norm(tip_of(env) - env.physics.state[:3]) < 1e-3


@pytest.mark.parametrize("task", ["reach", "push"])
def test_every_start_has_the_tip_where_the_state_says(make: Any, task: str) -> None:
    env = make(task, image_size=16)
    for seed in range(25):
        env.reset(seed=seed)
        assert np.linalg.norm(tip_of(env) - env.physics.state[:3]) < 1e-3


def test_the_pushing_set_point_moves_as_its_kinematics_say(make: Any) -> None:
    env = make("push")
    observation, _ = env.reset(options={"state": [0.40, -0.1, 0.55, 0.1, 0.3, 0.05, -0.02]})
    actions = np.random.default_rng(3).uniform(-1, 1, (5, 2))
    start = TORCH.tensor(observation["proprio"], dtype=TORCH.float64)[None]
    path = env.kinematics.path(start, TORCH.tensor(actions)[None, None], frameskip=1)[0, 0, :, -1]
    for action, expected in zip(actions, path.numpy(), strict=True):
        observation, *_ = env.step(action)
        np.testing.assert_allclose(observation["proprio"], expected, atol=1e-6)


def test_the_set_point_stays_in_the_workspace_and_a_step_is_short(make: Any) -> None:
    env = make("push")
    before = env.reset(seed=4)[1]["state"]
    low, high = env.physics.workspace
    for _ in range(15):
        after = env.step(np.ones(2))[4]["state"]
        assert (np.abs(after[:2] - before[:2]) < 0.06).all() and (after[:2] <= high[:2]).all()
        before = after
    np.testing.assert_allclose(before[:2], high[:2], atol=1e-9)


def test_the_tip_pushes_the_cube_and_friction_stops_it(make: Any) -> None:
    env = make("push")
    env.reset(options={"state": behind_cube()})
    for _ in range(6):
        pushed = env.step(np.array([0.0, 1.0]))[4]["state"]
    assert pushed[3] > 0.05 and abs(pushed[2] - 0.44) < 0.02
    for _ in range(5):
        left = env.step(np.array([0.0, -1.0]))[4]["state"]
    for _ in range(3):
        still = env.step(np.array([0.0, -1.0]))[4]["state"]
    np.testing.assert_allclose(still[2:4], left[2:4], atol=2e-3)
    cube_height = env.physics.state[22]
    assert abs(cube_height - 0.025) < 2e-3


@pytest.mark.parametrize("action_mode", ["ee", "joint"])
def test_a_state_taken_mid_push_goes_on_to_the_last_bit(make: Any, action_mode: str) -> None:
    one, other = make("push", action_mode), make("push", action_mode)
    push = np.array([0.2, 1.0]) if action_mode == "ee" else np.array([1.0, 0, 0, 0, 0, 0, 0])
    one.reset(options={"state": behind_cube()})
    for _ in range(3):
        one.step(push)
    state = one.get_state()
    other.reset(seed=5)
    other.step(-push)
    other.set_state(state)
    for _ in range(6):
        expected, came = one.step(push), other.step(push)
        np.testing.assert_array_equal(came[4]["full_state"], expected[4]["full_state"])
        np.testing.assert_array_equal(came[0]["image"], expected[0]["image"])
    assert np.linalg.norm(one.get_state()[2:4] - behind_cube()[2:4]) > 0.01


@pytest.mark.parametrize("task", ["reach", "push"])
def test_joint_mode_keeps_joints_and_workspace(make: Any, task: str) -> None:
    env = make(task, "joint", image_size=16)
    lower, upper, _ = env.joint_limits
    low, high = env.physics.workspace
    rng = np.random.default_rng(6)
    env.reset(seed=6)
    for _ in range(5):
        action = rng.uniform(env.action_space.low, env.action_space.high)
        for _ in range(5):
            observation, *_ = env.step(action)
            joints, tip = observation["proprio"][:7], env.physics.state[:3]
            assert (joints >= lower - 1e-3).all() and (joints <= upper + 1e-3).all()
            assert (tip >= low - 0.04).all() and (tip <= high + 0.04).all()


@pytest.mark.parametrize("task,goal,near,far", [("reach", 0, 0.04, 0.06), ("push", 2, 0.04, 0.06)])
def test_success_is_a_distance_below_five_centimetres(make: Any, task: str, goal: int, near: float, far: float) -> None:
    env = make(task, image_size=16)
    start = env.reset(seed=7)[1]["state"]
    for shift, verdict in ((near, True), (far, False)):
        wanted = start.copy()
        wanted[goal] += shift if start[goal] < 0.44 else -shift
        info = env.reset(options={"state": start, "goal_state": wanted})[1]
        assert info["is_success"] is verdict and info["distance_m"] == pytest.approx(shift)
    wanted[goal] = start[goal]
    env.reset(options={"state": start, "goal_state": wanted})
    _, reward, terminated, _, _ = env.step(np.zeros(env.action_space.shape))
    assert terminated and reward == 1.0


@pytest.mark.parametrize("task", ["reach", "push"])
@pytest.mark.parametrize("action_mode", ["ee", "joint"])
def test_guardrails_are_built_from_the_exported_numbers(make: Any, tmp_path: Path, task: str, action_mode: str) -> None:
    env = make(task, action_mode, image_size=16)
    specs = env.guardrail_specs()
    file = tmp_path / "rules.toml"
    file.write_text(f"workspace = {specs['workspace']}\n")
    box = read_rules(file).rules.workspace
    rule = WorkspaceBox(box[:2], box[2:], unit="m")
    rules = [JointLimits(**each) for each in specs["readings"]]
    assert [each.unit for each in rules] == (["m"] if action_mode == "ee" else ["rad", "rad/s"])
    observation, info = env.reset(seed=8)
    assert float(rule.margin_at(TORCH.tensor(info["state"][:2]))) > 0
    reading = TORCH.tensor(observation["proprio"])
    for each in rules:
        assert float(each.margin_of(reading)) >= 0
        outside = reading.clone()
        outside[each.indices[0]] = each.high[0] + 0.1
        assert float(each.margin_of(outside)) < 0


def test_cube_and_tip_are_seen_wherever_they_are(make: Any) -> None:
    env = make("push")
    for x in (0.24, 0.44, 0.64):
        for y in (-0.23, 0.0, 0.23):
            for beside in (-0.06, 0.06):
                env.reset(options={"state": [x, y, x, y + beside, 0.0, 0.0, 0.0]})
                red, green, blue = np.moveaxis(env.render().astype(int), -1, 0)
                assert ((blue > 120) & (red < 60)).sum() > 30
                assert ((red > 120) & (green < 60)).sum() > 8


def test_wrong_input_is_refused_in_one_line(make: Any) -> None:
    with pytest.raises(UnknownNameError, match="unknown arm task 'pusch'. Did you mean 'push'?"):
        make("pusch")
    with pytest.raises(UnknownNameError, match="unknown arm action mode 'joints'"):
        make("reach", "joints")
    with pytest.raises(BadInputError, match="image_size: expected 16 to 1024 pixels, came 8"):
        make("reach", image_size=8)
    env = make("push", image_size=16)
    env.reset(seed=0)
    with pytest.raises(BadInputError, match="action: expected 2 finite numbers"):
        env.step(np.array([np.nan, 0.0]))
    with pytest.raises(BadInputError, match="arm push state: expected 7 or 32 finite numbers, came shape"):
        env.set_state(np.zeros(5))
    with pytest.raises(BadInputError, match="arm push goal_state: expected 7 or 32 finite numbers, came NaN"):
        env.reset(options={"goal_state": np.full(7, np.nan)})
    with pytest.raises(BadInputError, match="expected the tip from"):
        env.set_state([2.0, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0])
    with pytest.raises(BadInputError, match="expected 7 or 32 numbers, came 'here'"):
        env.set_state("here")


def test_the_general_id_takes_the_task_and_specs_name_the_special_ones() -> None:
    for options, name in (({}, "arm-reach"), ({"task": "push"}, "arm-push")):
        env: Any = gymnasium.make("wm/Arm-v0", disable_env_checker=True, image_size=16, **options).unwrapped
        assert env.env_spec.env == name and name in wm.envs.ENV_IDS
        env.close()
        env.close()


def test_bullet_is_imported_late_and_silently() -> None:
    code = (
        "import sys, gymnasium, wm.envs; assert 'pybullet' not in sys.modules;"
        "gymnasium.make('wm/Arm-v0', disable_env_checker=True).reset(seed=0); assert 'pybullet' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
