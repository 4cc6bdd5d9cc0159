from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiments.control_parts import InlineProcess
from tests.experiments.place import NEAR, Place, Run, refused, runner, write_start
from wm.checkpoint import load_tensors, save_tensors
from wm.datasets.reader import EpisodeStore
from wm.envs.bridge import BridgeRobot, BridgeServer, BridgeStopper
from wm.envs.gym_robot import GymRobot
from wm.envs.pusht.env import push_t_spec
from wm.errors import StoreError
from wm.experiments.assemble import make_env
from wm.experiments.episode_sink import STEPS_FILE, EpisodeSink
from wm.experiments.robots import SimulatedRobot
from wm.planners.control.loop import ControlLoop
from wm.planners.control.report import StepLog
from wm.planners.control.supervisor import Supervisor
from wm.robot import RobotObservation

pytestmark = pytest.mark.real_time


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`wm control` with sensible options."""
    monkeypatch.setattr("wm.experiments.control.PlannerProcess", InlineProcess)
    options = {"robot": "sim:pusht", "goal": place.goal, "model": place.model, "duration": 1.0}
    return runner(monkeypatch, capsys, "control", options)


def lines(log: Path, key: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (log / STEPS_FILE).read_text().splitlines()]
    return [row for row in rows if key in row]


def test_drives_and_logs_what_training_reads(place: Place, run: Run) -> None:
    code, out, err = run("--keep-out", "450,450,20", log=place.log, rate=10, workspace="0,0,512,512", max_speed=2000)
    assert code == 0, err
    assert "idle after 1." in out and "goal not reached" in out and "smallest margin at the readings" in out
    assert "1.0 s idle | energy goal" in out and "| margin keep_out +" in out
    assert "0 stops were not certified\n0 readings contradicted the stated bounds\n" in out
    store = EpisodeStore(place.log)
    store.verify()
    assert store.spec.env == push_t_spec() and store.spec.image_size == 96
    steps = lines(place.log, "step")
    assert [step["step"] for step in steps] == list(range(10)) and list(store.lengths) == [9]
    np.testing.assert_array_equal(store.actions(0), np.array([step["sent"] for step in steps[:9]], np.float32))
    assert not store.actions(0)[:2].any() and store.actions(0)[2:].any()  # the first plan acts from step 2 on
    np.testing.assert_allclose(store.state(0)[:, [0, 1, 5, 6]], store.proprio(0), atol=1e-3)
    assert steps[1]["plan"]["margins"].keys() == {"keep_out", "workspace", "speed"}
    assert all(step["outside"] == 0 for step in steps) and steps[5]["certified"] == pytest.approx(steps[5]["sent"])
    (end,) = lines(place.log, "end")
    assert (end["end"]["state"], end["end"]["why"]) == ("idle", "the duration is over")
    (ran,) = lines(place.log, "run")
    assert ran["run"]["robot"] == "sim:pusht" and ran["run"]["rules"]["keep_out"] == [[450.0, 450.0, 20.0]]


def test_a_rules_file_reaches_planner_shield_and_log(place: Place, run: Run) -> None:
    rules = place.folder / "rules.toml"
    rules.write_text(
        "keep_out_boxes = [[400, 400, 500, 500]]\nmax_acceleration = 9000\n"
        "[bounds]\nposition_error = 2\ndisturbance = 1\n"
    )
    code, out, err = run("--json", "--keep-out", "450,50,20", rules=rules, log=place.log)
    assert code == 0, err
    record = json.loads(out)
    assert record["rules"]["keep_out_boxes"] == [[400, 400, 500, 500]] and record["rules"]["max_acceleration"] == 9000
    assert record["shield_limits"]["position_error"] == 2 and record["shield_limits"]["disturbance"] == 1
    assert record["smallest_margins_at_readings"].keys() == {"keep_out", "keep_out_boxes", "workspace"}
    margins = lines(place.log, "step")[1]["plan"]["margins"]
    assert margins.keys() == {"keep_out", "keep_out_boxes", "workspace", "acceleration"}


def test_another_run_goes_on_with_the_same_log_and_json_is_alone_on_stdout(place: Place, run: Run) -> None:
    write_start(place.folder / "goal.json", goal_state=NEAR)
    run(log=place.log, duration=0.3)
    code, out, err = run("--json", log=place.log, duration=0.4, latency_ms=100)
    assert code == 0, err
    record = json.loads(out, parse_constant=lambda name: pytest.fail(f"not strict JSON: {name}"))
    assert record["state"] == "idle" and record["why"] == "the duration is over" and record["reached"] is True
    assert record["periods"] == 4 and record["shield_limits"]["latency"] == 0.1
    assert record["log"] == {"path": str(place.log), "episodes": 2}
    assert list(EpisodeStore(place.log).lengths) == [2, 3] and len(lines(place.log, "run")) == 2
    assert "0.4 s idle" in err


def test_ends_when_the_simulator_finds_the_goal_reached(place: Place, run: Run) -> None:
    write_start(place.folder / "goal.json", goal_state=NEAR)
    code, out, err = run("--until-reached", duration=20)
    assert code == 0, err
    assert re.search(r"idle after 0\.\d s: the goal is reached; goal reached", out)


def test_ctrl_c_stops_the_robot_closes_the_log_and_exits_with_130(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = EpisodeSink.record

    def pressing(self: EpisodeSink, step: StepLog) -> None:
        record(self, step)
        if step.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(EpisodeSink, "record", pressing)
    code, out, err = run(log=place.log, duration=60)
    assert code == 130
    assert re.search(r"stopped after \d\.\d s: interrupted \(Ctrl-C\)", out)
    EpisodeStore(place.log).verify()
    assert list(EpisodeStore(place.log).lengths) == [4] and len(lines(place.log, "step")) == 5
    assert lines(place.log, "end")[0]["end"]["why"] == "interrupted (Ctrl-C)"


def test_robot_behind_a_bridge(place: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patient, and in a time that passes more slowly, since server, loop and supervisor share a test machine."""
    loop = functools.partial(ControlLoop, clock=slow_clock, sleep=lambda seconds: time.sleep(SLOWER * seconds))
    monkeypatch.setattr("wm.experiments.control.ControlLoop", loop)
    monkeypatch.setattr("wm.experiments.control.Supervisor", functools.partial(Supervisor, timeout_s=5.0))
    monkeypatch.setattr(BridgeRobot, "at", functools.partial(BridgeRobot.at, timeout_s=5.0, clock=slow_clock))
    start = {"state": START_OF_BRIDGE}
    robot = GymRobot(make_env("pusht", 96), free_running=True, reset_options=start, clock=slow_clock)
    with BridgeServer(robot, deadman_periods=50.0, clock=slow_clock) as server:
        host, port = server.address
        code, out, err = run("--json", robot=f"tcp:{host}:{port}", log=place.log, duration=0.6)
        assert code == 0, err
        record = json.loads(out)
        assert record["state"] == "idle" and record["reached"] is None and record["shield_limits"]["latency"] == 0.2
        refused(
            run(robot=f"tcp:{host}:{port}", keep_out="100,120,99"), r"guardrail 'keep_out': the start .* breaks it by"
        )
        refused(run(robot=f"tcp:{host}:{port}", rate=20), r"control rate \[Hz\] in --rate: expected 10\.0, came 20\.0")
        BridgeStopper(host, port, timeout_s=5.0)()
        for _ in range(2):
            told = r"not its commander .*client 127\.0\.0\.1.*\(--reset releases it, once its cause is gone\)"
            refused(run(robot=f"tcp:{host}:{port}"), told)
        for options in (["--reset"], []):
            code, _, err = run(*options, robot=f"tcp:{host}:{port}", duration=0.3)
            assert code == 0, err
    store = EpisodeStore(place.log)
    store.verify()
    assert store.spec.env.state_names == () and store.state(0).shape[1] == 0 and store.all_actions().any()


START_OF_BRIDGE = np.array([100.0, 120.0, 300.0, 300.0, 0.5])
SLOWER = 5.0


def slow_clock() -> float:
    return time.monotonic() / SLOWER


def test_log_that_cannot_be_written_stops_the_robot(
    place: Place,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: EpisodeSink, step: object) -> None:
        raise StoreError("steps.jsonl: cannot be written: No space left on device.")

    monkeypatch.setattr(EpisodeSink, "record", full)
    code, out, err = run(log=place.log)
    assert code == 2 and out.count("faulted after") == 1
    assert "the robot was stopped: StoreError: steps.jsonl: cannot be written: No space left on device" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"robot": "sim:pushtt"}, r"unknown robot 'sim:pushtt'\. Did you mean 'sim:pusht'\?"),
        ({"robot": "pusht"}, r"unknown robot 'pusht'. Did you mean 'sim:pusht'.* Known: .*sim:pusht, tcp:HOST:PORT"),
        ({"robot": "tcp:localhost"}, r"robot 'tcp:localhost': expected tcp:HOST:PORT, e\.g\."),
        ({"robot": "tcp:127.0.0.1:1"}, r"127\.0\.0\.1:1"),
        ({"robot": "tcp:127.0.0.1:1", "start": "goal.json"}, "--start: expected a simulated robot"),
        ({"rate": 20}, r"control rate \[Hz\] in --rate: expected 10\.0, came 20\.0"),
        ({"keep_out": "100,120,30"}, r"guardrail 'keep_out': the start \[100\.0, 120\.0\] breaks it by 45\.0 px"),
        ({"keep_out": "1,2"}, "--keep-out: expected x,y,r"),
        ({"workspace": "110,0,500,500"}, "guardrail 'workspace': the start .* breaks it by 25\\.0 px"),
        ({"rules": "none.toml"}, r"rules file '.*none\.toml': No such file or directory"),
        ({"goal": "goal.json"}, r"goal\.json: expected a picture .*came something else"),
        ({"goal": "none.png"}, r"none\.png: expected a picture file, there is none"),
        (
            {"log": "goal.json"},
            r"goal\.json: expected the folder of an episode store, came a file",
        ),
        ({"log": "goal.json/log"}, r"goal\.json/log: cannot be written"),
        ({"log": "."}, r"not an episode store: it has no zarr\.json"),
        ({"duration": 0}, r"duration: expected a number of seconds above 0, at most 86400, came 0\.0"),
        ({"duration": "nan"}, "duration: expected a number of seconds above 0, at most 86400, came nan"),
        ({"duration": 1e308}, r"duration: expected a number of seconds above 0, at most 86400, came 1e\+308"),
        ({"duration": 86401}, "duration: .* at most 86400, came 86401"),
        ({"latency_ms": -1}, r"latency-ms: expected a number of at least 0, at most 10000, came -1\.0"),
        ({"latency_ms": 1e308}, r"latency-ms: .* at most 10000, came 1e\+308"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
        ({"model": "pushtt"}, r"unknown model .*'pushtt'\. Did you mean 'pusht'\?"),
        ({"planner": "icme"}, r"unknown planner 'icme'\. Did you mean 'icem'\?"),
    ],
)
def test_what_is_refused(
    place: Place,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    message: str,
) -> None:
    monkeypatch.chdir(place.folder)
    before = sorted(place.folder.rglob("*"))
    refused(run(**options), message)
    assert sorted(place.folder.rglob("*")) == before


def test_robot_that_declares_no_kinematics_is_refused(place: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedRobot, "kinematics", property(lambda self: None))
    refused(run(), "robot 'sim:pusht': it declares no kinematics, so no action can be certified")


def test_robot_that_may_break_a_rule_before_it_stands_still_is_refused(place: Place, run: Run) -> None:
    """It stands 55 px away from the keep-out, by a reading that may be wrong by 60 px."""
    rules = place.folder / "rules.toml"
    rules.write_text("keep_out = [[100, 220, 30]]\n[bounds]\nposition_error = 60\n")
    message = (
        r"error: guardrail 'keep_out': the robot at \[100.0, 120.0, .*\] may break it by 5\.0 before it stands still"
    )
    refused(run(rules=rules), message)


def test_stop_that_was_not_certified_ends_with_2_and_is_told_apart(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings that run away contradict the stated bounds."""
    observe = SimulatedRobot.get_observation

    def jump(self: SimulatedRobot) -> RobotObservation:
        seen = observe(self)
        return dataclasses.replace(seen, proprio=seen.proprio + np.float32(9.0 * max(0, seen.sequence - 5)))

    monkeypatch.setattr(SimulatedRobot, "get_observation", jump)
    code, out, err = run(log=place.log)
    assert code == 2
    told = re.search(r"\n(\d+) stops were not certified; (the first: .* by \d+\.\d in control step \d+)\n", out)
    assert told is not None and re.search(r"\n\d+ readings contradicted the stated bounds, by [\d.]+ px at most\n", out)
    assert f"wm: error: {told[1]} stops were not certified; {told[2]}." in err
    (end,) = lines(place.log, "end")
    assert end["end"]["holds"] >= 1 and end["end"]["uncertified"] == int(told[1]) and end["end"]["state"] == "idle"
    held = [step for step in lines(place.log, "step") if step["outside"] > 0]
    assert held[0]["kind"] == "uncertified_stop" and "outside of what the stated bounds allow" in held[0]["why"]


def test_until_reached_needs_a_goal_that_is_known(place: Place, run: Run) -> None:
    refused(run("--until-reached", seed=3), "until-reached: the goal's state is not known")


def test_model_of_another_robot_is_refused(place: Place, run: Run) -> None:
    tensors, header = load_tensors(place.model)
    header["spec"]["env"]["action"]["control_hz"] = 20.0
    save_tensors(place.model, tensors, header)
    refused(run(), "model of another robot: specification .*control_hz=10.0.*control_hz=20.0")
