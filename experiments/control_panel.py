"""What an operator sees while the loop runs: a live panel on a terminal, a line a second elsewhere; never a picture."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from wm.planners.control.report import StepLog

REFRESH_S = 0.25
LINE_S = 1.0
BAR = 32
"""Characters of a bar; the zero line of a margin stands at a quarter of it."""

_STYLES = {"running": "bold green", "holding": "bold yellow", "stopped": "bold red", "faulted": "bold red"}


@dataclass
class View:
    """What is shown.

    Attributes:
        duration_s: Of the run.
        hz: Control steps per second.
        on_time_s: Delay that still counts as on time.
        units: Of each guardrail's margin, by name.
        digits: Decimals of margins.
        certifying: Actions are certified; False: only their bounds are kept.
        state, why: Of the loop.
        periods: Executed control steps.
        on_time: Of these, begun in time.
        worst_late_ms: Largest delay of a begin.
        interventions: Actions that the shield changed into certified ones, or ones inside their bounds.
        uncertified: Stops that were not certified; 0 where nothing is.
        outside: Largest distance of a reading from what the stated bounds allow; 0 when none contradicted them.
        rule: The last rule that the shield enforced.
        energies: Of the newest plan.
        highest: Each energy's highest value so far, the full length of its bar.
        margins: The newest plan's smallest margins by guardrail.
        largest: Largest size of each margin so far, the scale of its bar.
        certified: The shield's smallest certified margin.
        plan_ms: Of the newest plan.
        deadline_ms: Of the newest request.
    """

    duration_s: float
    hz: float
    on_time_s: float
    units: dict[str, str]
    digits: int = 1
    certifying: bool = True
    state: str = "armed"
    why: str = ""
    periods: int = 0
    on_time: int = 0
    worst_late_ms: float = 0.0
    interventions: int = 0
    uncertified: int = 0
    outside: float = 0.0
    rule: str | None = None
    energies: dict[str, float] = field(default_factory=dict)
    highest: dict[str, float] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    certified: float = float("nan")
    plan_ms: float | None = None
    deadline_ms: float | None = None

    def take(self, step: StepLog) -> None:
        """One more control step."""
        self.state = step.state.value
        self.periods += 1
        self.on_time += step.late_s <= self.on_time_s
        self.worst_late_ms = max(self.worst_late_ms, 1000 * step.late_s)
        self.interventions += step.kind not in ("passed", "uncertified_stop")
        self.uncertified += self.certifying and step.kind == "uncertified_stop"
        self.outside = max(self.outside, step.outside)
        self.rule = step.rule or self.rule
        self.certified = step.margin
        self.deadline_ms = step.deadline_ms or self.deadline_ms
        if step.plan is not None:
            self.energies, self.margins, self.plan_ms = step.plan.energies, step.plan.margins, step.plan.plan_ms
            for name, energy in self.energies.items():
                self.highest[name] = max(energy, self.highest.get(name, 0.0))
            for name, margin in self.margins.items():
                self.largest[name] = max(abs(margin), self.largest.get(name, 0.0))

    def margin(self, name: str, value: float) -> str:
        """A margin with its unit."""
        return f"{value:+.{self.digits}f} {self.units.get(name, '')}"

    def line(self) -> str:
        """All of it in one line of plain text."""
        parts = [f"{self.periods / self.hz:.1f} s {self.state}"]
        parts += [f"energy {name} {value:.3f}" for name, value in self.energies.items()]
        parts += [f"margin {name} {self.margin(name, value)}" for name, value in self.margins.items()]
        if self.plan_ms is not None and self.deadline_ms is not None:
            parts.append(f"plan {self.plan_ms:.0f} of {self.deadline_ms:.0f} ms")
        kept = "shield" if self.certifying else "NO ACTION IS CERTIFIED | bounds"
        parts.append(f"{kept} changed {self.interventions}" + (f" (last: {self.rule})" if self.rule else ""))
        if self.uncertified:
            parts.append(f"NOT CERTIFIED: {self.uncertified} stops")
        if self.outside > 0:
            parts.append(f"a reading {self.outside:.2g} outside of the bounds")
        parts.append(f"on time {self.on_time} of {self.periods}")
        return " | ".join(parts)


def render(view: View) -> Panel:
    """The panel."""
    table = Table.grid(padding=(0, 2))
    for name, value in view.energies.items():
        highest = view.highest.get(name, 0.0)
        share = value / highest if highest > 0 else 0.0
        table.add_row(f"energy {name}", f"{value:.3f}", Text("█" * round(BAR * max(0.0, min(1.0, share))), "cyan"))
    for name, value in view.margins.items():
        scale = view.largest.get(name, 0.0)
        table.add_row(f"margin {name}", view.margin(name, value), margin_bar(value, scale))
    certified: str | tuple[str, str] = f"certified {view.certified:+.{view.digits}f}"
    if not view.certifying:
        certified = ("no action is certified", "bold red")
    elif view.certified != view.certified:
        certified = "nothing certified yet"
    last = Text.assemble(certified, f"; last rule: {view.rule or 'none'}")
    table.add_row("shield" if view.certifying else "bounds", f"{view.interventions} changed", last)
    if view.uncertified or view.outside > 0:
        told = f"a reading {view.outside:.2g} outside of the bounds" if view.outside > 0 else ""
        table.add_row("not certified", Text(f"{view.uncertified} stops", "bold red"), Text(told, "bold red"))
    if view.plan_ms is not None and view.deadline_ms is not None:
        numbers = f"{view.plan_ms:.0f} / {view.deadline_ms:.0f} ms"
        table.add_row("plan / deadline", numbers, deadline_bar(view.plan_ms, view.deadline_ms))
    late = f"latest begin {view.worst_late_ms:.1f} ms late"
    table.add_row("periods on time", f"{view.on_time} of {view.periods}", late)
    head = Text.assemble((view.state, _STYLES.get(view.state, "bold")), f"  {view.periods / view.hz:.1f} s")
    head.append(f" of {view.duration_s:g} s" + (f"  {view.why}" if view.why else ""))
    return Panel(Group(head, table), title="wm control", subtitle="Ctrl-C stops the robot", title_align="left")


def margin_bar(value: float, scale: float) -> Text:
    """A margin to the right of its zero line, or, where it is broken, to the left."""
    zero = BAR // 4
    share = max(-1.0, min(1.0, value / scale)) if scale > 0 and value == value else 0.0
    if share < 0:
        cells = max(1, round(-share * zero))
        return Text.assemble(" " * (zero - cells), ("█" * cells, "red"), "│")
    return Text.assemble(" " * zero, "│", ("█" * round(share * (BAR - zero - 1)), "green"))


def deadline_bar(value: float, deadline: float) -> Text:
    """Time used of the deadline, which stands at three quarters of the bar."""
    end = 3 * BAR // 4
    cells = min(BAR, round(end * value / max(deadline, 1e-9)))
    within = Text.assemble(("█" * min(cells, end), "green"), " " * max(0, end - cells), "│")
    return within.append("█" * max(0, cells - end), "red")


class Watcher:
    """Shows a `View` from a thread of its own, so that a terminal that blocks never holds up the loop.

    It draws just after a control step was recorded, when the loop has nothing to do until its next period.

    Args:
        view: Taken over; `record` keeps it.
        console: Where to show it.
        state: State and reason of the loop, asked when drawing.
    """

    def __init__(self, view: View, console: Console, state: Callable[[], tuple[str, str]]) -> None:
        self.view, self._console, self._state = view, console, state
        self._recorded, self._ended = threading.Event(), threading.Event()

    def record(self, step: StepLog) -> None:
        """Take a control step."""
        self.view.take(step)
        self._recorded.set()

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show it while the block runs."""
        thread = threading.Thread(target=self._show, name="control-panel", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._recorded.set()
            thread.join(1.0)

    def _show(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # whoever was looking is gone
            if self._console.is_terminal:
                with Live(console=self._console, auto_refresh=False) as live:
                    self._loop(REFRESH_S, lambda: live.update(render(self._current()), refresh=True))
            else:
                self._loop(LINE_S, lambda: print(self._current().line(), file=self._console.file, flush=True))

    def _loop(self, period_s: float, show: Callable[[], object]) -> None:
        shown = time.monotonic()
        while not self._ended.is_set():
            self._recorded.wait()
            self._recorded.clear()
            if self._ended.is_set() or time.monotonic() - shown >= period_s:
                show()
                shown = time.monotonic()

    def _current(self) -> View:
        self.view.state, self.view.why = self._state()
        return self.view
