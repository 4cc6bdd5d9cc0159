"""The loop in order: rate, states, delay compensation, what is logged. What goes wrong is in tests/faults."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.planners.control.fakes import (
    GO,
    LEAD,
    PERIOD,
    STOP,
    LatchRobot,
    Rig,
    no_collection,  # noqa: F401
    rig,
    taken,
)
from wm.errors import BadInputError, RobotError
from wm.planners.control.loop import LoopSettings
from wm.planners.control.shield import Certified
from wm.planners.control.states import State
from wm.robot import RobotObservation


def test_fixed_rate_on_the_grid_without_drift() -> None:
    r = rig(plan_timeout_s=100)
    r.robot.before_send = lambda index: r.clock.sleep(0.03 + 0.001 * (index % 7))
    report = r.armed().run(60)
    begins = np.array([step.time for step in r.log.steps])
    np.testing.assert_allclose(begins - begins[0], PERIOD * np.arange(600), atol=0.002)
    assert (report.periods, report.on_time, report.skipped, report.on_time_share) == (600, 600, 0, 1.0)
    assert report.late_ms.max < 2 and report.duration_s == pytest.approx(60, abs=0.01)


def test_overrun_skips_to_the_next_period_and_never_bursts() -> None:
    r = rig()
    r.robot.before_send = lambda index: r.clock.sleep(0.35 if index == 5 else 0.0)
    report = r.armed().run(2)
    steps = [step.step for step in r.log.steps]
    assert steps == [*range(6), *range(9, 20)]
    assert np.diff([step.time for step in r.log.steps]).min() > 0.9 * PERIOD
    assert (report.periods, report.skipped) == (20, 3) and report.on_time_share == 17 / 20
    assert r.shield.skips == [(1 + 6, 3)]


def test_action_that_was_meant_for_a_period_that_is_over_is_not_sent() -> None:
    r = rig()
    observe = r.robot.get_observation
    late = r.clock() + 1.0

    def slow() -> RobotObservation:
        if late <= r.clock() < late + 0.15:
            r.clock.sleep(0.15)
        return observe()

    r.robot.get_observation = slow  # type: ignore[method-assign]
    r.armed().run(2)
    (overrun,) = [step for step in r.log.steps if step.sent_s > 0.1]
    assert overrun.step == 10 and not taken(overrun).any() and r.shield.skips == [(1 + 10, 1)]  # one when arming


def test_plan_is_executed_from_lead_steps_after_it_was_asked_for() -> None:
    r = rig()
    r.armed().run(1)
    assert r.moving == [False] * LEAD + [True] * 8
    assert [step.plan_step for step in r.log.steps] == [None, None, *[0] * 5, *[5] * 3]
    assert [request.step for request in r.planner.requests] == [0, 5]


def test_request_carries_the_actions_of_the_time_it_takes() -> None:
    r = rig()
    r.planner.answer = lambda request: replace(
        r.planner.plan(request),
        actions=np.concatenate([request.committed, 0.01 * (request.step + np.arange(2, 20))[:, None] * np.ones(2)]),
    )
    r.armed().run(2)
    for request in r.planner.requests:
        executed = np.array(r.robot.received[request.step : request.step + LEAD])
        np.testing.assert_array_equal(request.committed, executed)


def test_committed_action_is_the_one_the_robot_took_not_the_one_asked_for() -> None:
    r = rig()
    r.shield.rule = lambda c: replace(c, action=0.5 * c.action, kind="corrected", rule="speed", by=1.0)
    r.armed().run(1)
    np.testing.assert_array_equal(r.planner.requests[1].committed, [0.5 * GO, GO])


def test_request_has_pictures_one_stride_apart_and_a_deadline_before_the_splice() -> None:
    r = rig()
    r.armed().run(2)
    by_step = {step.step: step.observation for step in r.log.steps}
    for request in r.planner.requests[1:]:
        for row, step in enumerate((request.step - 2, request.step)):
            seen = by_step[step]
            assert seen is not None and request.proprio is not None
            np.testing.assert_array_equal(request.images[row], seen.image)
            np.testing.assert_array_equal(request.proprio[row], seen.proprio)
        assert 150 < request.deadline_ms < 1000 * (LEAD * PERIOD - r.settings.reply_margin_s) + 1e-6


def test_before_the_first_pictures_the_robot_stood_still() -> None:
    r = rig()
    r.armed().run(0.5)
    first = r.planner.requests[0]
    np.testing.assert_array_equal(first.images[0], first.images[1])


def test_plan_that_runs_out_is_asked_for_in_time() -> None:
    r = rig(replan_every=100)
    r.planner.length = 6
    r.armed().run(3)
    assert all(r.moving[LEAD:])


def test_busy_planner_is_not_asked() -> None:
    r = rig(replan_every=1)
    r.armed().run(2)
    assert np.diff([request.step for request in r.planner.requests]).min() >= 2


def test_log_tells_what_was_asked_certified_and_sent() -> None:
    r = rig()
    r.shield.rule = lambda c: Certified(0.5 * c.action, "corrected", "speed", 3.0, 0.25, 1.5)
    send = r.robot.send_action
    r.robot.send_action = lambda action: send(action).astype(np.float32)  # type: ignore[method-assign]
    report = r.armed().run(1)
    step = r.log.steps[-1]
    np.testing.assert_array_equal(step.asked, GO)
    np.testing.assert_array_equal(step.sent, 0.5 * GO)
    assert (step.kind, step.rule, step.by, step.moved, step.margin) == ("corrected", "speed", 3.0, 0.25, 1.5)
    assert step.state is State.RUNNING and step.fresh and step.plan is not None
    assert report.actions == {"corrected": 10} and report.interventions == 10 and report.altered == 0
    np.testing.assert_array_equal(step.certified, 0.5 * GO)
    assert (step.outside, step.why, report.uncertified, report.outside) == (0.0, "", 0, 0.0)


def test_action_that_the_robot_changed_is_counted_and_kept_as_it_was_taken() -> None:
    r = rig()
    send = r.robot.send_action
    r.robot.send_action = lambda action: send(0.9 * action)  # type: ignore[method-assign]
    report = r.armed().run(1)
    assert report.altered == 8
    np.testing.assert_array_equal(r.log.steps[-1].sent, 0.9 * GO)
    np.testing.assert_array_equal(r.shield.held[-1][-1], 0.9 * GO)


def test_shield_sees_what_was_sent_in_order_and_is_reset_at_each_start() -> None:
    r = rig()
    loop = r.armed()
    assert r.shield.held.pop() == []  # arming
    loop.run(1)
    for step, held in enumerate(r.shield.held):
        np.testing.assert_array_equal(np.array(held).reshape(-1, 2), np.array(r.robot.received[:step]).reshape(-1, 2))
    loop.arm()
    loop.run(0.1)
    assert r.shield.resets == 6 and r.shield.held[-1] == []  # two when arming, one when starting


def test_run_ends_idle_with_the_robot_stopped_and_unwatched() -> None:
    r = rig()
    report = r.armed().run(1)
    assert (report.state, report.why) == (State.IDLE, "the duration is over")
    assert r.robot.events[-1] == "stop" and not r.supervisor.watched
    assert report.history == ("armed -> running (start)", "running -> idle (finish: the duration is over)")


def test_arming_checks_connects_and_stops_before_anything_moves() -> None:
    r = rig()
    assert r.loop.state is State.IDLE
    r.loop.arm()
    assert r.loop.state is State.ARMED and r.robot.events == ["connect", "stop"]
    r.loop.disarm()
    r.loop.arm()
    assert r.robot.events == ["connect", "stop", "stop"]


def test_run_needs_an_armed_loop() -> None:
    with pytest.raises(BadInputError, match=re.escape("cannot start: the loop is idle. Possible: arm, e-stop, fault.")):
        rig().loop.run(1)


@pytest.mark.parametrize("duration", [0, -1.0, float("nan")])
def test_run_needs_a_duration(duration: float) -> None:
    with pytest.raises(BadInputError, match="duration_s must be > 0"):
        rig().armed().run(duration)


def test_arming_without_fresh_observations_is_refused_and_lets_go_of_the_robot() -> None:
    r = rig()
    r.robot.twist = lambda o: replace(o, stamp=o.stamp - 1.0)
    with pytest.raises(RobotError, match=r"cannot arm: no fresh observation within 2 s \(\d+ stale\)"):
        r.loop.arm()
    assert r.loop.state is State.IDLE and r.robot.events[-1] == "disconnect"


def test_arming_without_planner_or_supervisor_is_refused() -> None:
    r = rig()
    r.planner.alive = False
    with pytest.raises(BadInputError, match="the planner process does not run"):
        r.loop.arm()
    r = rig()
    r.supervisor.problem = "the supervisor was not started"
    with pytest.raises(RobotError, match="cannot arm: the supervisor was not started"):
        r.loop.arm()
    assert r.robot.events == [] and r.loop.state is State.STOPPED
    r.loop.reset()
    assert r.supervisor.resets == 1
    r.loop.arm()


def test_closing_disarms_and_lets_go_of_the_robot() -> None:
    r = rig()
    r.armed().close()
    assert r.loop.state is State.IDLE and r.robot.events[-1] == "disconnect"
    r.loop.close()
    assert r.robot.events.count("disconnect") == 1


def test_supervisor_that_trips_during_the_last_stop_is_noticed() -> None:
    r = rig()
    loop = r.armed()
    r.robot.before_stop = lambda: setattr(r.supervisor, "problem", "supervisor: no heartbeat for 100 ms")
    report = loop.run(1)
    assert (report.state, report.why) == (State.STOPPED, "supervisor: no heartbeat for 100 ms")


def test_robot_whose_stop_latches_is_released_by_arming_only() -> None:
    r = Rig(robot_class=LatchRobot)
    loop = r.armed()
    assert loop.run(1).state is State.IDLE and any(r.moving)
    assert r.robot.latched  # type: ignore[attr-defined]
    loop.arm()
    r.robot.stop()  # somebody else's stop
    assert loop.run(1).state is State.FAULTED and "stopped; reset it first" in loop.why
    assert "reset force=False" in r.robot.events and "reset force=True" not in r.robot.events
    loop.reset()
    assert "reset force=True" not in r.robot.events and loop.state is State.IDLE


class SharedRobot(LatchRobot):
    """Whose latch, where anyone else stopped it, only a forced reset releases; its connection may break."""

    stopped_by: str | None = None
    broken = reachable = None

    def connect(self) -> None:
        super().connect()
        if self.reachable is False:
            raise RobotError("cannot be reached")
        self.broken = False

    def reset(self, force: bool = False) -> None:
        if self.broken:
            raise RobotError("the connection broke")
        if self.stopped_by is not None and not force:
            raise RobotError(f"not reset without force: {self.stopped_by}")
        super().reset(force)
        self.stopped_by = None


@pytest.mark.parametrize("latched", [State.STOPPED, State.FAULTED])
def test_reset_of_the_loop_releases_a_stop_by_others_only_with_force(latched: State) -> None:
    r = Rig(robot_class=SharedRobot)
    loop, robot = r.armed(), r.robot
    assert isinstance(robot, SharedRobot)
    if latched is State.FAULTED:
        r.clock.after(0.5, robot.stop)
    else:
        r.clock.after(0.5, lambda: loop.estop("operator"))
    assert loop.run(1).state is latched
    robot.stopped_by = "a hand on the button"  # after the operator decided
    with pytest.raises(RobotError, match="not reset without force: a hand on the button"):
        loop.reset()
    assert loop.state is latched and robot.latched and robot.stopped_by is not None
    loop.reset(force=True)
    assert loop.state is State.IDLE and not robot.latched
    loop.arm()
    assert loop.run(1).state is State.IDLE


def test_reset_connects_to_a_robot_anew_whose_connection_broke_and_says_where_it_cannot() -> None:
    r = Rig(robot_class=SharedRobot)
    loop, robot = r.armed(), r.robot
    assert isinstance(robot, SharedRobot)
    r.clock.after(0.5, robot.stop)
    assert loop.run(1).state is State.FAULTED
    robot.broken, robot.reachable, robot.stopped_by = True, False, "the deadman"
    with pytest.raises(RobotError, match="cannot be reached"):
        loop.reset(force=True)
    assert loop.state is State.FAULTED
    robot.reachable = True
    loop.reset(force=True)
    assert loop.state is State.IDLE and robot.stopped_by is None


def test_readings_may_be_numbered_anew_after_a_reset() -> None:
    r = Rig(robot_class=SharedRobot)
    loop, robot = r.armed(), r.robot
    r.clock.after(0.5, lambda: loop.estop("operator"))
    assert loop.run(1).state is State.STOPPED
    robot.sequence = -10_000  # its server was started again, and numbers from the beginning
    loop.reset(force=True)
    loop.arm()
    assert loop.state is State.ARMED


def test_operator_holds_and_resumes_with_a_new_plan() -> None:
    r = rig()
    loop = r.armed()
    r.clock.after(1.05, lambda: loop.hold("tea"))
    r.clock.after(2.05, loop.resume)
    report = loop.run(4)
    held = [step for step in r.log.steps if step.state is State.HOLDING]
    assert [step.step for step in held] == list(range(11, 23)) and not any(taken(step).any() for step in held)
    moving = [step for step in r.log.steps if step.step > 22 and taken(step).any()]
    assert moving[0].step == 23 + LEAD and moving[0].plan_step == 23
    assert report.holds == 1 and "running -> holding (hold: held by tea)" in report.history


def test_hold_of_an_armed_loop_holds_from_the_start_and_through_the_next_run() -> None:
    r = rig()
    loop = r.armed()
    loop.hold("somebody is in the cell")
    report = loop.run(1)
    assert not any(r.moving) and report.holds == 1
    assert report.history[1] == "running -> holding (hold: held by somebody is in the cell)"
    loop.arm()
    assert loop.run(1).holds == 1 and not any(r.moving)
    loop.resume()
    loop.arm()
    assert loop.run(1).holds == 0 and any(r.moving)


def test_finish_ends_the_run_in_order_after_the_control_step() -> None:
    r = rig()
    loop = r.armed()
    loop.finish("too early to count")
    r.clock.after(1.05, lambda: loop.finish("enough"))
    report = loop.run(5)
    assert (report.state, report.why, report.periods) == (State.IDLE, "enough", 11)
    assert r.robot.events[-1] == "stop" and not r.supervisor.watched
    loop.arm()
    assert loop.run(1).why == "the duration is over"


def test_loop_that_runs_is_not_run_a_second_time() -> None:
    r = rig()
    loop = r.armed()
    errors: list[str] = []

    def run() -> None:
        try:
            loop.run(1)
        except BadInputError as error:
            errors.append(str(error))

    def again() -> None:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    r.clock.after(0.55, again)
    r.clock.after(0.75, run)
    report = loop.run(1)
    assert errors == ["cannot run: the loop is running already."] * 2
    assert report.state is State.IDLE and len(r.robot.received) == 10
    loop.arm()
    assert loop.run(1).state is State.IDLE


def test_arming_is_refused_where_stopping_is_not_certified() -> None:
    r = rig()
    r.shield.rule = lambda c: replace(c, kind="uncertified_stop", rule="keep_out", by=3.25)
    message = "cannot arm: guardrail 'keep_out': the robot at [256.0, 256.0, 0.0, 0.0] may break it by 3.2 before it"
    with pytest.raises(RobotError, match=re.escape(message)):
        r.loop.arm()
    assert r.loop.state is State.IDLE and r.robot.events[-1] == "disconnect"
    r.shield.rule = lambda c: replace(c, kind="uncertified_stop", rule="keep_out", by=0.00412)
    r.robot.place = np.array([0.35125, 0.0])  # metres
    with pytest.raises(RobotError, match=re.escape("the robot at [0.3512, 0.0, 0.0, 0.0] may break it by 0.00412 bef")):
        r.loop.arm()
    r.shield.rule = lambda c: c
    r.loop.arm()


def test_heartbeats_come_often_and_only_while_it_is_watched() -> None:
    r = rig()
    watched: list[bool] = []
    beat = r.supervisor.beat
    r.supervisor.beat = lambda: (watched.append(r.supervisor.watched), beat())[1]  # type: ignore[method-assign]
    r.armed().run(5)
    assert np.diff(r.supervisor.beats).max() < 0.02 and all(watched)


def test_heartbeats_come_from_the_thread_of_the_loop_only() -> None:
    r = rig()
    threads: set[int] = set()
    beat = r.supervisor.beat
    r.supervisor.beat = lambda: (threads.add(threading.get_ident()), beat())[1]  # type: ignore[method-assign]
    loop = r.armed()
    worker = threading.Thread(target=loop.run, args=(1,))
    worker.start()
    worker.join()
    assert len(threads) == 1 and threading.get_ident() not in threads


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_hz": 0}, "rate_hz must be > 0"),
        ({"rate_hz": float("inf")}, "rate_hz must be finite"),
        ({"lead_steps": 0}, "lead_steps must be >= 1, came 0"),
        ({"replan_every": 0}, "replan_every must be >= 1"),
        ({"resume_after_steps": 0}, "resume_after_steps must be >= 1"),
        ({"stale_after_s": 0.05}, "stale_after_s must be >= 0.1, came 0.05"),
        ({"plan_timeout_s": float("nan")}, "plan_timeout_s must be finite, came nan"),
        ({"picture_travel": -1}, "picture_travel must be >= 0"),
        ({"reading_age_s": -1}, "reading_age_s must be >= 0"),
        ({"reply_margin_s": 0.2}, "reply_margin_s must be < lead_steps / rate_hz = 0.2 s"),
        ({"future_tolerance_s": -0.1}, "future_tolerance_s must be >= 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(message)):
        replace(LoopSettings(10.0), **changes)  # type: ignore[arg-type]


def test_stop_action_is_what_is_sent_while_there_is_no_plan() -> None:
    r = rig(plan_timeout_s=100)
    r.planner.takes_s = 1e9
    r.armed().run(1)
    assert all(np.array_equal(action, STOP) for action in r.robot.received) and len(r.robot.received) == 10
