"""Acting makes data: what the control loop did, as episodes that `wm train` reads and as lines that a person reads."""

from __future__ import annotations

import errno
import json
import math
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wm.datasets.schema import DatasetSpec, Episode
from wm.datasets.writer import EpisodeWriter
from wm.errors import StoreError
from wm.planners.control.report import LoopReport, StepLog
from wm.robot import RobotObservation

STEPS_FILE = "steps.jsonl"
"""Beside the store's own files."""

SEGMENT_STEPS = 100
"""Control steps of a committed episode."""

StateAt = Callable[[RobotObservation], np.ndarray | None]


class EpisodeSink:
    """Writes executed control steps into an episode store, and all that was decided into a file of JSON lines.

    An episode holds consecutive control steps, each with an observation of its own: what was seen, and then what the
    robot says it took. A control step that was skipped, or saw nothing new, ends the episode before it. Every
    ``segment_steps`` control steps an episode is committed, by a thread of its own; the next one begins with its last
    observation, so that nothing is lost between them. An action that the robot did not confirm is in no episode. A
    killed process leaves every committed episode, and a line for each control step.

    Lines (`STEPS_FILE`): ``{"run": …}`` what ran; ``{"step": …}`` per control step, numbers that are not finite as
    ``"inf"``, ``"-inf"`` or ``"nan"``; ``{"episode": …}`` which steps a committed episode holds; ``{"end": …}`` how and
    why the run ended.

    Args:
        path: The store's folder: new, empty, or a store of the same spec, which is then continued.
        spec: What is recorded. Without names of states none are kept.
        run: JSON values that say what ran.
        state_at: True state ``(S,)`` at an observation, or None when it is not known (then the observation is not
            kept); needed when the spec has names of states.
        segment_steps: >= 1.

    Raises:
        StoreError: the folder cannot be written, or holds something else.
        MismatchError: a store of another spec.
    """

    def __init__(
        self,
        path: Path,
        spec: DatasetSpec,
        run: dict[str, Any],
        state_at: StateAt | None = None,
        segment_steps: int = SEGMENT_STEPS,
    ) -> None:
        self.path, self._spec, self._state_at, self._segment_steps = path, spec, state_at, segment_steps
        self._buffer: list[tuple[StepLog, np.ndarray]] = []
        self._plan_step: int | None = None
        self._failure: StoreError | None = None
        self._writer = EpisodeWriter(path, spec, resume=True)
        try:
            self._lines = _open_lines(path / STEPS_FILE)
            self._write({"run": run})
        except BaseException:
            self._writer.close()
            raise
        self._episodes: queue.SimpleQueue[list[tuple[StepLog, np.ndarray]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_all, name="episode-sink", daemon=True)
        self._thread.start()

    def record(self, step: StepLog) -> None:
        """Take one control step; nothing here waits for the disk but the system's own buffers.

        Raises:
            StoreError: the disk is full or fails, now or at an earlier commit.
        """
        if self._failure is not None:
            raise self._failure
        self._write(self._line(step))
        state = self._state_of(step)
        if self._buffer and (state is None or step.step != self._buffer[-1][0].step + 1):
            self._hand_over()
            self._buffer = []
        if state is not None:
            self._buffer.append((step, state))
        if step.sent is None:
            self._hand_over()
            self._buffer = []
        if len(self._buffer) > self._segment_steps:
            self._hand_over()
            self._buffer = self._buffer[-1:]

    def end(self, report: LoopReport) -> None:
        """Tell how the run ended, however it ended.

        Raises:
            StoreError: the disk is full or fails.
        """
        self._write({"end": report.as_values()})

    def close(self) -> None:
        """Commit what is left, and close; harmless when repeated.

        Raises:
            StoreError: the disk is full or fails, or an earlier commit failed; every committed episode is kept.
        """
        if self._lines.closed:
            return
        self._hand_over()
        self._buffer = []
        self._episodes.put(None)
        self._thread.join()
        self._lines.close()
        self._writer.close()
        if self._failure is not None:
            raise self._failure

    def __len__(self) -> int:
        """Committed episodes in the store."""
        return len(self._writer)

    def _state_of(self, step: StepLog) -> np.ndarray | None:
        """The true state at the step's own observation (no numbers where none are kept); None: not to be kept."""
        if not step.fresh or step.observation is None:
            return None
        if not self._spec.env.state_names:
            return np.empty(0)
        return None if self._state_at is None else self._state_at(step.observation)

    def _hand_over(self) -> None:
        """To the thread: the last control step lends its observation alone, since what came of it is not known yet."""
        if len(self._buffer) > 1:
            self._episodes.put(self._buffer)

    def _commit_all(self) -> None:
        """The thread: commit, until told to end; after a failure nothing more is written."""
        while (rows := self._episodes.get()) is not None:
            if self._failure is not None:
                continue
            try:
                index = self._writer.append(_episode(rows, len(self._writer)))
                self._write({"episode": index, "first_step": rows[0][0].step, "last_step": rows[-2][0].step})
            except Exception as error:
                wrapped = error if isinstance(error, StoreError) else StoreError(f"{self.path}: {error}")
                self._failure = wrapped

    def _line(self, step: StepLog) -> dict[str, Any]:
        """A control step's line; a plan is told once."""
        line: dict[str, Any] = {
            "step": step.step,
            "time": step.time,
            "late_ms": 1000 * step.late_s,
            "sent_ms": 1000 * step.sent_s,
            "state": step.state.value,
            "why": step.why,
            "fresh": step.fresh,
            "observation": None if step.observation is None else step.observation.sequence,
            "asked": step.asked.tolist(),
            "certified": step.certified.tolist(),
            "sent": None if step.sent is None else step.sent.tolist(),
            "plan_step": step.plan_step,
            "kind": step.kind,
            "rule": step.rule,
            "by": step.by,
            "moved": step.moved,
            "margin": step.margin,
            "outside": step.outside,
            "deadline_ms": step.deadline_ms,
        }
        plan = step.plan
        if plan is not None and plan.step != self._plan_step:
            self._plan_step = plan.step
            line["plan"] = {
                "step": plan.step,
                "energies": plan.energies,
                "margins": plan.margins,
                "feasible": plan.feasible,
                "plan_ms": plan.plan_ms,
                "stopped_by": plan.stopped_by,
            }
        return line

    def _write(self, line: dict[str, Any]) -> None:
        """One line in one call of the system, which a killed process does not tear."""
        data = (json.dumps(plain(line), allow_nan=False) + "\n").encode()
        try:
            if self._lines.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StoreError(f"{self.path / STEPS_FILE}: cannot be written: {error.strerror or error}.") from error


def plain(value: Any) -> Any:
    """JSON values: numbers that are not finite become their names."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def _open_lines(path: Path) -> Any:
    """The file, unbuffered, at its end; what an interrupted write left of a last line is cut off."""
    try:
        data = path.read_bytes() if path.exists() else b""
        file = path.open("ab", buffering=0)
        file.truncate(data.rfind(b"\n") + 1)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}.") from error
    return file


def _episode(rows: list[tuple[StepLog, np.ndarray]], seed: int) -> Episode:
    """T + 1 control steps as T actions and the T + 1 observations around them."""
    observations = [step.observation for step, _ in rows if step.observation is not None]
    readings = [o.proprio for o in observations if o.proprio is not None]
    return Episode(
        frames=np.stack([o.image for o in observations]),
        proprio=np.stack(readings).astype(np.float32) if readings else None,
        state=np.stack([state for _, state in rows]).astype(np.float64),
        actions=np.stack([step.sent for step, _ in rows[:-1] if step.sent is not None]).astype(np.float32),
        seed=seed,
    )
