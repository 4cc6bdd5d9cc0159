"""What the loop promises of emergency stops, Ctrl-C and enabling again, on a fake clock."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from tests.planners.control.fakes import (
    GO,
    LEAD,
    EstopRobot,
    Rig,
    assert_log_is_what_the_robot_received,
    no_collection,  # noqa: F401
    rig,
    taken,
)
from wm.errors import BadInputError, RobotError
from wm.planners.control.loop import ControlLoop
from wm.planners.control.states import State

pytestmark = pytest.mark.real_time


def assert_nothing_is_replayed(r: Rig, loop: ControlLoop) -> None:
    """After a stop: only reset, arm and start lead to motion, and it comes from a plan asked for after the start."""
    count, last = len(r.log.steps), r.log.steps[-1].step
    requests = len(r.planner.requests)
    for call in (loop.start, loop.arm, lambda: loop.run(1)):
        with pytest.raises(BadInputError, match="the loop is (stopped|faulted)"):
            call()
    loop.reset()
    assert loop.state is State.IDLE
    with pytest.raises(BadInputError, match="the loop is idle"):
        loop.run(1)
    r.robot.place = r.robot.place + 150.0  # somebody moved it
    loop.arm()
    assert loop.run(1).state is State.IDLE
    after = r.log.steps[count:]
    moves = [bool(taken(step).any()) for step in after]
    assert LEAD <= moves.index(True) <= LEAD + 1 and all(moves[LEAD + 1 :])  # the planner may first end the old request
    assert all(step.plan_step is None or step.plan_step > last for step in after)
    first = r.planner.requests[requests]
    assert first.proprio is not None and (first.proprio[:, :2] > 350).all()  # planned from where it is now


@pytest.mark.parametrize("how", ["thread", "own thread", "supervisor", "robot", "supervisor dies", "Ctrl-C"])
def test_estop_in_the_midst_of_a_plan_latches_and_nothing_is_replayed(how: str) -> None:
    r = Rig(robot_class=EstopRobot)
    loop = r.armed()

    def press() -> None:
        if how == "thread":
            thread = threading.Thread(target=loop.estop, args=("red button",))
            thread.start()
            thread.join()
        elif how == "own thread":
            loop.estop("red button")
        elif how == "supervisor":
            r.supervisor.problem = "supervisor: no heartbeat for 100 ms"
        elif how == "supervisor dies":
            r.supervisor.problem = "the supervisor process died (exit code -9)"
        elif how == "robot":
            r.robot.estopped = True  # type: ignore[attr-defined]
        else:
            os.kill(os.getpid(), signal.SIGINT)

    pressed = r.clock() + 0.55
    r.clock.after(0.55, press)
    report = loop.run(5)
    assert report.state is State.STOPPED and len(r.robot.received) == 6
    assert r.clock() - pressed < 0.015 and r.robot.events[-1] == "stop"
    reason = {
        "supervisor": "supervisor: no heartbeat for 100 ms",
        "supervisor dies": "the supervisor process died (exit code -9)",
        "robot": "the robot's own e-stop",
        "Ctrl-C": "interrupted (Ctrl-C)",
    }
    assert report.why == reason.get(how, "red button")
    assert_log_is_what_the_robot_received(r)
    if how == "robot":
        with pytest.raises(RobotError, match="cannot reset: the robot's own e-stop is pressed"):
            loop.reset()
        r.robot.estopped = False  # type: ignore[attr-defined]
    assert_nothing_is_replayed(r, loop)


def test_estop_while_an_action_is_being_sent_stops_after_it_and_logs_it() -> None:
    r = rig()
    loop = r.armed()
    r.robot.before_send = lambda index: loop.estop("red button") if index == 5 else None
    report = loop.run(5)
    assert report.state is State.STOPPED and len(r.robot.received) == 6
    assert r.robot.events[-2:] == ["stop", "stop"] and r.robot.events.count("stop") == 3
    assert_log_is_what_the_robot_received(r)


def test_robot_that_was_stopped_before_it_moved_is_not_frozen_when_it_is_armed_again() -> None:
    r = rig()
    loop = r.armed()
    stands = r.robot.place

    def stop_dead(index: int) -> None:
        if index == LEAD:
            loop.estop("red button")

    r.robot.before_send = stop_dead
    r.robot.before_stop = lambda: setattr(r.robot, "place", stands)
    assert loop.run(5).state is State.STOPPED and r.moving == [False] * LEAD + [True]
    loop.reset()
    r.robot.before_send = lambda index: None
    loop.arm()
    report = loop.run(1)
    assert report.holds == 0 and sum(r.moving) > 5


def test_estop_between_certifying_and_sending_sends_nothing() -> None:
    r = rig()
    loop = r.armed()
    r.shield.rule = lambda c: (loop.estop("red button"), c)[1] if len(r.robot.received) == 5 else c
    assert loop.run(5).state is State.STOPPED and len(r.robot.received) == 5


def test_estop_from_another_thread_stops_the_robot_at_once_although_the_loop_is_stuck() -> None:
    r = rig()
    loop = r.armed()
    seen: list[list[str]] = []

    def stuck(index: int) -> None:
        if index == 5:
            thread = threading.Thread(target=loop.estop, args=("red button",))
            thread.start()
            thread.join()
            seen.append(list(r.robot.events))

    r.robot.before_send = stuck
    assert loop.run(5).state is State.STOPPED
    assert seen[0][-1] == "stop" and r.supervisor.asked


@pytest.mark.parametrize("state", ["idle", "armed"])
def test_estop_latches_when_nothing_runs(state: str) -> None:
    r = rig()
    if state == "armed":
        r.loop.arm()
    r.loop.estop("red button")
    assert r.loop.state is State.STOPPED and r.loop.why == "red button"
    with pytest.raises(BadInputError, match=r"the loop is stopped \(red button\)"):
        r.loop.run(1) if state == "armed" else r.loop.arm()
    assert ("stop" in r.robot.events[2:]) == (state == "armed") and "send" not in r.robot.events


def test_keyboard_interrupt_out_of_a_call_is_a_safe_stop() -> None:
    r = rig()

    def press(index: int) -> None:
        if index == 5:
            raise KeyboardInterrupt

    r.robot.before_send = press
    report = r.armed().run(5)
    assert (report.state, report.why) == (State.STOPPED, "interrupted (Ctrl-C)") and r.robot.events[-1] == "stop"


def test_second_ctrl_c_gets_out_of_a_call_that_hangs_and_still_stops() -> None:
    r = rig()

    def hang(index: int) -> None:
        if index == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            time.sleep(5)

    r.robot.before_send = hang
    begin = time.monotonic()
    report = r.armed().run(5)
    assert report.state is State.STOPPED and time.monotonic() - begin < 4 and r.robot.events[-1] == "stop"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("presses", [2, 5])
@pytest.mark.parametrize("where", ["beat", "unwatch", "stop"])
def test_more_ctrl_c_while_the_robot_is_stopped_does_not_keep_it_from_being_stopped(where: str, presses: int) -> None:
    r = rig()
    loop = r.armed()
    ending: list[bool] = []

    def press(*_: object) -> None:
        if ending:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    r.robot.before_send = lambda index: ending.append(True) if index == 9 else None
    if where == "stop":
        r.robot.before_stop = press
    else:
        setattr(r.supervisor, where, press)
    loop.run(1)
    assert r.robot.events[-1] == "stop" or (where == "stop" and r.supervisor.asked)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_gets_out_of_a_stop_that_hangs() -> None:
    r = rig()
    loop = r.armed()

    def hang() -> None:
        r.robot.before_stop = lambda: None
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        time.sleep(5)

    r.robot.before_stop = hang
    begin = time.monotonic()
    report = loop.run(0.5)
    assert report.state is State.STOPPED and time.monotonic() - begin < 4 and r.robot.events[-1] == "stop"


def test_end_of_the_program_stops_the_robot() -> None:
    r = rig()

    def leave(index: int) -> None:
        if index == 5:
            raise SystemExit(3)

    r.robot.before_send = leave
    with pytest.raises(SystemExit):
        r.armed().run(5)
    assert r.robot.events[-1] == "stop" and r.loop.state is State.STOPPED


def test_fault_needs_reset_and_connects_anew() -> None:
    r = rig()
    r.robot.before_send = lambda index: (_ for _ in ()).throw(RobotError("cable pulled")) if index == 5 else None
    loop = r.armed()
    assert loop.run(1).state is State.FAULTED
    r.robot.before_send = lambda index: None
    assert_nothing_is_replayed(r, loop)
    assert r.robot.events.count("connect") == 2 and "disconnect" in r.robot.events


def test_reset_is_refused_while_the_loop_runs_or_the_supervisor_has_not_seen_the_stop() -> None:
    r = rig()
    loop = r.armed()
    errors: list[str] = []

    def press() -> None:
        loop.estop("red button")
        try:
            loop.reset()
        except BadInputError as error:
            errors.append(str(error))

    r.clock.after(0.55, press)
    assert loop.run(5).state is State.STOPPED
    assert errors == ["cannot reset: the loop is still running."]
    r.supervisor.problem = "dead"
    with pytest.raises(RobotError, match="the supervisor cannot be reset"):
        loop.reset()
    assert loop.state is State.STOPPED


def test_reenabling_far_from_the_last_target_begins_with_a_new_plan() -> None:
    r = rig()
    loop = r.armed()
    loop.run(1.2)
    last = r.log.steps[-1].step
    r.robot.place = np.array([20.0, 500.0])
    r.planner.action = -GO
    loop.arm()
    loop.run(1)
    after = [step for step in r.log.steps if step.step > last]
    assert not any(taken(step).any() for step in after[:LEAD])
    np.testing.assert_array_equal(taken(after[LEAD]), -GO)
    assert after[LEAD].plan_step is not None and after[LEAD].plan_step > last
    request = next(request for request in r.planner.requests if request.step > last)
    assert request.proprio is not None
    np.testing.assert_array_equal(request.proprio[:, :2], [[20.0, 500.0]] * 2)
    assert not request.committed.any()
