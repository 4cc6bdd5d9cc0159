from __future__ import annotations

import re
from pathlib import Path

import pytest

from wm.errors import BadInputError
from wm.planners.control.states import TRANSITIONS, Event, State, StateMachine, mermaid, page, transitions

DOCS = Path(__file__).resolve().parents[3] / "docs" / "control-states.md"
LATCHED = (State.STOPPED, State.FAULTED)


def machine_in(state: State) -> StateMachine:
    machine = StateMachine()
    path = {
        State.IDLE: [],
        State.ARMED: [Event.ARM],
        State.RUNNING: [Event.ARM, Event.START],
        State.HOLDING: [Event.ARM, Event.START, Event.HOLD],
        State.STOPPED: [],
        State.FAULTED: [Event.FAULT],
    }[state]
    for event in path:
        machine.fire(event, "because")
    if state is State.STOPPED:
        machine.latch("pressed")
    assert machine.state is state
    return machine


def test_only_a_reset_leaves_a_latched_state_and_it_leads_to_idle() -> None:
    for before, event, after in transitions():
        if before in LATCHED and after not in LATCHED:
            assert (event, after) == (Event.RESET, State.IDLE)


def test_motion_begins_only_from_armed_or_holding() -> None:
    assert {(a, e) for a, e, b in transitions() if b is State.RUNNING} == {
        (State.ARMED, Event.START),
        (State.HOLDING, Event.RESUME),
    }


def test_armed_is_reached_only_from_idle() -> None:
    assert [(a, e) for a, e, b in transitions() if b is State.ARMED] == [(State.IDLE, Event.ARM)]


@pytest.mark.parametrize("state", State)
def test_estop_and_fault_are_possible_everywhere(state: State) -> None:
    assert TRANSITIONS[state, Event.ESTOP] in LATCHED
    assert TRANSITIONS[state, Event.FAULT] is State.FAULTED


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", [e for e in Event if e not in (Event.ESTOP, Event.RESET)])
def test_machine_takes_what_the_table_has_and_refuses_the_rest(state: State, event: Event) -> None:
    machine = machine_in(state)
    if (state, event) in TRANSITIONS:
        assert machine.fire(event, "now") is TRANSITIONS[state, event] is machine.state
    else:
        with pytest.raises(BadInputError, match=f"cannot {event.value}: the loop is {state.value}"):
            machine.fire(event)
        assert machine.state is state


def test_refusal_says_why_and_what_is_possible() -> None:
    machine = machine_in(State.STOPPED)
    with pytest.raises(
        BadInputError, match=re.escape("the loop is stopped (pressed). Possible: e-stop, fault, reset.")
    ):
        machine.fire(Event.START)


@pytest.mark.parametrize("state", State)
def test_latch_holds_until_reset(state: State) -> None:
    machine = machine_in(state)
    machine.latch("red button")
    assert machine.state is TRANSITIONS[state, Event.ESTOP]
    assert machine.latched is not None
    machine.reset(machine.latches)
    assert machine.state is State.IDLE and machine.latched is None and machine.why == ""


def test_reset_keeps_an_estop_that_came_after_the_decision() -> None:
    machine = machine_in(State.STOPPED)
    seen = machine.latches
    machine.latch("again")
    machine.reset(seen)
    assert machine.state is State.STOPPED and machine.why == "again"


@pytest.mark.parametrize("state", [s for s in State if s not in LATCHED])
def test_reset_of_what_is_not_latched_is_refused(state: State) -> None:
    with pytest.raises(BadInputError, match="cannot reset"):
        machine_in(state).reset(0)


def test_first_fault_is_the_one_reported_and_an_estop_does_not_hide_it() -> None:
    machine = machine_in(State.RUNNING)
    machine.fire(Event.FAULT, "arm broke")
    machine.fire(Event.FAULT, "and then the rest")
    machine.latch("pressed")
    assert machine.state is State.FAULTED and machine.why == "arm broke"


def test_history_tells_every_transition() -> None:
    machine = machine_in(State.RUNNING)
    machine.latch("pressed")
    machine.reset(1)
    assert machine.history == (
        "idle -> armed (arm: because)",
        "armed -> running (start: because)",
        "running -> stopped (e-stop: pressed)",
        "stopped -> idle (reset)",
    )


def test_diagram_has_every_transition_that_changes_the_state() -> None:
    arrows = set(re.findall(r"^    (\w+) --> (\w+): ([\w-]+)$", mermaid(), re.MULTILINE))
    assert arrows == {(a.value, b.value, e.value) for a, e, b in transitions() if a is not b}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_event_without_an_arrow_is_refused_or_changes_nothing_as_the_page_says(state: State, event: Event) -> None:
    if f"    {state.value} --> {TRANSITIONS.get((state, event), state).value}: {event.value}\n" in page():
        return
    machine = machine_in(state)
    before = machine.why
    if event is Event.ESTOP:
        machine.latch("pressed")
    elif (state, event) in TRANSITIONS:
        machine.fire(event, "again")
    else:
        with pytest.raises(BadInputError, match="cannot"):
            machine.require(event)
    assert (machine.state, machine.why) == (state, before)
    assert "refused there, or changes nothing" in " ".join(page().split())


def test_page_says_what_leads_out_of_the_latched_states() -> None:
    assert "Only a reset leads out of stopped and faulted" in " ".join(page().split())
    out = {event for a, event, b in transitions() if a in LATCHED and b not in LATCHED}
    assert out == {Event.RESET} and "leaves it" not in page()  # a fault leads from stopped to faulted


def test_page_in_docs_is_up_to_date() -> None:
    assert DOCS.read_text(encoding="utf-8") == page()
