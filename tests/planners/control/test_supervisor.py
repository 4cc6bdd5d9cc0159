"""The handle and the process together; what the process decides is tested in tests/wm/test_watchdog.py."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.planners.control.stoppers import Writes, broken, slow
from wm.errors import BadInputError, RobotError
from wm.planners.control import supervisor as module
from wm.planners.control.supervisor import Supervisor

pytestmark = pytest.mark.real_time


@pytest.fixture
def writes(tmp_path: Path) -> Writes:
    return Writes(tmp_path / "stops")


@pytest.fixture
def supervisor(writes: Writes) -> Iterator[Supervisor]:
    supervisor = Supervisor(writes, timeout_s=0.3)
    supervisor.start(60)
    yield supervisor
    supervisor.close()


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def send(supervisor: Supervisor, number: int) -> None:
    assert supervisor.pid is not None
    os.kill(supervisor.pid, number)


def test_silence_is_stopped_by_the_other_process_and_latches_until_reset(
    supervisor: Supervisor, writes: Writes
) -> None:
    assert supervisor.trouble() is None
    supervisor.watch()
    begin = time.monotonic()
    while time.monotonic() < begin + 0.3:
        supervisor.beat()
        time.sleep(0.01)
    last = time.monotonic_ns()
    assert writes.calls() == [] and supervisor.trouble() is None
    until(lambda: supervisor.stopped_at)
    ((pid, stamp),) = writes.calls()
    assert pid == supervisor.pid and 200 < (stamp - last) / 1e6 < 400
    assert supervisor.trouble() == "supervisor: no heartbeat for 300 ms"
    supervisor.reset()
    assert supervisor.trouble() is None and supervisor.stopped_at is None
    time.sleep(0.35)
    assert len(writes.calls()) == 1  # after the reset it does not watch


def test_estop_stops_and_latches(supervisor: Supervisor, writes: Writes) -> None:
    supervisor.estop()
    until(lambda: supervisor.trouble() == "supervisor: e-stop")
    supervisor.reset()
    assert supervisor.trouble() is None and len(writes.calls()) == 1


def test_reset_is_refused_until_the_robot_has_confirmed(supervisor: Supervisor, writes: Writes) -> None:
    hindrance = writes.path.with_suffix(".broken")
    hindrance.touch()
    supervisor.estop()
    with pytest.raises(RobotError, match="the robot has not confirmed that it stands still"):
        supervisor.reset(0.1)
    assert supervisor.trouble() == "supervisor: e-stop"
    hindrance.unlink()
    supervisor.reset()
    assert supervisor.trouble() is None and len(writes.calls()) == 1


def test_signals_of_the_terminal_do_not_reach_it(supervisor: Supervisor) -> None:
    assert supervisor.pid is not None and os.getsid(supervisor.pid) == supervisor.pid
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        send(supervisor, number)
    time.sleep(0.05)
    assert supervisor.trouble() is None


def test_it_runs_before_ordinary_processes_where_that_is_allowed(supervisor: Supervisor) -> None:
    assert supervisor.pid is not None
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        pytest.skip("this user may not set a real-time priority")
    assert os.sched_getscheduler(supervisor.pid) == os.SCHED_RR


def test_end_while_the_robot_is_driven_stops_it_first(supervisor: Supervisor, writes: Writes) -> None:
    supervisor.watch()
    send(supervisor, signal.SIGTERM)
    until(lambda: (supervisor.beat(), supervisor.trouble())[1] is not None)
    until(lambda: len(writes.calls()) == 1)


def test_supervisor_that_dies_is_noticed_and_can_be_started_again(supervisor: Supervisor) -> None:
    send(supervisor, signal.SIGKILL)
    until(lambda: supervisor.trouble() == "the supervisor process died (exit code -9)")
    with pytest.raises(RobotError, match=r"cannot be reset: the supervisor process died"):
        supervisor.reset(0.05)
    supervisor.start(60)
    assert supervisor.trouble() is None
    with pytest.raises(BadInputError, match="the supervisor is running"):
        supervisor.start()


def test_supervisor_that_hangs_is_noticed_and_closing_does_not(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANGS_AFTER_S", 0.1)
    send(supervisor, signal.SIGSTOP)
    until(lambda: supervisor.trouble() == "the supervisor process hangs (silent for more than 100 ms)")
    begin = time.monotonic()
    supervisor.close()
    assert time.monotonic() - begin < 3
    assert supervisor.trouble() == "the supervisor was not started"


def test_stopper_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(RobotError, match=r"the supervisor did not start: OSError: no such robot\."):
        Supervisor(broken).start()
    with pytest.raises(RobotError, match=r"the supervisor did not start: no answer within 0\.1 s\."):
        Supervisor(slow).start(0.1)


@pytest.mark.parametrize(
    ("timeout_s", "poll_s", "message"),
    [
        (0.1, 0.02, r"poll_s must be in \(0, 0.01\]"),
        (0.1, 0, "poll_s must be in"),
        (0.005, 0.005, "timeout_s must be >= 2"),
        (float("nan"), 0.005, "timeout_s must be"),
    ],
)
def test_times_out_of_range_are_refused(timeout_s: float, poll_s: float, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Supervisor(broken, timeout_s=timeout_s, poll_s=poll_s)
