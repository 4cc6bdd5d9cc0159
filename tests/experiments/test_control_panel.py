from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.experiments.test_episode_sink import step_log
from wm.experiments.control_panel import BAR, View, Watcher, deadline_bar, margin_bar, render
from wm.planners.control.messages import PlanReply
from wm.planners.control.states import State

pytestmark = pytest.mark.real_time


def plan(margin: float = 12.0) -> PlanReply:
    return PlanReply(3, np.zeros((5, 2)), {"goal": 0.25, "effort": 0.75}, {"keep_out": margin}, True, 130.0)


def view(**changes: Any) -> View:
    shown = View(30.0, 10.0, 0.005, {"keep_out": "px"})
    shown.take(step_log(0, plan=plan(24.0), deadline_ms=190.0))
    shown.take(step_log(1, plan=plan(), kind="corrected", rule="keep_out", late_s=0.02, margin=3.5, **changes))
    return shown


def drawn(shown: View) -> str:
    console = Console(file=io.StringIO(), width=90, force_terminal=False)
    console.print(render(shown))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_panel_tells_state_energies_margins_times_and_interventions() -> None:
    text = drawn(view(state=State.HOLDING))
    for words in (
        "holding  0.2 s of 30 s",
        "energy goal      0.250",
        "energy effort    0.750",
        "margin keep_out  +12.0 px",
        "130 / 190 ms",
        "1 changed",
        "certified +3.5; last rule: keep_out",
        "1 of 2",
        "latest begin 20.0 ms late",
        "Ctrl-C stops the robot",
    ):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 90


def test_energies_shrink_from_their_highest() -> None:
    shown = view()
    shown.energies = {"goal": 0.125}
    (row,) = (line for line in drawn(shown).splitlines() if "energy goal" in line)
    assert row.count("█") == BAR // 2


def test_panel_before_the_first_plan() -> None:
    assert "armed" in drawn(View(30.0, 10.0, 0.005, {}))


@pytest.mark.parametrize(
    ("value", "left", "right"),
    [(0.0, 0, 0), (10.0, 0, BAR - BAR // 4 - 1), (50.0, 0, BAR - BAR // 4 - 1), (5.0, 0, 12), (-10.0, BAR // 4, 0)],
)
def test_margins_stand_on_their_zero_line(value: float, left: int, right: int) -> None:
    before, after = margin_bar(value, 10.0).plain.split("│")
    assert len(before) == BAR // 4 and (before.count("█"), after.count("█")) == (left, right)


def test_a_broken_margin_shows_however_small_it_is_and_nan_does_not_break_the_bar() -> None:
    assert margin_bar(-1e-6, 100.0).plain.split("│")[0].endswith("█")
    assert "█" not in margin_bar(float("nan"), 1.0).plain


def test_time_beyond_the_deadline_is_drawn_beyond_its_line() -> None:
    within, beyond = deadline_bar(95.0, 190.0).plain.split("│")
    assert within.count("█") == 3 * BAR // 8 and beyond == ""
    within, beyond = deadline_bar(1900.0, 190.0).plain.split("│")
    assert within.count("█") == 3 * BAR // 4 and beyond.count("█") == BAR // 4


def test_stops_that_are_not_certified_and_readings_outside_of_the_bounds_stand_out() -> None:
    shown = view()
    assert "certified  " not in drawn(shown) and "outside" not in shown.line()
    shown.take(step_log(2, kind="uncertified_stop", rule="stated bounds", margin=-np.inf, outside=12.3))
    shown.take(step_log(3, kind="uncertified_stop", rule="keep_out", margin=-1.0))
    assert (shown.interventions, shown.uncertified, shown.outside) == (1, 2, 12.3)
    assert "| NOT CERTIFIED: 2 stops | a reading 12 outside of the bounds |" in shown.line()
    (row,) = (line for line in drawn(shown).splitlines() if "not certified" in line)
    assert "2 stops" in row and "a reading 12 outside of the bounds" in row


def test_without_certificates_it_says_so_and_speaks_of_bounds() -> None:
    shown = View(30.0, 10.0, 0.005, {}, certifying=False)
    shown.take(step_log(0, kind="uncertified_stop", rule="no current reading", margin=-np.inf))
    shown.take(step_log(1, kind="corrected", rule="action bounds", margin=-np.inf))
    assert shown.uncertified == 0 and "NOT CERTIFIED" not in shown.line() and "shield" not in shown.line()
    assert "| NO ACTION IS CERTIFIED | bounds changed 1 (last: action bounds) |" in shown.line()
    (row,) = (line for line in drawn(shown).splitlines() if "bounds  " in line)
    assert "1 changed" in row and "no action is certified; last rule: action bounds" in row
    assert "inf" not in drawn(shown)


def test_line() -> None:
    assert view().line() == (
        "0.2 s running | energy goal 0.250 | energy effort 0.750 | margin keep_out +12.0 px | plan 130 of 190 ms"
        " | shield changed 1 (last: keep_out) | on time 1 of 2"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_watcher_shows_the_last_state(terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=90, force_terminal=terminal)
    watcher = Watcher(View(1.0, 10.0, 0.005, {}), console, lambda: ("stopped", "because"))
    with watcher.showing():
        watcher.record(step_log(0, plan=plan()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "stopped" in text and "0.250" in text and ("because" in text) == terminal


def test_watcher_outlives_whoever_was_looking() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    console.file.close()
    watcher = Watcher(View(1.0, 10.0, 0.005, {}), console, lambda: ("running", ""))
    with watcher.showing():
        watcher.record(step_log(0))
