"""Results of a study, one JSON line per finished episode, so that an interrupted study goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from wm.errors import BadInputError
from wm.experiments.run_folder import CONFIG_FILE, claim

EPISODES = "episodes.jsonl"
"""The file in a folder of rows, where it has no other name."""


class Rows:
    """A file of JSON lines, each with an ``index``; a last line without its end is what an interruption left.

    Args:
        path: The file; it need not exist.

    Raises:
        BadInputError: a line that is none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, dict[int, dict[str, Any]]()
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                self.rows[int(row["index"])] = row
            except (KeyError, TypeError, ValueError) as error:
                raise BadInputError(f"{path}, line {number}: not an episode ({error}); use another --out.") from error

    def append(self, row: dict[str, Any]) -> None:
        """One more line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        self.rows[int(row["index"])] = row

    def missing(self, count: int) -> list[int]:
        """Which of the episodes 0 … count - 1 are still to be played."""
        return [index for index in range(count) if index not in self.rows]

    def first(self, count: int) -> list[dict[str, Any]]:
        """The first episodes' rows, in order."""
        return [self.rows[index] for index in range(count) if index in self.rows]


def opened(out: Path, config: dict[str, Any], name: str = EPISODES) -> Rows:
    """The rows in a study's folder, which is made, or belongs to the same study.

    Raises:
        MismatchError: the folder holds another study.
        BadInputError: it cannot be written, or holds rows of which nothing says what they are of.
    """
    if (out / name).exists() and not (out / CONFIG_FILE).exists():
        raise BadInputError(f"{out / name}: expected {CONFIG_FILE} beside it, there is none; use another --out.")
    claim(out, config)
    return Rows(out / name)


def turns(rows: Mapping[str, Rows], count: int) -> Iterator[tuple[int, str]]:
    """Which of the episodes 0 … count - 1 each name still lacks: all names' first one, all names' second one, …"""
    for index in range(count):
        yield from ((index, name) for name, kept in rows.items() if index not in kept.rows)


@contextmanager
def progress(title: str, total: int, done: int) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on stderr with a ``note`` behind it."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Remaining())
    note = TextColumn("{task.fields[note]}")
    with Progress(*columns, note, console=Console(stderr=True), refresh_per_second=1) as bar:
        yield bar, bar.add_task("", total=total, completed=done, note="")
