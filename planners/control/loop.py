"""The real-time control loop: observe, plan beside it, certify, act, log; at a fixed rate, stopping when in doubt."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable

import numpy as np

from wm.errors import BadInputError, RobotError, WmError
from wm.planners.control.acting import Asked, Sent, certified, taken, unanswered
from wm.planners.control.arming import await_observation, require_certified_stop
from wm.planners.control.brakes import Brakes
from wm.planners.control.matching import require_match
from wm.planners.control.parts import Certifier, HasLatch, LogSink, Planner, Watchdog
from wm.planners.control.realtime import Interrupts, quiet_collector
from wm.planners.control.replanning import Replanner
from wm.planners.control.report import LoopReport, StepLog, Tally
from wm.planners.control.senses import Senses
from wm.planners.control.settings import LoopSettings
from wm.planners.control.shield import Certified
from wm.planners.control.states import Event, State, StateMachine
from wm.planners.control.ticker import Ticker
from wm.robot import Robot, RobotObservation

__all__ = ["ControlLoop", "LoopReport", "LoopSettings", "StepLog"]

ALTERED = 1e-6
"""A robot that takes an action as single precision does not alter it."""

INTERRUPTED = "interrupted (Ctrl-C)"


class ControlLoop:
    """Drives a robot towards what its planner plans, through a shield; see `docs/control-states.md` for its states.

    One thread runs `run`; `estop`, `finish`, `hold` and `resume` may be called from any other.

    Args:
        robot: What is driven.
        planner: Plans beside the loop; the caller starts and closes it.
        shield: Certifies every action when it is sent; for a robot without kinematics a `BoundsFilter`, which cannot.
        settings: Rates and times.
        supervisor: Stops the robot when this process cannot; the caller starts and closes it.
        log: Keeps every control step in which an action was sent.
        surprise: True for an observation that the model finds impossible: the robot is held while it lasts.
        clock: Monotonic seconds, the clock of the observations' stamps.
        sleep: Sleeps for some seconds.
    """

    def __init__(
        self,
        robot: Robot,
        planner: Planner,
        shield: Certifier,
        settings: LoopSettings,
        supervisor: Watchdog | None = None,
        log: LogSink | None = None,
        surprise: Callable[[RobotObservation], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._robot, self._planner, self._shield, self._settings = robot, planner, shield, settings
        self._supervisor, self._log = supervisor, log
        self._clock, self._sleep = clock, sleep
        self._machine = StateMachine()
        self._interrupts = Interrupts(lambda: self._machine.latch(INTERRUPTED))
        self._brakes = Brakes(robot, supervisor, self._machine, self._interrupts)
        self._stop_action = np.array(shield.stop_action(), dtype=np.float64)
        self._planning = Replanner(planner, settings, self._stop_action)
        self._senses = Senses(robot, shield, settings, surprise, clock)
        self._sent = Sent()
        self._tally = Tally(clock(), settings.on_time_s, shield.kinematics is not None)
        self._connected = False
        self._running = threading.Lock()
        self._thread: int | None = None  # of `run`, while it goes on
        self._finish: str | None = None
        self._step = self._certified_at = -1
        self._planless_since = 0.0

    @property
    def state(self) -> State:
        """The state now."""
        return self._machine.state

    @property
    def why(self) -> str:
        """The reason of this state."""
        return self._machine.why

    # What an operator does.

    def arm(self) -> None:
        """Check that the parts match, connect, and wait for a first fresh observation; the robot stands still.

        Raises:
            MismatchError: the parts differ in action, proprioception, picture size, kinematics or rate.
            RobotError: the robot is not ready, or stopping it is not certified, and the loop stays idle; or the
                supervisor has stopped the robot, does not run, or the robot's own e-stop is pressed, and the loop is
                stopped.
            BadInputError: not idle, or the planner process does not run.
        """
        self._machine.require(Event.ARM)
        require_match(self._robot, self._planner, self._shield, self._settings)
        if not self._planner.alive:
            raise BadInputError("cannot arm: the planner process does not run.")
        if self._brakes.forbidden():
            raise RobotError(f"cannot arm: {self._machine.latched}.")
        if not self._connected:
            self._senses.gate.forget()
            self._robot.connect()
            self._connected = True
        try:
            self._robot.stop()
            self._senses.gate.unclear()
            if isinstance(self._robot, HasLatch):
                self._robot.reset()
            await_observation(self._robot, self._senses.gate, self._settings.arm_timeout_s, self._clock, self._sleep)
            require_certified_stop(self._shield, self._senses.last.proprio if self._senses.last else None)
        except BaseException:
            self._drop_connection()
            raise
        self._machine.fire(Event.ARM)

    def disarm(self) -> None:
        """Back to idle.

        Raises:
            BadInputError: not armed.
        """
        self._machine.fire(Event.DISARM)

    def start(self) -> None:
        """From now on `run` executes plans, all of them asked for after this moment.

        Raises:
            BadInputError: not armed.
        """
        self._machine.require(Event.START)
        self._planning.restart()
        self._shield.reset()
        self._sent.clear()
        self._senses.causes.begin()
        self._senses.gate.unclear()
        self._machine.fire(Event.START)

    def hold(self, reason: str = "operator") -> None:
        """Hold the robot from the next control step on, or from the start if it is not running, until `resume`."""
        self._senses.causes.operator = reason

    def resume(self) -> None:
        """End `hold`; a new plan is asked for before anything moves."""
        self._senses.causes.operator = None

    def finish(self, reason: str) -> None:
        """End the run after this control step as its duration would, stopped and idle; nothing where none goes on."""
        self._finish = reason

    def estop(self, reason: str) -> None:
        """Stop the robot at once and latch; from any thread."""
        self._machine.latch(reason)
        if self._supervisor is not None:
            self._supervisor.estop()
        # The loop's own thread (a call out of it, or a signal handler in the midst of a call to the robot) only
        # latches: the loop looks at the latch before and after everything it sends.
        if self._connected and self._thread != threading.get_ident():
            with contextlib.suppress(Exception):  # the loop and the supervisor stop it as well
                self._robot.stop()

    def reset(self, force: bool = False) -> None:
        """Clear a latched e-stop or fault; the loop is idle, and arming is a step of its own.

        Args:
            force: Also release a robot whose stop latches and that someone or something else has stopped; its
                supervisor is one of them. It is for an operator to say, who knows that the cause is gone.

        Raises:
            BadInputError: neither stopped nor faulted, or `run` has not returned yet.
            RobotError: the robot's own e-stop is pressed, the supervisor has not seen the robot stop, or a robot whose
                stop latches cannot be reached, or refuses: then who stopped it is named. The loop stays latched.
        """
        seen = self._machine.latches
        if self._thread is not None:
            raise BadInputError("cannot reset: the loop is still running.")
        self._machine.require(Event.RESET)
        if self._brakes.pressed():
            raise RobotError("cannot reset: the robot's own e-stop is pressed.")
        if self._supervisor is not None:
            self._supervisor.reset()
        if self._connected and isinstance(self._robot, HasLatch):
            self._robot.connect()  # anew, if the connection broke
            self._senses.gate.forget()  # then its readings may be numbered anew as well
            self._robot.reset(force)
        if self.state is State.FAULTED:
            self._drop_connection()
        self._planning.restart()
        self._machine.reset(seen)

    def close(self) -> None:
        """Disconnect from the robot, which stops it; harmless when repeated, not to be called during `run`."""
        if self.state is State.ARMED:
            self.disarm()
        self._drop_connection()

    # The loop.

    def run(self, duration_s: float | int | None = None) -> LoopReport:
        """Start if armed, and drive the robot until the time is over or something stops it; the robot then stands.

        Args:
            duration_s: Seconds, rounded to control periods; None: until something stops it.

        Returns:
            How it went, and why it ended. An error in any part ends in the state FAULTED, not in an exception.

        Raises:
            BadInputError: neither armed nor started, running already, or the duration is not > 0.
        """
        if duration_s is not None and not duration_s > 0:
            raise BadInputError(f"run: duration_s must be > 0, came {duration_s}.")
        if not self._running.acquire(blocking=False):
            raise BadInputError("cannot run: the loop is running already.")
        try:
            return self._run(duration_s)
        finally:
            self._running.release()

    def _run(self, duration_s: float | int | None) -> LoopReport:
        told = len(self._machine.history)
        if self.state is not State.RUNNING:
            self.start()
        self._tally = Tally(self._clock(), self._settings.on_time_s, self._shield.kinematics is not None)
        self._senses.gate.refused.clear()
        self._finish = None
        self._thread = threading.get_ident()
        try:
            with self._interrupts.installed(), quiet_collector():
                self._drive(duration_s)
        finally:
            self._thread = None
        history = self._machine.history[told:]
        return self._tally.report(self.state, self.why, self._clock(), self._senses.gate.refused, history)

    def _drive(self, duration_s: float | int | None) -> None:
        """Run the control steps; however that ends, stop the robot and say why."""
        fault = None
        try:
            if self._supervisor is not None:
                self._supervisor.watch()
            with self._interrupts.escape():
                self._steps(duration_s)
        except KeyboardInterrupt:
            self._machine.latch(INTERRUPTED)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        except BaseException as error:
            self._machine.latch(f"{type(error).__name__}: {error}")
            raise
        finally:
            problem = self._brakes.stop()
        if problem is not None:
            fault = f"{fault or self.why}; the robot's stop failed: {problem}"
        if fault is not None:
            self._machine.fire(Event.FAULT, fault)
            return
        if not self._brakes.forbidden():  # the supervisor may have found that the stop took too long
            self._change(Event.FINISH, self._finish or "the duration is over")

    def _steps(self, duration_s: float | int | None) -> None:
        """Control steps at the deadlines begin + k * period, until the duration is over or something ends them."""
        settings = self._settings
        end = math.inf if duration_s is None else max(1, round(duration_s * settings.rate_hz))
        first, k = self._step + 1, 0
        self._certified_at = self._step
        ticker = Ticker(1 / settings.rate_hz, self._clock, self._sleep)
        self._planless_since = ticker.begin
        while not ticker.wait(k, self._ends) and k < end:
            due = ticker.due(k)
            self._tally.begun(self._clock() - due)
            self._control_step(first + k, due)
            following = int(min(ticker.next(k), end))
            self._tally.skipped += following - k - 1
            k = following

    def _ends(self) -> bool:
        """Something ends the run before its time."""
        return self._brakes.must_stop() or self._finish is not None

    def _control_step(self, step: int, due: float) -> None:
        """Observe, certify, act, ask for a plan, log."""
        self._step, begin = step, self._clock()
        fresh = self._senses.observe()
        self._hold_or_resume(self._senses.cause(fresh))
        self._planning.collect(step, self._tally)
        asked, proprio = self._asked(step), self._senses.reading()
        over = int((self._clock() - due) * self._settings.rate_hz)
        if over > 0:  # too late for anything that was meant for this period
            asked, proprio = Asked(self._stop_action, None), None
        verdict = self._certify(step, asked, proprio, over)
        times = begin, begin - due
        entry = unanswered(step, times, (self.state, self.why), (self._senses.last, fresh), asked, verdict)
        if self._brakes.must_stop():
            return
        sent = self._send(verdict.action, entry)
        sent_at = self._clock()
        if self._brakes.must_stop():
            self._brakes.stop()  # at once; what the robot took is logged all the same
        self._remember(step, sent, verdict.action)
        deadline = self._planning.ask(step, sent, due, sent_at) if self.state is State.RUNNING else None
        plan = self._planning.newest
        entry = dataclasses.replace(entry, sent=sent, sent_s=sent_at - due, plan=plan, deadline_ms=deadline)
        self._tally.sent(entry)
        if self._log is not None:
            self._log.record(entry)

    def _certify(self, step: int, asked: Asked, proprio: np.ndarray | None, over: int) -> Certified:
        """What the shield makes of it, in period ``step + over``; a reading that contradicts it holds the robot."""
        skipped, self._certified_at = step + over - self._certified_at - 1, step + over
        verdict = certified(self._shield, asked.action, proprio, self._sent.before(step), skipped)
        self._senses.causes.outside = verdict.outside
        contradiction = self._senses.causes.contradiction()
        if contradiction is not None:
            self._hold(contradiction)
        return verdict

    def _send(self, action: np.ndarray, entry: StepLog) -> np.ndarray:
        """What the robot took; without its answer the attempt is logged, since the robot may have taken it."""
        try:
            return taken(self._robot.send_action(action), action)
        except BaseException:
            if self._log is not None:
                with contextlib.suppress(Exception):  # the error of before is the one to report
                    self._log.record(entry)
            raise

    def _hold_or_resume(self, cause: str | None) -> None:
        """Hold while there is a cause; go on, with a new plan, when there has been none for some control steps."""
        if cause is not None:
            self._hold(cause)
        elif self._senses.calm() and self.state is State.HOLDING:
            self._change(Event.RESUME, "")
            self._planning.restart()
            self._planless_since = self._clock()
        if self._senses.last is not None:
            self._planning.observe(self._step, self._senses.last)

    def _hold(self, cause: str) -> None:
        """From running to holding; what was planned before is dropped."""
        if self.state is State.RUNNING:
            self._change(Event.HOLD, cause)
            self._planning.restart()
            self._tally.holds += 1

    def _change(self, event: Event, reason: str) -> None:
        with contextlib.suppress(BadInputError):  # an e-stop came in between and wins
            self._machine.fire(event, reason)

    def _asked(self, step: int) -> Asked:
        """The plan's action while running; otherwise, and where no plan reaches, the stop.

        Raises:
            WmError: there has been no plan for too long, or there can be none any more.
        """
        now, planned = self._clock(), self._planning.at(step)
        if self.state is not State.RUNNING or planned is not None:
            self._planless_since = now
            return Asked(self._stop_action, None) if planned is None else Asked(*planned)
        without = now - self._planless_since
        if not self._planner.alive:
            raise WmError(f"the planner process does not run any more{self._tally.failures()}")
        if without > self._settings.plan_timeout_s:
            raise WmError(f"no plan in time for {without:.2f} s{self._tally.failures()}")
        return Asked(self._stop_action, None)

    def _remember(self, step: int, sent: np.ndarray, action: np.ndarray) -> None:
        """Keep what the robot took."""
        self._sent.add(step, sent)
        self._tally.altered += not np.allclose(sent, action, rtol=0.0, atol=ALTERED)
        self._senses.gate.acted(self._sent.before(step + 1))

    def _drop_connection(self) -> None:
        """Disconnect; an error is no news about a connection that is given up."""
        if self._connected:
            self._connected = False
            with contextlib.suppress(Exception):
                self._robot.disconnect()
