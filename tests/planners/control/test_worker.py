from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.planners.control.fakes import PLANNER, make_broken, make_quick
from tests.planners.control.stoppers import broken, deaf, dies
from wm.errors import BadInputError, WmError
from wm.planners.control import worker as module
from wm.planners.control.messages import PlanFailure, PlannerSpec, PlanReply, PlanRequest
from wm.planners.control.worker import PlannerProcess, _answer, _end, _serve

pytestmark = pytest.mark.real_time

PLAN, RAISE, DIE = 0.0, 0.1, 0.2


def request(step: int, what: float) -> PlanRequest:
    """Larger than a pipe holds, so that whoever wrote it in one go would block on a process that does not read."""
    return PlanRequest(step, np.zeros((2, 256, 256, 3), np.uint8), None, np.full((2, 2), what), 100.0)


def answer(worker: PlannerProcess, seconds: float = 10.0) -> PlanReply | PlanFailure:
    end = time.monotonic() + seconds
    while (reply := worker.poll()) is None:
        assert time.monotonic() < end, "no answer"
        time.sleep(0.001)
    return reply


def quick(call: Callable[[], object]) -> object:
    """What a call returns that must not block."""
    begin = time.monotonic()
    result = call()
    assert time.monotonic() - begin < 0.5
    return result


def test_worker_plans_and_reports_what_goes_wrong_and_its_own_death() -> None:
    """One process for all, since it takes seconds to start."""
    worker = PlannerProcess(make_quick, PLANNER, threads=3)
    worker.start(60)
    assert worker.alive and worker.poll() is None and worker.spec == PLANNER
    assert quick(lambda: worker.submit(request(7, PLAN))) is True
    assert quick(lambda: worker.submit(request(8, PLAN))) is False and worker.busy
    reply = answer(worker)
    assert isinstance(reply, PlanReply) and (reply.step, reply.actions.shape) == (7, (4, 2)) and not worker.busy
    assert reply.energies == {"threads": 3.0} and os.environ.get("OMP_NUM_THREADS") != "3"
    assert worker.poll() is None

    assert worker.submit(request(9, RAISE))
    failure = answer(worker)
    assert isinstance(failure, PlanFailure) and failure.step == 9
    assert failure.reason.startswith("BadInputError: the goal is not reachable (after ")

    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)  # Ctrl-C in the terminal is the loop's
    os.kill(worker.pid, signal.SIGSTOP)  # it hangs
    assert quick(lambda: worker.submit(request(10, PLAN))) is True
    time.sleep(0.1)
    assert quick(worker.poll) is None and worker.alive and worker.busy
    os.kill(worker.pid, signal.SIGCONT)
    assert isinstance(answer(worker), PlanReply)

    assert worker.submit(request(11, DIE))
    assert answer(worker) == PlanFailure(11, "the planner process died (exit code -9)")
    assert not worker.alive and worker.submit(request(12, PLAN)) is False
    with pytest.raises(BadInputError, match="was started before"):
        worker.start(1)
    worker.close()
    worker.close()
    assert worker.pid is None


def test_process_that_does_not_end_when_asked_is_killed() -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=deaf, args=(sender,), daemon=True)
    process.start()
    assert receiver.recv() == ""
    begin = time.monotonic()
    _end(process)
    assert time.monotonic() - begin < 3 and process.exitcode == -signal.SIGKILL


def test_planner_that_cannot_be_built_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    _serve(theirs, make_broken, 1)
    assert ours.recv() == "BadInputError: no such model"


def test_start_that_takes_too_long_is_refused() -> None:
    worker = PlannerProcess(make_quick, PLANNER)
    with pytest.raises(WmError, match=r"the planner did not start: no answer within 0\.05 s\."):
        worker.start(0.05)
    assert not worker.alive and worker.submit(request(0, PLAN)) is False


def test_planner_that_dies_while_it_is_built_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_serve", dies)
    with pytest.raises(WmError, match=r"the planner did not start: the process died\."):
        PlannerProcess(broken, PLANNER).start(10)  # type: ignore[arg-type]


def test_plan_that_raises_is_a_failure() -> None:
    def plan(_: PlanRequest) -> PlanReply:
        raise ValueError("out of ideas")

    failure = _answer(plan, request(3, PLAN))
    assert isinstance(failure, PlanFailure) and failure.reason.startswith("ValueError: out of ideas (after ")


def test_what_is_not_a_plan_is_a_failure() -> None:
    assert _answer(lambda request: None, request(3, PLAN)) == PlanFailure(3, "expected a PlanReply, came NoneType")  # type: ignore[arg-type,return-value]


def test_worker_needs_a_thread() -> None:
    with pytest.raises(BadInputError, match="threads must be >= 1, came 0"):
        PlannerProcess(make_quick, PlannerSpec(PLANNER.action, PLANNER.observation, 1, 1), threads=0)
