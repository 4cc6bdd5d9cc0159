"""`wm control` with a world whose motion nobody declares: only where that is asked for, and inside bounds alone."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from tests.experiments.control_parts import in_virtual_time
from tests.experiments.place import Place, Run, refused, runner
from tests.experiments.small_planner import plan_little
from wm.datasets.reader import EpisodeStore
from wm.encoders.tiny import TinyEncoder
from wm.experiments.control_setup import UNCERTIFIED, ControlRequest, loop_settings, prepare
from wm.experiments.delayed_planner import PlannerSetup
from wm.experiments.episode_sink import STEPS_FILE
from wm.experiments.rules import Rules
from wm.experiments.worlds import find_world
from wm.logs import Moments
from wm.model import WorldModel, build_model
from wm.planners.control.bounds_filter import BoundsFilter
from wm.planners.control.shield import ShieldLimits
from wm.specs import EnvSpec, ModelSpec

pytestmark = pytest.mark.real_time

DECLARED = """
id = "Pendulum-v1"
name = "swing"
frameskip = 2
control_hz = 20.0

[goal]
of = ["state"]
tolerance = 0.5
angles = [0]
"""
FEELS = '[proprio]\nkeys = ["observation"]\n'


def tiny_model(env: EnvSpec) -> WorldModel:
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    spec = ModelSpec(env, encoder.spec(), frameskip=2, history=2, tokens=2, width=4, hidden=16, depth=1)
    felt = None if env.proprio is None else Moments(torch.zeros(env.proprio.width), torch.ones(env.proprio.width))
    model = build_model(spec, encoder, Moments(torch.zeros(1), torch.ones(1)), felt)
    for weights in model.joint.predictor.parameters():
        weights.normal_(std=0.3)
    model.usual_distance.fill_(1e3)
    return model


def folder_of(path: Path, feels: bool) -> Place:
    """With a declaration, a model of it, a goal picture and its start."""
    declared = path / "swing.toml"
    declared.write_text(DECLARED + FEELS * feels)
    world = find_world(str(declared))
    env = world.make_env(96)
    tiny_model(env.env_spec).save(path / "model.safetensors", {"command": "test"})
    _, info = env.reset(seed=1)
    start = info["state"]
    for _ in range(20):
        seen, _, _, _, info = env.step(np.array([2.0], np.float32))
    Image.fromarray(seen["image"]).save(path / "goal.png")
    states = {"env": "swing", "start_state": start.tolist(), "goal_state": info["state"].tolist()}
    (path / "goal.json").write_text(json.dumps(states))
    return Place(path, path / "model.safetensors", path / "goal.png")


@pytest.fixture
def feels() -> bool:
    """Whether the robot reports proprioception."""
    return True


@pytest.fixture
def folder(feels: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    plan_little(monkeypatch)
    return folder_of(tmp_path, feels)


@pytest.fixture
def run(folder: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`wm control` in a time of its own, so that a busy machine skips no control step."""
    in_virtual_time(monkeypatch)
    options = {"robot": f"sim:{folder.folder / 'swing.toml'}", "goal": folder.goal, "model": folder.model}
    return runner(monkeypatch, capsys, "control", options | {"duration": 1.0})


@pytest.mark.parametrize("feels", [True, False])
def test_a_foreign_world_is_driven_logged_and_nothing_called_certified(folder: Place, run: Run) -> None:
    code, out, err = run("--uncertified", "--json", log=folder.log, rate=20)
    assert code == 0, err
    record = json.loads(out)
    assert record["state"] == "idle" and record["why"] == "the duration is over" and record["reached"] is False
    assert record["certified"] is False and record["uncertified"] == 20 and record["rules"] is None
    assert record["shield_limits"] == {"latency": 0.0} and record["warnings"][0] == UNCERTIFIED
    assert f"warning: {UNCERTIFIED}\n" in err and "NO ACTION IS CERTIFIED | bounds changed 0" in err
    assert record["plans"]["fresh"] >= 2 and record["actions"] == {"passed": 20}
    rows = [json.loads(line) for line in (folder.log / STEPS_FILE).read_text().splitlines()]
    steps = [row for row in rows if "step" in row]
    lead = record["settings"]["lead_steps"]
    assert lead == 4 and not np.any([step["sent"] for step in steps[:lead]])
    assert np.any([step["sent"] for step in steps[lead:]]) and {step["margin"] for step in steps} == {"-inf"}
    assert rows[0]["run"]["certified"] is False and rows[-2]["end"]["certified"] is False
    store = EpisodeStore(folder.log)
    store.verify()
    assert store.spec.env == find_world(str(folder.folder / "swing.toml")).make_env(16).env_spec


def test_the_summary_speaks_of_bounds_and_of_no_certificate(run: Run) -> None:
    code, out, err = run("--uncertified", duration=0.5)
    assert code == 0, err
    assert (
        "\nno action was certified, only the bounds of the actions were kept\n0 of 10 actions were clipped, 0 " in out
    )
    assert "stops were not certified" not in out and "shield" not in out and "guardrail" not in out


def test_it_starts_in_the_start_s_state_but_for_one_control_step_of_rest(folder: Place) -> None:
    """Nobody knows how to bring it to rest: a stop is one step, and stepping on would lose the start."""
    parts = prepare(request_of(folder))
    robot, start = parts.rig.simulated, json.loads((folder.folder / "goal.json").read_text())["start_state"]
    assert robot is not None
    np.testing.assert_array_equal(robot.info["state"], start)
    env = find_world(str(folder.folder / "swing.toml")).make_env(16)
    env.reset(options={"state": np.array(start)})
    expected = env.step(np.zeros(1, np.float32))[4]["state"]
    robot.stop()
    np.testing.assert_array_equal(robot.info["state"], expected)
    robot.disconnect()


def request_of(folder: Place, **changes: Any) -> ControlRequest:
    robot = f"sim:{folder.folder / 'swing.toml'}"
    return ControlRequest(robot=robot, goal=folder.goal, model=str(folder.model), uncertified=True, **changes)


def test_the_world_s_name_reaches_the_planner_s_process(folder: Place) -> None:
    parts = prepare(request_of(folder))
    parts.rig.robot.disconnect()
    assert isinstance(parts.shield, BoundsFilter) and parts.guardrails == [] and parts.shape is None
    assert parts.settings.picture_travel is None
    setup: PlannerSetup = pickle.loads(pickle.dumps(parts.setup))
    planner = setup()
    assert planner.guardrails == [] and planner.mpc.frameskip == 2
    assert setup.world == str(folder.folder / "swing.toml")


def test_ends_when_the_goal_is_reached(folder: Place, run: Run) -> None:
    states = json.loads((folder.folder / "goal.json").read_text())
    (folder.folder / "goal.json").write_text(json.dumps(states | {"goal_state": states["start_state"]}))
    code, out, err = run("--uncertified", "--until-reached", duration=5)
    assert code == 0 and "the goal is reached; goal reached" in out, err


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([], {}, r"'.*swing\.toml' declares no kinematics, .* \(--uncertified drives a simulation inside its"),
        (["--uncertified"], {"robot": "sim:pusht"}, r"--uncertified: robot 'sim:pusht' declares its kinematics, so"),
        (["--uncertified"], {"robot": "sim:arm"}, "--uncertified: robot 'sim:arm' declares its kinematics"),
        (["--uncertified"], {"robot": "tcp:127.0.0.1:1"}, r"--uncertified: expected a simulated robot \(sim:…\), came"),
        (["--uncertified"], {"keep_out": "1,2,3"}, "--uncertified: no rule can be kept .* none of --keep-out, --work"),
        (["--uncertified"], {"workspace": "0,0,512,512"}, "--uncertified: no rule can be kept"),
        (["--uncertified"], {"max_speed": 1}, "--uncertified: no rule can be kept"),
        (["--uncertified"], {"rules": "rules.toml"}, "--uncertified: no rule can be kept"),
        (["--uncertified"], {"rate": 10}, r"control rate \[Hz\] in --rate: expected 20\.0, came 10\.0"),
        (["--uncertified"], {"robot": "sim:Pendulum-v1"}, "model of another environment: env .*: expected pendulum"),
        (["--uncertified"], {"robot": "sim:nowhere.toml"}, "nowhere.toml: no such declaration"),
        (
            ["--uncertified"],
            {"robot": "sim:chips", "model": "chips", "seed": 1},
            "plans of 'chips' are 1 control step long; expected more than the 2",
        ),
    ],
)
def test_what_is_refused(run: Run, words: list[str], options: dict[str, object], message: str) -> None:
    refused(run(*words, **options), message)


def test_a_model_has_to_be_named(folder: Place, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    options = {"robot": f"sim:{folder.folder / 'swing.toml'}", "goal": folder.goal}
    run = runner(monkeypatch, capsys, "control", options)
    refused(
        run("--uncertified"), r"--model: expected the path of a model of '.*swing\.toml', for which none is shipped"
    )


@pytest.mark.parametrize("changes", [{"rules": Rules(max_speed=1.0)}, {"bounds": {"position_error": 1.0}}])
def test_rules_and_stated_errors_are_refused_from_python_too(folder: Place, changes: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="--uncertified: no rule can be kept without kinematics"):
        prepare(request_of(folder, **changes))


@pytest.mark.parametrize(
    ("rate", "planned", "lead", "stale", "timeout"),
    [(10.0, 25, 2, 0.25, 2.0), (20.0, 25, 4, 0.25, 2.0), (30.0, 10, 5, 0.25, 2.0), (1.0, 25, 2, 2.5, 6.0)],
)
def test_a_plan_has_its_time_at_any_rate(rate: float, planned: int, lead: int, stale: float, timeout: float) -> None:
    settings = loop_settings(rate, 96, ShieldLimits(), 0.0, None, planned)
    assert (settings.lead_steps, settings.stale_after_s, settings.plan_timeout_s) == (lead, stale, timeout)


def test_an_alias_is_the_world_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert find_world("arm") is find_world("arm-push") is find_world("wm/ArmPush-v0")
    goal = runner(monkeypatch, capsys, "goal", {"env": "arm", "out": tmp_path / "goal.png"})
    code, _, err = goal(seed=1000)
    assert code == 0 and json.loads((tmp_path / "goal.json").read_text())["env"] == "arm-push", err
    assert "wm/ArmPush-v0" in gymnasium.registry
