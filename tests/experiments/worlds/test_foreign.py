"""A world that is none of ours, from its declaration to an evaluation; and what is refused on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest
from PIL import Image

from tests.experiments.place import Run, refused, runner, tiny_model
from tests.experiments.small_planner import plan_little
from tests.experiments.small_training import TINY, small_training
from tests.experiments.worlds.conftest import PENDULUM
from wm.datasets.collect.wander import WanderPolicy
from wm.datasets.reader import EpisodeStore
from wm.errors import MismatchError
from wm.experiments import build, collect
from wm.experiments.worlds import find_world
from wm.model import load_model


class Wordy(gymnasium.Env):  # type: ignore[type-arg]
    """It tells of itself in words alone."""

    metadata = {"render_modes": ["ansi"]}
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode


if "wmtest/Wordy-v0" not in gymnasium.registry:
    gymnasium.register("wmtest/Wordy-v0", entry_point=Wordy)


@pytest.fixture(scope="module")
def built(pendulum: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a build."""
    out = tmp_path_factory.mktemp("built")
    with small_training():
        build.build(str(pendulum), out, replace(TINY, steps=18, draft_steps=0), workers=0)
    return out


@pytest.fixture
def model(built: Path) -> Path:
    return built / "model" / "model.safetensors"


@pytest.fixture(autouse=True)
def small_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_little(monkeypatch)


@pytest.fixture
def goal(pendulum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`wm goal`, which needs no model."""
    return runner(monkeypatch, capsys, "goal", {"env": pendulum, "out": tmp_path / "goal.png"})


def test_logs_and_models_carry_the_declaration(built: Path, model: Path) -> None:
    recipe = EpisodeStore(built / "data").spec.recipe
    declared = recipe["declaration"]
    assert recipe["policy"] == WanderPolicy.name
    assert (declared["id"], declared["repeat"], declared["kwargs"]) == ("Pendulum-v1", 1, {})
    assert declared["goal"] == {"of": ["state"], "tolerance": 0.5, "angles": [0]} and "source" not in declared
    made, provenance = load_model(model)
    assert made.spec.frameskip == 2 and made.spec.env.env == "pendulum"
    assert provenance["data"]["declaration"] == declared  # type: ignore[index]


def test_a_store_of_another_declaration_is_not_continued(tmp_path: Path) -> None:
    path, settings = tmp_path / "world.toml", {"steps": 2, "seed": 0, "workers": 0, "image_size": 16}
    path.write_text(PENDULUM)
    collect.collect(str(path), 1, tmp_path / "data", **settings)
    other = tmp_path / "other.toml"
    other.write_text(PENDULUM.replace("0.5", "0.25"))
    with pytest.raises(MismatchError, match=r"declaration.*0\.5.*0\.25"):
        collect.collect(str(other), 2, tmp_path / "data", **settings)
    moved = path.rename(tmp_path / "moved.toml")  # where a declaration lies is no part of it
    collect.collect(str(moved), 2, tmp_path / "data", **settings)
    assert len(EpisodeStore(tmp_path / "data")) == 2


def test_functions_of_a_declaration_are_recorded_by_name(tmp_path: Path) -> None:
    path = tmp_path / "world.py"
    path.write_text(
        "from wm.envs.foreign.world import ForeignWorld, Goal\n"
        "def near(now, goal): return abs(now[0] - goal[0]) < 0.1\n"
        'world = ForeignWorld("Pendulum-v1", goal=Goal(("state",), 0.5), is_success=near)\n'
    )
    assert find_world(str(path)).recipe()["declaration"]["is_success"] == "near"


def test_goal_plan_and_eval(
    goal: Run, model: Path, pendulum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code, text, err = goal(seed=1000)
    assert code == 0 and "a goal 25 control steps from its start (seed 1000)" in text, err
    options = {"env": pendulum, "model": model, "budget-steps": 4}
    plan = runner(monkeypatch, capsys, "plan", options | {"goal": tmp_path / "goal.png", "out": tmp_path / "plan"})
    code, text, err = plan()
    assert code == 0 and "pendulum" in text, err
    record = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert record["measures"].keys() == {"distance"} and record["guardrails"] == {}
    sizes = {"episodes": 2, "seed": 1000, "threads": 1, "out": tmp_path / "eval"}
    code, text, err = runner(monkeypatch, capsys, "eval", options | sizes)()
    assert code == 0, err
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert list(metrics["baselines"]) == ["noop", "random"]  # there is no oracle
    lines = (tmp_path / "eval" / "episodes.jsonl").read_text().splitlines()
    distances = [json.loads(line)["measures"]["distance"] for line in lines]
    assert len(distances) == 2 and metrics["distance_mean"] == pytest.approx(sum(distances) / 2)
    assert "gymnasium" in metrics["config"]["versions"]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Pendulm-v1", "unknown environment 'Pendulm-v1'"),
        ("gymnasium:Pendulm-v1", "unknown environment 'gymnasium:Pendulm-v1'. Did you mean 'Pendulum-v1'"),
        ("nosuch:Env-v0", "no module 'nosuch': is it installed, and its name right?"),
        ("wmtest/Wordy-v0", r"wmtest/Wordy-v0: expected the render mode 'rgb_array', came \['ansi'\]"),
        ("CartPole-v1", r"CartPole-v1: actions: expected a Box of one dimension .*, came Discrete\(2\)"),
        ("nowhere.toml", "nowhere.toml: no such declaration"),
        ("Pendulum-v1", r"goals: 'pendulum' declares no goal test; add a \[goal\] to its declaration"),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused(env: str, message: str, goal: Run, tmp_path: Path) -> None:
    refused(goal(env=env), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("frameskp = 2\n", r"world.toml: unknown field of a declaration 'frameskp'. Did you mean 'frameskip'"),
        ("repeat = 0\n", "world.toml: repeat: expected a whole number >= 1, came 0"),
        ('kwargs = "g"\n', "world.toml: kwargs: expected a table, came 'g'"),
        ("[goal]\ntolerance = 1\n", r"world.toml: goal.of: expected a list of texts, came nothing"),
        ("=", "world.toml: not a TOML file"),
    ],
)
def test_a_wrong_declaration_is_refused(wrong: str, message: str, goal: Run, tmp_path: Path) -> None:
    declared = tmp_path / "world.toml"
    declared.write_text('id = "Pendulum-v1"\n' + wrong)
    refused(goal(env=declared), message)


SOUND = """
import gymnasium
import numpy as np
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from wm.envs.foreign.world import ForeignWorld, Goal

class Broken(PendulumEnv):
    pass

def get(env):
    return np.array(env.state, float)

def put(env, state):
    env.state = state

def success(now, goal):
    return False

gymnasium.registry.pop("wmtest/Pendulum-v0", None)
gymnasium.register("wmtest/Pendulum-v0", entry_point=Broken)
"""
WORLD = """
world = ForeignWorld("wmtest/Pendulum-v0", goal=Goal(("observation",), 0.5), get_state=get, set_state=put,
                     is_success=success)
"""
BOOM = "def boom(*_, **__):\n    raise RuntimeError('boom')\n"


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    return tmp_path / "world.py"


def test_a_declaration_in_python_is_used(goal: Run, declared: Path) -> None:
    declared.write_text(SOUND + WORLD)
    code, text, err = goal(env=declared)
    assert code == 0 and "a goal 25 control steps from its start" in text, err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("success = boom", "/world.py: is_success: RuntimeError: boom$"),
        ("success = np.equal", r"/world.py: is_success: expected True or False, came array\(\["),
        ("get = boom", "/world.py: get_state: RuntimeError: boom$"),
        ("def get(env): return None", "/world.py: get_state: expected finite numbers, came None.$"),
        ("put = boom", "/world.py: set_state: RuntimeError: boom$"),
        ("Broken.reset = boom", "wmtest/Pendulum-v0: reset: RuntimeError: boom$"),
        ("Broken.step = boom", "wmtest/Pendulum-v0: step: RuntimeError: boom$"),
        ("Broken.render = boom", "wmtest/Pendulum-v0: cannot be drawn here: RuntimeError: boom$"),
        ("Broken.__init__ = boom", "wmtest/Pendulum-v0: cannot be made: RuntimeError: boom"),
    ],
)
def test_code_of_a_declaration_that_raises_is_refused(wrong: str, message: str, goal: Run, declared: Path) -> None:
    declared.write_text(SOUND + BOOM + wrong + WORLD)
    refused(goal(env=declared), message)
    assert list(declared.parent.glob("goal.*")) == []


def test_code_that_raises_in_a_worker_process_is_refused(
    declared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared.write_text(SOUND + BOOM + "Broken.step = boom" + WORLD)
    options = {"env": declared, "out": tmp_path / "data", "episodes": 2, "steps": 3, "workers": 1, "image-size": 16}
    code, _, err = runner(monkeypatch, capsys, "collect", options)()
    assert code == 2 and err.splitlines()[-1] == "wm: error: wmtest/Pendulum-v0: step: RuntimeError: boom", err
    assert "Traceback" not in err


def test_an_evaluation_needs_a_declared_goal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = tmp_path / "world.toml"
    declared.write_text(PENDULUM.split("[goal]")[0])
    run = runner(monkeypatch, capsys, "eval", {"env": declared, "model": model, "out": tmp_path / "out"})
    code, _, err = run()
    assert code == 2 and err.startswith("wm: error: ") and err.count("\n") == 1, err


def test_a_model_of_another_world_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pusht = tmp_path / "pusht.safetensors"
    tiny_model().save(pusht, {"command": "test"})
    Image.new("RGB", (96, 96)).save(tmp_path / "goal.png")
    options = {"goal": tmp_path / "goal.png", "out": tmp_path / "out"}
    run = runner(monkeypatch, capsys, "plan", options)
    refused(run(env="chips", model=pusht), "model of another environment: env in .*: expected chips, came pusht")
    refused(run(env="chips", model=model), "model of another environment: env in .*: expected chips, came pendulum")
    refused(run(env="chip", model=model), "unknown environment 'chip'. Did you mean 'chips'")
    assert not (tmp_path / "out").exists()
