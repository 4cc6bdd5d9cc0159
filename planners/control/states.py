"""The control loop's states: the transition table as data, the machine that keeps to it, and its picture."""

from __future__ import annotations

import threading
from enum import Enum

from wm.errors import BadInputError


class State(Enum):
    """Where the loop is."""

    IDLE = "idle"
    ARMED = "armed"
    RUNNING = "running"
    HOLDING = "holding"
    STOPPED = "stopped"
    FAULTED = "faulted"


class Event(Enum):
    """What changes the state."""

    ARM = "arm"
    DISARM = "disarm"
    START = "start"
    HOLD = "hold"
    RESUME = "resume"
    FINISH = "finish"
    ESTOP = "e-stop"
    FAULT = "fault"
    RESET = "reset"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.ARM): State.ARMED,
    (State.ARMED, Event.DISARM): State.IDLE,
    (State.ARMED, Event.START): State.RUNNING,
    (State.RUNNING, Event.HOLD): State.HOLDING,
    (State.HOLDING, Event.RESUME): State.RUNNING,
    (State.RUNNING, Event.FINISH): State.IDLE,
    (State.HOLDING, Event.FINISH): State.IDLE,
    (State.IDLE, Event.ESTOP): State.STOPPED,
    (State.ARMED, Event.ESTOP): State.STOPPED,
    (State.RUNNING, Event.ESTOP): State.STOPPED,
    (State.HOLDING, Event.ESTOP): State.STOPPED,
    (State.STOPPED, Event.ESTOP): State.STOPPED,
    (State.FAULTED, Event.ESTOP): State.FAULTED,
    (State.IDLE, Event.FAULT): State.FAULTED,
    (State.ARMED, Event.FAULT): State.FAULTED,
    (State.RUNNING, Event.FAULT): State.FAULTED,
    (State.HOLDING, Event.FAULT): State.FAULTED,
    (State.STOPPED, Event.FAULT): State.FAULTED,
    (State.FAULTED, Event.FAULT): State.FAULTED,
    (State.STOPPED, Event.RESET): State.IDLE,
    (State.FAULTED, Event.RESET): State.IDLE,
}
"""Next state, where the state stays the same nothing changes; an event that is missing in a state is refused there."""

MEANING: dict[State, str] = {
    State.IDLE: "Nothing drives the robot.",
    State.ARMED: "Specifications agree, the robot is connected and reports fresh observations; it stands still.",
    State.RUNNING: "Plans are asked for and executed, each action certified when it is sent (or clipped, uncertified).",
    State.HOLDING: "The stop action is sent: an observation is missing or surprising, or an operator holds the robot.",
    State.STOPPED: "Latched e-stop: from any thread, Ctrl-C, the supervisor or the robot.",
    State.FAULTED: "Latched error: the robot was told to stop, and the report says why.",
}

CAUSE: dict[Event, str] = {
    Event.ARM: "The operator arms; every check passed.",
    Event.DISARM: "The operator disarms.",
    Event.START: "The operator starts; the first plan is asked for.",
    Event.HOLD: "Stale or frozen observations, a reading outside of the stated bounds, surprise, or the operator.",
    Event.RESUME: "All of these are over for several control steps; a new plan is asked for, nothing is replayed.",
    Event.FINISH: "The duration is over, or whoever drives has what it wanted.",
    Event.ESTOP: "An emergency stop, wherever it comes from.",
    Event.FAULT: "A part raised an error, or no plan came in time.",
    Event.RESET: "The operator resets; nothing moves before arming and starting again.",
}


class StateMachine:
    """Keeps to the table; an e-stop latches without a lock, so that any thread or signal handler may set it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = State.IDLE
        self._reason = ""
        self._latched: list[str] = []  # reasons of e-stops since the last reset; appending is atomic
        self._history: list[str] = []

    @property
    def state(self) -> State:
        """The state now."""
        return TRANSITIONS[self._state, Event.ESTOP] if self._latched else self._state

    @property
    def why(self) -> str:
        """Reason of the last transition; of the first e-stop, or of the fault, while one is latched."""
        return self._latched[0] if self.state is State.STOPPED else self._reason

    @property
    def latched(self) -> str | None:
        """Reason of the first e-stop since the last reset, or None."""
        return next(iter(self._latched), None)

    @property
    def latches(self) -> int:
        """E-stops since the last reset."""
        return len(self._latched)

    @property
    def history(self) -> tuple[str, ...]:
        """Every transition so far: ``"running -> holding (hold: stale observation)"``."""
        return tuple(self._history)

    def latch(self, reason: str) -> None:
        """E-stop: the state is STOPPED (or stays FAULTED) from this moment until `reset`."""
        before = self.state
        self._latched.append(reason)
        self._history.append(f"{before.value} -> {self.state.value} ({Event.ESTOP.value}: {reason})")

    def require(self, event: Event) -> None:
        """Check that an event is possible now.

        Raises:
            BadInputError: it is not; the message has the state, its reason and what would be possible.
        """
        state = self.state
        if (state, event) not in TRANSITIONS:
            possible = ", ".join(e.value for s, e in TRANSITIONS if s is state)
            because = f" ({self.why})" if self.why else ""
            raise BadInputError(f"cannot {event.value}: the loop is {state.value}{because}. Possible: {possible}.")

    def fire(self, event: Event, reason: str = "") -> State:
        """Take a transition and return the new state. ESTOP has `latch`, RESET has `reset`.

        Raises:
            BadInputError: the table has no such transition.
        """
        with self._lock:
            self.require(event)
            before = self.state
            if not (before is State.FAULTED and event is Event.FAULT):  # the first fault is the one to report
                self._state, self._reason = TRANSITIONS[before, event], reason
            self._history.append(f"{before.value} -> {self.state.value} ({event.value}{reason and ': ' + reason})")
            return self.state

    def reset(self, seen: int) -> State:
        """Clear a fault and the first ``seen`` e-stops (`latches` when the operator decided); later ones stay latched.

        Raises:
            BadInputError: neither stopped nor faulted.
        """
        with self._lock:
            self.require(Event.RESET)
            before = self.state
            del self._latched[:seen]
            self._state, self._reason = TRANSITIONS[before, Event.RESET], ""
            self._history.append(f"{before.value} -> {self.state.value} ({Event.RESET.value})")
            return self.state


def transitions() -> list[tuple[State, Event, State]]:
    """Rows of the table: from, event, to."""
    return [(before, event, after) for (before, event), after in TRANSITIONS.items()]


def mermaid() -> str:
    """The table as a Mermaid state diagram; transitions that change nothing are left out."""
    arrows = [f"    {a.value} --> {b.value}: {e.value}" for a, e, b in transitions() if a is not b]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {State.IDLE.value}", *arrows])


def page() -> str:
    """The whole of ``docs/control-states.md``."""
    states = "\n".join(f"| {state.value} | {text} |" for state, text in MEANING.items())
    events = "\n".join(f"| {event.value} | {text} |" for event, text in CAUSE.items())
    return f"""# States of the control loop

Written from the table in `planners/control/states.py` by `python -m wm.planners.control.states`. An event that has no
arrow from a state is refused there, or changes nothing. Only a reset leads out of stopped and faulted.

```mermaid
{mermaid()}
```

| state | meaning |
|---|---|
{states}

| event | cause |
|---|---|
{events}
"""


if __name__ == "__main__":
    print(page(), end="")
