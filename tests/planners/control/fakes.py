"""Parts of the control loop on a clock of their own: what a test says happens, when it says so, without any waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from wm.errors import BadInputError, RobotError
from wm.kinematics import PointKinematics
from wm.planners.control.loop import ControlLoop, LoopSettings, StepLog
from wm.planners.control.messages import PlanFailure, PlannerSpec, PlanReply, PlanRequest
from wm.planners.control.shield import Certified, ShieldLimits
from wm.robot import ObservationSpec, RobotObservation
from wm.specs import ActionSpec, ProprioSpec

RATE = 10.0
PERIOD = 1 / RATE
ACTION = ActionSpec(("dx", "dy"), "100 px", (-1.0, -1.0), (1.0, 1.0), RATE)
PROPRIO = ProprioSpec(("x", "y", "vx", "vy"), ("px", "px", "px/s", "px/s"))
OBSERVATION = ObservationSpec(8, PROPRIO)
KINEMATICS = PointKinematics(100.0, 20.0, 0.01, 10, 100.0, True)
PLANNER = PlannerSpec(ACTION, OBSERVATION, frames=2, stride=2)
LEAD = 2
SETTINGS = LoopSettings(RATE, lead_steps=LEAD, replan_every=5, stale_after_s=0.25, plan_timeout_s=2.0)
STOP = np.zeros(2)
GO = np.array([0.5, -0.25])


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """For modules that import it: a full garbage collection at every start is most of such a test's time."""
    monkeypatch.setattr("wm.planners.control.loop.quiet_collector", contextlib.nullcontext)


class FakeClock:
    """Monotonic seconds that pass only while somebody sleeps, or where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.at: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [entry for entry in self.at if entry[0] <= self.now]
        self.at = [entry for entry in self.at if entry[0] > self.now]
        for _, call in due:
            call()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something once that much time has been slept."""
        self.at.append((self.now + seconds, call))


class FakeRobot:
    """Records what it is told; its place follows the sent actions, its readings are what ``twist`` makes of them."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.observation_spec, self.action_spec = OBSERVATION, ACTION
        self.kinematics: PointKinematics | None = KINEMATICS
        self.received: list[np.ndarray] = []
        self.events: list[str] = []  # "send", "stop", "connect", "disconnect" in their order
        self.place, self.velocity = np.array([256.0, 256.0]), np.zeros(2)
        self.sequence = 0
        self.twist: Callable[[RobotObservation], RobotObservation] = lambda observation: observation
        self.before_send: Callable[[int], None] = lambda index: None
        self.before_stop: Callable[[], None] = lambda: None

    def connect(self) -> None:
        self.events.append("connect")

    def get_observation(self) -> RobotObservation:
        self.sequence += 1
        image = np.full((8, 8, 3), self.sequence % 251, np.uint8)
        proprio = np.array([*self.place, *self.velocity], np.float32)
        return self.twist(RobotObservation(image, proprio, self.clock(), self.sequence))

    def send_action(self, action: np.ndarray) -> np.ndarray:
        self.before_send(len(self.received))
        assert np.isfinite(action).all() and (np.abs(action) <= 1).all()
        self.events.append("send")
        self.received.append(action.copy())
        self.place = self.place + action
        return action.copy()

    def stop(self) -> None:
        self.before_stop()
        self.events.append("stop")

    def disconnect(self) -> None:
        self.events.append("disconnect")


class EstopRobot(FakeRobot):
    """With an emergency stop of its own."""

    estopped = False


class LatchRobot(FakeRobot):
    """Whose stop latches."""

    latched = False

    def stop(self) -> None:
        super().stop()
        self.latched = True

    def send_action(self, action: np.ndarray) -> np.ndarray:
        if self.latched:
            raise RobotError("stopped; reset it first.")
        return super().send_action(action)

    def reset(self, force: bool = False) -> None:
        self.events.append(f"reset force={force}")
        self.latched = False


class MovingRobot(FakeRobot):
    """That moves as its kinematics say, from (200, 256); ``late`` control steps lie between an action and its effect.

    ``path`` has its true places at every simulation step.
    """

    late = 0

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.place = np.array([200.0, 256.0])
        self.path: list[np.ndarray] = []

    def send_action(self, action: np.ndarray) -> np.ndarray:
        place = self.place
        sent = super().send_action(action)
        acting = [STOP] * self.late + self.received
        self.place = place
        target = place + KINEMATICS.scale * acting[len(self.received) - 1]
        for _ in range(KINEMATICS.substeps):
            pull = KINEMATICS.kp * (target - self.place) - KINEMATICS.kv * self.velocity
            self.velocity = self.velocity + pull * KINEMATICS.dt
            self.place = self.place + self.velocity * KINEMATICS.dt
            self.path.append(self.place)
        return sent


class FakePlanner:
    """Answers after ``takes_s`` on the fake clock with a plan of constant actions, or with what ``answer`` makes."""

    def __init__(self, clock: FakeClock, takes_s: float = 0.13, length: int = 20) -> None:
        self.clock, self.takes_s, self.length = clock, takes_s, length
        self.spec, self.alive = PLANNER, True
        self.requests: list[PlanRequest] = []
        self.ready: tuple[float, PlanReply | PlanFailure] | None = None
        self.action = GO
        self.answer: Callable[[PlanRequest], PlanReply | PlanFailure] = self.plan

    def plan(self, request: PlanRequest) -> PlanReply:
        rest = np.tile(self.action, (self.length - len(request.committed), 1))
        return PlanReply(request.step, np.concatenate([request.committed, rest]), plan_ms=1000 * self.takes_s)

    def submit(self, request: PlanRequest) -> bool:
        if self.ready is not None or not self.alive:
            return False
        self.requests.append(request)
        answer = self.answer(request)
        self.ready = (self.clock() + self.takes_s, answer)
        return True

    def poll(self) -> PlanReply | PlanFailure | None:
        if self.ready is None or self.ready[0] > self.clock() or not self.alive:
            return None
        reply, self.ready = self.ready[1], None
        return reply


class FakeShield:
    """Lets everything through; stops where there is no reading; ``rule`` may change the answer."""

    def __init__(self) -> None:
        self.kinematics, self.action_spec, self.limits = KINEMATICS, ACTION, ShieldLimits()
        self.held: list[list[np.ndarray]] = []
        self.rule: Callable[[Certified], Certified] = lambda certified: certified
        self.resets = 0
        self.skips: list[tuple[int, int]] = []  # after how many answers, and how many periods

    def skipped(self, count: int) -> None:
        self.skips.append((len(self.held), count))

    def certify(self, proprio: np.ndarray, asked: np.ndarray, held: Sequence[np.ndarray] = ()) -> Certified:
        self.held.append(list(held))
        if not np.isfinite(proprio).all():
            return self.rule(Certified(STOP.copy(), "stop", "non-finite proprio", np.inf, 0.0, 0.0))
        return self.rule(Certified(np.array(asked, np.float64), "passed", None, 0.0, 0.0, 10.0))

    def stop_action(self) -> np.ndarray:
        return STOP.copy()

    def reset(self) -> None:
        self.resets += 1


class FakeSupervisor:
    """Counts heartbeats on the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.beats: list[float] = []
        self.watched = self.asked = False
        self.problem: str | None = None
        self.resets = 0

    def watch(self) -> None:
        self.watched = True
        self.beat()

    def unwatch(self) -> None:
        self.watched = False

    def beat(self) -> None:
        self.beats.append(self.clock())

    def estop(self) -> None:
        self.asked = True

    def trouble(self) -> str | None:
        return self.problem

    def reset(self) -> None:
        if self.problem == "dead":
            raise RobotError("the supervisor cannot be reset: dead.")
        self.problem, self.asked, self.resets = None, False, self.resets + 1


class FakeLog:
    """Keeps everything, until the disk is full."""

    def __init__(self, room: int = 10**9) -> None:
        self.steps: list[StepLog] = []
        self.room = room

    def record(self, step: StepLog) -> None:
        if len(self.steps) >= self.room:
            raise OSError(28, "No space left on device")
        self.steps.append(step)


@dataclass
class Rig:
    """A loop of fakes, armed by `armed`."""

    clock: FakeClock = field(default_factory=FakeClock)
    robot: FakeRobot = field(init=False)
    planner: FakePlanner = field(init=False)
    shield: FakeShield = field(default_factory=FakeShield)
    supervisor: FakeSupervisor = field(init=False)
    log: FakeLog = field(default_factory=FakeLog)
    settings: LoopSettings = SETTINGS
    surprise: Callable[[RobotObservation], bool] | None = None
    robot_class: type[FakeRobot] = FakeRobot

    def __post_init__(self) -> None:
        self.robot, self.planner = self.robot_class(self.clock), FakePlanner(self.clock)
        self.supervisor = FakeSupervisor(self.clock)
        self.loop = self.build()

    def build(self) -> ControlLoop:
        self.loop = ControlLoop(
            self.robot,
            self.planner,
            self.shield,
            self.settings,
            supervisor=self.supervisor,
            log=self.log,
            surprise=self.surprise,
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        return self.loop

    def armed(self) -> ControlLoop:
        self.loop.arm()
        return self.loop

    @property
    def moving(self) -> list[bool]:
        """Which of the received actions are not the stop."""
        return [bool(np.any(action)) for action in self.robot.received]


def rig(settings: LoopSettings | None = None, **changes: object) -> Rig:
    """A rig whose settings differ from the standard ones in ``changes``."""
    return Rig(settings=replace(settings or SETTINGS, **changes))


def taken(step: StepLog) -> np.ndarray:
    """What the robot says it took."""
    assert step.sent is not None
    return step.sent


def moving(steps: list[StepLog]) -> list[StepLog]:
    """Those whose action is not the stop."""
    return [step for step in steps if taken(step).any()]


def assert_log_is_what_the_robot_received(r: Rig) -> None:
    answered = [step for step in r.log.steps if step.sent is not None]
    assert len(answered) == len(r.robot.received)
    np.testing.assert_array_equal([step.sent for step in answered], r.robot.received)


def make_quick() -> Callable[[PlanRequest], PlanReply]:
    """Planner of the tests of the worker: the first number of ``committed`` says what to do."""
    return _quick


def _quick(request: PlanRequest) -> PlanReply:
    import os
    import signal

    what = round(float(request.committed[0, 0]) * 10)
    if what == 1:
        raise BadInputError("the goal is not reachable")
    if what == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    threads = float(os.environ["OMP_NUM_THREADS"])
    return PlanReply(request.step, np.tile(request.committed[:1], (4, 1)), energies={"threads": threads})


def make_broken() -> Callable[[PlanRequest], PlanReply]:
    raise BadInputError("no such model")
