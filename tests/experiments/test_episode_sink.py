from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm.datasets.reader import EpisodeStore
from wm.datasets.schema import DatasetSpec
from wm.envs.pusht.env import push_t_spec
from wm.errors import MismatchError, StoreError
from wm.experiments.episode_sink import STEPS_FILE, EpisodeSink
from wm.experiments.logs import log_windows
from wm.planners.control.messages import PlanReply
from wm.planners.control.report import StepLog, Tally
from wm.planners.control.states import State
from wm.robot import RobotObservation
from wm.specs import EnvSpec

pytestmark = pytest.mark.real_time

PUSHT = push_t_spec()
BLIND = DatasetSpec(EnvSpec("pusht", PUSHT.action, PUSHT.proprio, ()), 8, recipe={"command": "test"})
SEEING = DatasetSpec(PUSHT, 8, recipe={"command": "test"})


def seen(step: int) -> RobotObservation:
    image = np.full((8, 8, 3), step % 251, np.uint8)
    return RobotObservation(image, np.full(4, step, np.float32), float(step), step)


def step_log(step: int, **changes: Any) -> StepLog:
    values: dict[str, Any] = {
        "step": step,
        "time": 0.1 * step,
        "late_s": 0.001,
        "sent_s": 0.002,
        "state": State.RUNNING,
        "why": "",
        "observation": seen(step),
        "fresh": True,
        "asked": np.array([9.0, 9.0]),
        "certified": np.array([0.02 * step, -0.5]),
        "sent": np.array([0.01 * step, -0.5]),
        "plan_step": 0,
        "kind": "passed",
        "rule": None,
        "by": 0.0,
        "moved": 0.0,
        "margin": 1.0,
        "outside": 0.0,
        "plan": None,
        "deadline_ms": None,
    }
    return StepLog(**(values | changes))


def sink(path: Path, spec: DatasetSpec = BLIND, **options: Any) -> EpisodeSink:
    return EpisodeSink(path, spec, {"robot": "test"}, **options)


def lines(path: Path, key: str) -> list[dict[str, Any]]:
    def fail(name: str) -> None:
        raise AssertionError(f"not strict JSON: {name}")

    rows = [json.loads(line, parse_constant=fail) for line in (path / STEPS_FILE).read_text().splitlines()]
    return [row for row in rows if key in row]


def test_segments_share_an_observation_so_that_no_transition_is_lost(tmp_path: Path) -> None:
    log = sink(tmp_path / "log", segment_steps=4)
    for k in range(11):
        log.record(step_log(k))
    log.close()
    store = EpisodeStore(tmp_path / "log")
    store.verify()
    assert list(store.lengths) == [4, 4, 2]
    for e, first in enumerate((0, 4, 8)):
        steps = np.arange(first, first + int(store.lengths[e]) + 1)
        np.testing.assert_array_equal(store.frames(e)[:, 0, 0, 0], steps)
        np.testing.assert_array_equal(store.proprio(e)[:, 0], steps)
        np.testing.assert_allclose(store.actions(e), np.stack([0.01 * steps[:-1], np.full(len(steps) - 1, -0.5)], 1))
    assert [row["first_step"] for row in lines(tmp_path / "log", "episode")] == [0, 4, 8]
    assert [row["last_step"] for row in lines(tmp_path / "log", "episode")] == [3, 7, 9]


def test_a_skipped_step_or_one_without_a_new_observation_ends_the_episode(tmp_path: Path) -> None:
    log = sink(tmp_path / "log")
    for k in (0, 1, 2, 4, 5, 6, 7, 8, 9):
        log.record(step_log(k, fresh=k != 7, observation=seen(min(k, 6) if k == 7 else k)))
    log.close()
    store = EpisodeStore(tmp_path / "log")
    assert [store.frames(e)[:, 0, 0, 0].tolist() for e in range(len(store))] == [[0, 1, 2], [4, 5, 6], [8, 9]]
    assert len(lines(tmp_path / "log", "step")) == 9


def test_lone_steps_and_no_steps_leave_an_empty_readable_store(tmp_path: Path) -> None:
    for count in (0, 1):
        log = sink(tmp_path / str(count))
        for k in range(count):
            log.record(step_log(k, observation=None, fresh=False))
        log.close()
        log.close()
        assert len(EpisodeStore(tmp_path / str(count))) == 0


def test_true_states_are_those_of_the_observations(tmp_path: Path) -> None:
    def state_at(observation: RobotObservation) -> np.ndarray | None:
        return None if observation.sequence == 3 else np.full(7, 10.0 * observation.sequence)

    log = sink(tmp_path / "log", SEEING, state_at=state_at)
    for k in range(6):
        log.record(step_log(k))
    log.close()
    store = EpisodeStore(tmp_path / "log")
    assert [store.state(e)[:, 0].tolist() for e in range(len(store))] == [[0, 10, 20], [40, 50]]


@pytest.mark.parametrize("spec", [BLIND, SEEING], ids=["no true state", "true state"])
def test_training_windows_are_cut_from_it(tmp_path: Path, spec: DatasetSpec) -> None:
    log = sink(tmp_path / "log", spec, state_at=lambda _: np.zeros(7), segment_steps=30)
    for k in range(95):
        log.record(step_log(k))
    log.close()
    store = EpisodeStore(tmp_path / "log")
    states = np.zeros((int(store.observation_offsets[-1]), 3), np.float32)
    train, held_out = log_windows(store, states, history=2, horizon=2, frameskip=5)
    assert len(train.sampler) > 0 and len(held_out.sampler) > 0


def test_verdicts_are_told_and_a_plan_once(tmp_path: Path) -> None:
    log = sink(tmp_path / "log")
    plan = PlanReply(0, np.zeros((3, 2)), {"goal": 0.5}, {"keep_out": -1.5}, False, 120.0, "deadline")
    odd = {"kind": "stop", "rule": "keep_out", "by": np.inf, "margin": np.nan, "moved": np.inf, "plan": plan}
    odd |= {"outside": 1.5, "state": State.HOLDING, "why": "stale"}
    log.record(step_log(0, **odd))
    log.record(step_log(1, plan=plan))
    log.close()
    first, second = lines(tmp_path / "log", "step")
    assert (first["kind"], first["rule"], first["by"], first["margin"]) == ("stop", "keep_out", "inf", "nan")
    assert (first["outside"], first["state"], first["why"]) == (1.5, "holding", "stale") and second["why"] == ""
    assert second["certified"] == [0.02, -0.5]
    assert first["plan"]["energies"] == {"goal": 0.5} and first["plan"]["margins"] == {"keep_out": -1.5}
    assert "plan" not in second and second["sent"] == [0.01, -0.5] and second["asked"] == [9.0, 9.0]
    assert lines(tmp_path / "log", "run") == [{"run": {"robot": "test"}}]


def test_an_action_without_an_answer_is_told_and_in_no_episode(tmp_path: Path) -> None:
    log = sink(tmp_path / "log")
    for k in range(7):
        log.record(step_log(k, **({"sent": None, "sent_s": np.nan} if k == 3 else {})))
    log.close()
    store = EpisodeStore(tmp_path / "log")
    assert [store.frames(e)[:, 0, 0, 0].tolist() for e in range(len(store))] == [[0, 1, 2, 3], [4, 5, 6]]
    attempt = lines(tmp_path / "log", "step")[3]
    assert attempt["sent"] is None and attempt["sent_ms"] == "nan" and attempt["certified"] == [0.06, -0.5]


def test_the_end_is_told_with_its_reason_in_strict_json(tmp_path: Path) -> None:
    log, tally = sink(tmp_path / "log"), Tally(0.0, 0.005)
    history = ("running -> faulted (fault: RobotError: cable pulled)",)
    log.end(tally.report(State.FAULTED, "RobotError: cable pulled", 1.5, Counter({"stale": 2}), history))
    log.close()
    (row,) = lines(tmp_path / "log", "end")
    end = row["end"]
    assert (end["state"], end["why"], end["duration_s"]) == ("faulted", "RobotError: cable pulled", 1.5)
    assert end["late_ms"]["p99"] == "nan" and end["refused"] == {"stale": 2} and end["history"] == list(history)
    assert (end["uncertified"], end["contradictions"], end["outside"]) == (0, 0, 0.0)


def test_goes_on_with_a_store_and_cuts_off_a_torn_line(tmp_path: Path) -> None:
    for _ in range(2):
        log = sink(tmp_path / "log")
        for k in range(4):
            log.record(step_log(k))
        log.close()
        with (tmp_path / "log" / STEPS_FILE).open("a") as file:
            file.write('{"step": 4, "ti')
    log = sink(tmp_path / "log")
    assert len(log) == 2
    log.close()
    assert len(lines(tmp_path / "log", "step")) == 8 and len(lines(tmp_path / "log", "run")) == 3


def test_another_folder_or_spec_is_refused(tmp_path: Path) -> None:
    sink(tmp_path / "log").close()
    with pytest.raises(MismatchError, match="was made with another spec.env.state_names"):
        sink(tmp_path / "log", SEEING)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="not an episode store"):
        sink(tmp_path / "mine")


def _record_until_killed(path: Path) -> None:
    log = sink(path, segment_steps=5)
    for k in range(23):
        log.record(step_log(k))
    while len(log) < 4:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def test_kill_9_leaves_committed_episodes_and_every_line(tmp_path: Path) -> None:
    killed = multiprocessing.get_context("fork").Process(target=_record_until_killed, args=(tmp_path / "log",))
    killed.start()
    killed.join(30)
    assert killed.exitcode == -signal.SIGKILL
    store = EpisodeStore(tmp_path / "log")
    store.verify()
    assert list(store.lengths) == [5, 5, 5, 5]
    assert [row["step"] for row in lines(tmp_path / "log", "step")] == list(range(23))
    sink(tmp_path / "log", segment_steps=5).close()


def test_full_disk_is_a_store_error_at_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = sink(tmp_path / "log", segment_steps=2)

    def full(*_: object) -> int:
        raise StoreError("log: episode 0 cannot be written: No space left on device; kept: 0 committed episodes.")

    monkeypatch.setattr(log._writer, "append", full)
    with pytest.raises(StoreError, match="No space left on device; kept: 0"):
        for k in range(1000):
            log.record(step_log(k))
            time.sleep(0.001)
    with pytest.raises(StoreError, match="No space left on device"):
        log.close()


@pytest.mark.parametrize("short", [True, False])
def test_full_disk_under_the_lines(tmp_path: Path, short: bool) -> None:
    log = sink(tmp_path / "log")
    real = log._lines

    class Full:
        closed = False

        def write(self, data: bytes) -> int:
            if short:
                return len(data) // 2
            raise OSError(28, "No space left on device")

    log._lines = Full()
    with pytest.raises(StoreError, match=f"{STEPS_FILE}: cannot be written: No space left on device"):
        log.record(step_log(0))
    log._lines = real
    log.close()


def test_a_slow_disk_does_not_hold_up_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = sink(tmp_path / "log", segment_steps=2)
    append = log._writer.append
    monkeypatch.setattr(log._writer, "append", lambda episode: (time.sleep(0.3), append(episode))[1])
    begin = time.monotonic()
    for k in range(5):
        log.record(step_log(k))
    assert time.monotonic() - begin < 0.2
    log.close()
    assert list(EpisodeStore(tmp_path / "log").lengths) == [2, 2]
