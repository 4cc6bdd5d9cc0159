"""The commit log: the one place that says which episodes exist.

``commits.jsonl`` holds a line per episode, appended and flushed after the episode's data. Each line carries a checksum
of itself, so that a line torn by a crash is told from a commit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm.datasets.chunks import FRAMES_PER_CHUNK
from wm.errors import StoreError

LOG_NAME = "commits.jsonl"


@dataclass(frozen=True)
class Commit:
    """One episode's line in the log.

    Attributes:
        episode: Its index.
        seed: Its seed.
        frames_end: End of its rows in ``frames``; every episode starts at a chunk's start there.
        observations_end: End of its rows in ``proprio`` and ``state``.
        actions_end: End of its rows in ``actions``.
        checksum: `content_checksum` of its arrays.
    """

    episode: int = -1
    seed: int = 0
    frames_end: int = 0
    observations_end: int = 0
    actions_end: int = 0
    checksum: str = ""

    def next(self, steps: int, seed: int, checksum: str) -> Commit:
        """The commit after this one, of an episode of ``steps`` actions."""
        padded = -(-(steps + 1) // FRAMES_PER_CHUNK) * FRAMES_PER_CHUNK
        return Commit(
            self.episode + 1,
            seed,
            self.frames_end + padded,
            self.observations_end + steps + 1,
            self.actions_end + steps,
            checksum,
        )

    def line(self) -> bytes:
        """The log's line, its own checksum last."""
        body = json.dumps(dataclasses.asdict(self))
        return f'{body[:-1]}, "line": "{zlib.crc32(body.encode()):08x}"}}\n'.encode()


EMPTY = Commit()  # what precedes the first episode


def content_checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (32 hex digits) of arrays: names, types, shapes, values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()[:32]


def read_log(path: Path) -> tuple[list[Commit], int]:
    """The committed episodes, and the log's length in bytes up to the last commit.

    A last line without an end is a commit that never happened, and is dropped.

    Raises:
        StoreError: the log is missing, or a whole line in it is not the commit that has to come there.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: expected the commit log, came: {error.strerror}.") from error
    whole = data[: data.rfind(b"\n") + 1]
    commits: list[Commit] = []
    for number, line in enumerate(whole.splitlines(keepends=True), start=1):
        commits.append(_parse(line, commits[-1] if commits else EMPTY, f"{path}, line {number}"))
    return commits, len(whole)


def _parse(line: bytes, before: Commit, where: str) -> Commit:
    try:
        fields = json.loads(line)
        fields.pop("line")
        commit = Commit(**fields)
        whole = commit.line() == line
    except Exception as error:  # whatever a damaged line brings about
        raise StoreError(f"{where}: expected a commit, came a damaged line ({error}).") from error
    if not whole:
        raise StoreError(f"{where}: expected a line that matches its checksum, came a damaged one.")
    expected = before.next(commit.actions_end - before.actions_end, commit.seed, commit.checksum)
    if commit != expected or commit.actions_end <= before.actions_end:
        raise StoreError(f"{where}: expected the commit of episode {expected.episode} to follow, came {commit}.")
    return commit
