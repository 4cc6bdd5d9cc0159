from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm.datasets.collect.runner import Recording, record_episodes
from wm.datasets.collect.wander import WanderPolicy
from wm.envs.foreign.env import ForeignEnv
from wm.envs.foreign.load import load_world
from wm.envs.foreign.view import square
from wm.envs.foreign.world import ForeignWorld, Goal, Proprio
from wm.errors import BadInputError, WmError

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Toy(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point whose place is what it was pushed by; it says that it ends at every step."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None, action_space: Any = BOX, modes: Any = ("rgb_array",)) -> None:
        self.metadata = {"render_modes": list(modes), "render_fps": 20}
        self.render_mode, self.action_space = render_mode, action_space
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.place, self.steps = np.zeros(2), 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place, self.steps = self.place + action, self.steps + 1
        return self._seen(), 1.0, True, True, {}

    def render(self) -> Any:
        frame = np.zeros((20, 40, 3), np.uint8)
        frame[:, 10:30] = int(np.clip(128 + 20 * self.place[0], 0, 255))
        return frame

    def _seen(self) -> np.ndarray:
        return np.array([*self.place, self.steps])


class Broken(Toy):
    """One of its methods raises."""

    def __init__(self, broken: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        setattr(self, broken, self.boom)

    def boom(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("boom\nand bust")


def boom(*_: Any) -> Any:
    raise ValueError("boom")


gymnasium.register("wmtest/Toy-v0", entry_point=Toy, max_episode_steps=3)
gymnasium.register("wmtest/Broken-v0", entry_point=Broken)


def toy(**fields: Any) -> ForeignWorld:
    restorable = {
        "get_state": lambda env: [*env.place, env.steps],
        "set_state": lambda env, state: env.__dict__.update(place=state[:2], steps=state[2]),
    }
    return ForeignWorld(**{"id": "wmtest/Toy-v0", **restorable, **fields})


def test_neither_its_own_end_nor_a_time_limit_ends_an_episode() -> None:
    env = ForeignEnv(toy(), image_size=16)
    env.reset(seed=0)
    for count in range(1, 11):
        _, reward, terminated, truncated, info = env.step(np.zeros(2))
        assert (reward, terminated, truncated) == (0.0, False, False) and info["state"][-1] == count


def test_a_dm_control_task_goes_on_after_its_time_limit() -> None:
    pytest.importorskip("shimmy")
    pytest.importorskip("dm_control")
    world = ForeignWorld("shimmy:dm_control/reacher-easy-v0", repeat=1010, goal=Goal(("time",), 1.0))
    env = ForeignEnv(world, image_size=16)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[4]["state"][0] == pytest.approx(20.2)  # its limit is 20 s


def test_a_goal_is_reached_within_its_tolerance() -> None:
    env = ForeignEnv(toy(goal=Goal(("observation[0:2]",), 0.5)), image_size=16)
    start = env.reset(seed=0)[1]["state"]
    assert env.env_spec.state_names[:3] == ("goal observation[0]", "goal observation[1]", "state[0]")
    _, info = env.reset(options={"state": start, "goal_state": start[:2] + [0.8, 0.0]})
    assert not info["is_success"] and info["distance"] == pytest.approx(0.8)
    _, reward, terminated, truncated, info = env.step(np.array([0.4, 0.0]))
    assert info["is_success"] and (reward, terminated, truncated) == (1.0, True, False)
    assert info["distance"] == pytest.approx(0.4)


def test_the_distance_of_angles_knows_no_full_turns() -> None:
    goal = Goal(("x",), 0.1, angles=(1,))
    assert goal.distance(np.array([1.0, 3.1]), np.array([1.0, -3.1])) == pytest.approx(2 * np.pi - 6.2)
    assert goal.distance(np.array([3.1, 0.0]), np.array([-3.1, 0.0])) == pytest.approx(6.2)


def test_a_declared_success_replaces_the_tolerance() -> None:
    world = toy(goal=Goal(("observation[0]",), 1e-9), is_success=lambda now, goal: now[0] > goal[0])
    env = ForeignEnv(world, image_size=16)
    start = env.reset(seed=0)[1]["state"]
    assert env.reset(options={"state": start, "goal_state": start[:1] - 0.1})[1]["is_success"]
    assert not env.reset(options={"state": start, "goal_state": start[:1] + 0.1})[1]["is_success"]


def test_a_control_step_repeats_the_action_and_has_its_rate() -> None:
    env = ForeignEnv(toy(repeat=4, proprio=Proprio(("observation[0:2]",), ("x", "y"))), image_size=16)
    before = env.reset(seed=0)[0]["proprio"]
    after = env.step(np.array([0.25, 5.0]))[0]["proprio"]
    np.testing.assert_allclose(after - before, [1.0, 4.0], rtol=1e-6)
    assert env.env_spec.action.control_hz == 5.0 and env.env_spec.proprio is not None
    assert env.env_spec.proprio.names == ("x", "y") and env.env_spec.env == "toy" and env.kinematics is None


def test_a_picture_is_the_middle_square() -> None:
    frame = np.zeros((20, 40, 3), np.uint8)
    frame[:, 10:30] = np.arange(20, dtype=np.uint8)[:, None, None]
    np.testing.assert_array_equal(square(frame, 20, "x"), frame[:, 10:30])
    assert square(frame, 5, "x")[:, :, 0].tolist() == [[round(4 * row + 1.5)] * 5 for row in range(5)]


@pytest.mark.parametrize("frame", [None, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), [np.zeros((4, 4, 3))]])
def test_what_is_no_picture_is_refused(frame: Any) -> None:
    with pytest.raises(BadInputError, match=r"x: render: expected \(height, width, 3\) uint8, came"):
        square(frame, 4, "x")


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (toy(kwargs={"action_space": spaces.Discrete(3)}), "expected a Box of one dimension .* came Discrete"),
        (toy(kwargs={"action_space": spaces.Box(-1, 1, (2, 2))}), "expected a Box of one dimension"),
        (toy(kwargs={"action_space": spaces.Box(-np.inf, 1, (2,))}), "finite bounds, came"),
        (toy(kwargs={"modes": ("human",)}), "expected the render mode 'rgb_array', came \\['human'\\]"),
        (toy(kwargs={"colour": 3}), "cannot be made: TypeError: .*colour"),
        (toy(get_state=None, set_state=None), "state cannot be restored; declare get_state and set_state"),
        (toy(hide=("target",)), "hide: only MuJoCo"),
        (toy(camera={"distance": 1.0}), "camera: only MuJoCo"),
        (toy(proprio=Proprio(("observation[0:9]",))), "proprio.keys: .*0 to 2; 'observation' has 3 numbers"),
        (toy(proprio=Proprio(("observation[3]",))), "expected indices in 0 to 2"),
        (toy(proprio=Proprio(("speed",))), r"'speed': no such numbers; there are state \(3\), observation \(3\)"),
        (toy(proprio=Proprio(("state[-1]",))), r"expected 'key', 'key\[i\]' or 'key\[i:j\]', came 'state\[-1\]'"),
        (toy(proprio=Proprio(("observation",), ("x",))), "proprio.names: expected 3 names, came 1"),
        (toy(goal=Goal(("place",), 0.1)), "goal.of: 'place': no such numbers"),
        (toy(goal=Goal(("observation",), 0.1, (3,))), "goal.angles: expected indices in 0 to 2, came"),
        (ForeignWorld("CartPole-v1"), "expected a Box"),
        (ForeignWorld("Reacher-v5", hide=("targt",)), "no geom or site 'targt'; it has .*target"),
        (ForeignWorld("Reacher-v5", camera={"distanc": 1.0}), "camera.distanc: expected one of .*distance"),
        (ForeignWorld("Reacher-v5", camera={"name": "top"}), "camera.name: Reacher-v5 has no camera 'top'"),
    ],
)
def test_what_cannot_be_a_world_is_refused_in_one_line(world: ForeignWorld, said: str) -> None:
    with pytest.raises(WmError, match=said) as caught:
        ForeignEnv(world, image_size=16)
    assert "\n" not in str(caught.value)


def use(world: ForeignWorld) -> None:
    """All that is done with an environment."""
    env = ForeignEnv(world, image_size=16)
    start = env.reset(seed=0)[1]["state"]
    env.step(np.zeros(2))
    env.reset(options={"state": start, "goal_state": start})
    env.close()


@pytest.mark.parametrize("method", ["reset", "step", "close"])
def test_what_the_environment_raises_is_said_in_one_line(method: str) -> None:
    with pytest.raises(BadInputError) as caught:
        use(toy(id="wmtest/Broken-v0", kwargs={"broken": method}, goal=Goal(("observation",), 0.5)))
    assert str(caught.value) == f"wmtest/Broken-v0: {method}: RuntimeError: boom and bust"


def test_a_picture_that_raises_is_said_in_one_line() -> None:
    with pytest.raises(BadInputError, match="^wmtest/Broken-v0: cannot be drawn here: RuntimeError: boom and bust$"):
        use(toy(id="wmtest/Broken-v0", kwargs={"broken": "render"}))


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        ({"is_success": boom}, "is_success: ValueError: boom"),
        ({"is_success": lambda now, goal: now < goal}, "is_success: expected True or False, came array([False"),
        ({"is_success": lambda now, goal: None}, "is_success: expected True or False, came None."),
        ({"get_state": boom}, "get_state: ValueError: boom"),
        ({"get_state": lambda env: None}, "get_state: expected finite numbers, came None."),
        ({"get_state": lambda env: [0.0, np.nan]}, "get_state: expected finite numbers, came [0.0, nan]."),
        ({"get_state": lambda env: "left"}, "get_state: ValueError: could not convert"),
        ({"set_state": boom}, "set_state: ValueError: boom"),
    ],
)
def test_what_the_declaration_raises_is_said_in_one_line(functions: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        use(toy(goal=Goal(("observation",), 0.5), **functions))
    message = str(caught.value)
    assert message.startswith(f"wmtest/Toy-v0: {said}") and "\n" not in message


@pytest.mark.parametrize("answer", [True, np.True_, np.array([True]), np.array(True)])
def test_a_success_may_be_of_any_boolean_type(answer: Any) -> None:
    use(toy(goal=Goal(("observation",), 0.5), is_success=lambda now, goal: answer))


def test_the_users_interruption_passes() -> None:
    def interrupted(env: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use(toy(get_state=interrupted))


def test_what_a_worker_process_raises_keeps_its_text() -> None:
    make = partial(ForeignEnv, toy(id="wmtest/Broken-v0", kwargs={"broken": "step"}), 16)
    recording = Recording(make, partial(WanderPolicy, make().env_spec.action), 5, 0)
    with pytest.raises(BadInputError) as caught:
        next(record_episodes(recording, 0, 1, 0))
    assert str(pickle.loads(pickle.dumps(caught.value))) == "wmtest/Broken-v0: step: RuntimeError: boom and bust"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[goal]\nof = ['place']\ntolerance = 1\n", "goal.of: 'place': no such numbers"),
        ("[goal]\nof = ['qpos']\ntolerance = 1\nangles = [9]\n", "goal.angles: expected indices in 0 to"),
        ("[proprio]\nkeys = ['speed']\n", "proprio.keys: 'speed': no such numbers"),
        ("[proprio]\nkeys = ['observation']\nnames = ['x']\n", "proprio.names: expected "),
        ("hide = ['targt']\n", "hide: Reacher-v5 has no geom or site 'targt'"),
        ("[camera]\ndistanc = 1.0\n", "camera.distanc: expected one of azimuth, "),
        ("[camera]\nname = 'top'\n", "camera.name: Reacher-v5 has no camera 'top'"),
        ("[camera]\nlookat = [0.0, 1.0]\n", "camera.lookat: expected 3 numbers, came 2."),
        ("[camera]\nlookat = 1.0\n", "camera.lookat: expected a list of numbers, came 1.0."),
        ("[camera]\ndistance = 'x'\n", "camera.distance: expected a number, came 'x'."),
        ("[camera]\ntype = 1.5\n", "camera.type: expected a whole number, came 1.5."),
    ],
)
def test_what_does_not_fit_the_environment_is_refused_with_the_files_name(
    lines: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "world.toml"
    path.write_text('id = "Reacher-v5"\n' + lines)
    world = load_world(str(path))
    for where in (str(path), "world.toml"):  # a path below the present folder is said as it would be written there
        with pytest.raises(BadInputError) as caught:
            ForeignEnv(world, image_size=16)
        assert str(caught.value).startswith(f"{where}: {said}")
        monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "said"), [("hide", ("target",)), ("camera", {"distance": 1.0})])
def test_what_only_mujoco_has_is_refused_with_the_files_name(name: str, said: Any, tmp_path: Path) -> None:
    world = toy(**{name: said}, source=str(tmp_path / "world.toml"))
    with pytest.raises(BadInputError, match=f"^{tmp_path}/world.toml: {name}: only MuJoCo"):
        ForeignEnv(world, image_size=16)


def test_an_environment_that_gives_no_reason_is_refused_with_the_line_that_raised(tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text("def make(**_):\n    assert 1 == 2\n")
    found = importlib.util.spec_from_file_location("silent", tmp_path / "silent.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    gymnasium.register("wmtest/Silent-v0", entry_point=module.make)
    with pytest.raises(BadInputError) as caught:
        ForeignEnv(ForeignWorld("wmtest/Silent-v0"), image_size=16)
    said = "wmtest/Silent-v0: cannot be made: AssertionError: silent.py, line 2: assert 1 == 2"
    assert str(caught.value) == said
    del gymnasium.registry["wmtest/Silent-v0"]


@pytest.mark.parametrize(
    ("state", "said"),
    [([1.0], "expected 5 finite numbers"), ([np.nan] * 5, "NaN"), ("left", "came 'left'"), ([[1.0] * 5], "shape")],
)
def test_a_wrong_state_is_refused(state: Any, said: str) -> None:
    env = ForeignEnv(toy(goal=Goal(("observation[0:2]",), 0.5)), image_size=16)
    with pytest.raises(BadInputError, match=said):
        env.reset(options={"state": state})
    with pytest.raises(BadInputError, match=r"expected 2 or 5 finite numbers"):
        env.reset(options={"goal_state": [1.0] * 3})


def test_a_goal_needs_a_declaration() -> None:
    with pytest.raises(BadInputError, match=r"has no \[goal\]"):
        ForeignEnv(toy(), image_size=16).reset(options={"goal_state": [0.0] * 3})


def test_what_is_hidden_is_not_in_the_picture() -> None:
    pictures = []
    for hide in ((), ("target",)):
        env = ForeignEnv(ForeignWorld("Reacher-v5", hide=hide, goal=Goal(("qpos[2:4]",), 0.1)), image_size=64)
        state = env.reset(seed=0)[1]["state"]
        pictures.append(env.render())
        at = env.env_spec.state_names.index("qpos[2]")
        state[at : at + 2] = 0.15  # the target's place
        env.set_state(state)
        pictures.append(env.render())
    shown, moved, hidden, hidden_moved = pictures
    assert not np.array_equal(shown, moved) and np.array_equal(hidden, hidden_moved)


def test_mujoco_without_opengl_says_so() -> None:
    code = (
        "import sys; sys.modules['mujoco.egl'] = None\n"
        "from wm.envs.foreign.env import ForeignEnv\nfrom wm.envs.foreign.load import load_world\n"
        "from wm.errors import WmError\n"
        "try:\n    ForeignEnv(load_world('Reacher-v5'))\nexcept WmError as error:\n    print(error)"
    )
    environment = {**os.environ, "MUJOCO_GL": "egl"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=100)
    assert done.stdout.startswith("MuJoCo cannot draw here (") and done.stdout.count("\n") == 1, done.stderr


def test_logs_do_not_depend_on_the_number_of_workers() -> None:
    make = pickle.loads(pickle.dumps(partial(ForeignEnv, load_world("MountainCarContinuous-v0"), image_size=16)))
    recording = Recording(make, partial(WanderPolicy, make().env_spec.action), 5, 0)
    here, there = (list(record_episodes(recording, 0, 2, workers)) for workers in (0, 1))
    for one, other in zip(here, there, strict=True):
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(array, other.arrays()[name])
