"""The log of an evaluation: one JSON line per finished episode, so that an interrupted run loses nothing."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wm.errors import BadInputError
from wm.experiments.episode import Outcome, Task


@dataclass(frozen=True)
class Record:
    """One finished episode.

    Attributes:
        index: Place of its task in the list.
        seed: Of the planner's noise.
        start, goal, end: States.
        reached: The environment's success test passed within the budget.
        steps: Control steps executed.
        measures: The world's numbers of how it went, see its `World.measures`.
        guardrail_violations: Executed control steps at which a guardrail was broken, over all guardrails.
        plan_ms: Wall time of each plan.
        observe_ms: Wall time of taking in each observation.
        iterations: Of each plan's search.
        candidates: Rolled out for each plan.
    """

    index: int
    seed: int
    start: list[float]
    goal: list[float]
    end: list[float]
    reached: bool
    steps: int
    measures: dict[str, float]
    guardrail_violations: int
    plan_ms: list[float]
    observe_ms: list[float]
    iterations: list[int] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, index: int, task: Task, outcome: Outcome, measures: dict[str, float]) -> Record:
        """The record of an episode with a known goal state, and the world's measures of it."""
        return cls(
            index=index,
            seed=task.seed,
            start=task.start_state.tolist(),
            goal=np.asarray(task.goal_state).tolist(),
            end=outcome.states[-1].tolist(),
            reached=outcome.reached,
            steps=outcome.steps,
            measures=measures,
            guardrail_violations=sum(outcome.violations.values()),
            plan_ms=[round(ms, 3) for ms in outcome.plan_ms],
            observe_ms=[round(ms, 3) for ms in outcome.observe_ms],
            iterations=[plan.iterations for plan in outcome.plans],
            candidates=[plan.candidates for plan in outcome.plans],
        )


class EpisodeLog:
    """Appends records to a file of JSON lines, and reads back what an earlier run left.

    A last line without its newline is what an interrupted write leaves; it is cut off.

    Args:
        path: The file; it need not exist.

    Raises:
        BadInputError: a line is not a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[int, Record] = {}
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.decode("utf-8", "replace").splitlines(), start=1):
            try:
                record = Record(**json.loads(line))
            except (TypeError, ValueError) as error:
                raise BadInputError(f"{path}, line {number}: not an episode ({error}); use another --out.") from error
            self.records[record.index] = record

    def append(self, record: Record) -> None:
        """Write one more line, and have the system take it before returning."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")
        self.records[record.index] = record

    def first(self, count: int) -> list[Record]:
        """The records of tasks 0 … count - 1 that are there, in order."""
        return [self.records[index] for index in sorted(self.records) if index < count]
