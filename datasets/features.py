"""Encode once: what frames become under a frozen encoder (its tokens, or the states read from them), kept on disk."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wm.datasets.reader import EpisodeStore
from wm.errors import StoreError
from wm.specs import require_equal

_BATCH = 64  # frames; a third faster than 256 on two cores, whose caches these activations still fit
_COMMIT_EVERY = 200  # episodes
_COMMIT_SECONDS = 60.0  # or earlier, where encoding is slow


@dataclass(frozen=True)
class Coding:
    """What a frame becomes.

    Attributes:
        encode: Frames ``(n, H, W, 3)`` uint8 to their rows ``(n, *shape)``, each of its frame alone.
        shape: Of a row, e.g. ``(N, D)``.
        dtype: Of the table on disk.
        identity: JSON values that tell this coding from others, e.g. the fingerprint of the encoder.
    """

    encode: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    dtype: torch.dtype
    identity: dict[str, object]


def feature_table(
    store: EpisodeStore,
    coding: Coding,
    out: Path,
    *,
    episodes: int | None = None,
    rows: Callable[[int], Tensor] | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Rows ``(O, *shape)`` of all observations of a store, mapped from a file; it is made where it is missing.

    An interrupted table is continued after its last commit (one each 200 episodes, or each minute where encoding is
    slow); one of another coding or another store is refused.

    Args:
        store: Episodes.
        coding: What becomes of a frame.
        out: Folder of `table.bin` and `table.json`.
        episodes: Only the first ones; all when None.
        rows: What an episode's frames are taken from instead of the store, e.g. another table.
        batch: Frames that are encoded at a time; 64 when None.
        progress: Called with (episodes done, episodes in all).

    Raises:
        MismatchError: the table was made by another coding or from other data.
        StoreError: the disk refuses (what was encoded so far is kept), or the table's record cannot be read.
    """
    episodes = len(store) if episodes is None else min(episodes, len(store))
    shape = (int(store.observation_offsets[episodes]), *coding.shape)
    identity = coding.identity | {"store": store.fingerprint(), "shape": list(shape), "dtype": str(coding.dtype)}
    data, record = out / "table.bin", out / "table.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        done = _done(record, identity)
        table = _mapped(data, shape, coding.dtype)
        if table is None:
            record.unlink(missing_ok=True)  # what it counts is gone
            done, table = 0, _made(data, shape, coding.dtype)
        size, committed = batch or _BATCH, time.monotonic()
        for episode in range(done, episodes):
            first, stop = (int(v) for v in store.observation_offsets[episode : episode + 2])
            frames = torch.from_numpy(store.frames(episode)) if rows is None else rows(episode)
            for start in range(0, stop - first, size):
                part = frames[start : start + size]
                table[first + start : first + start + len(part)] = coding.encode(part).to(coding.dtype)
            due = time.monotonic() - committed > _COMMIT_SECONDS
            if due or (episode + 1) % _COMMIT_EVERY == 0 or episode + 1 == episodes:
                _commit(data, record, identity | {"episodes": episode + 1})
                committed = time.monotonic()
            if progress is not None:
                progress(episode + 1, episodes)
    except OSError as error:
        raise StoreError(f"cannot write the features {data}: {error.strerror}; what was encoded is kept.") from error
    return table


def _mapped(data: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    """The table's file in memory; None where it is missing or of another size."""
    size = math.prod(shape)
    if not data.exists() or data.stat().st_size != size * dtype.itemsize:
        return None
    return torch.from_file(str(data), shared=True, size=size, dtype=dtype).view(shape)


def _made(data: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The same, its space on the disk taken first: a mapped file that finds the disk full ends the process."""
    with data.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
    table = _mapped(data, shape, dtype)
    assert table is not None
    return table


def _done(path: Path, identity: dict[str, object]) -> int:
    if not path.exists():
        return 0
    try:
        found = json.loads(path.read_text())
        episodes = int(found.pop("episodes"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{path}: expected the record of cached features, it cannot be read; remove it.") from None
    require_equal("cached features of another coding or dataset", identity, found, path)
    return episodes


def _commit(data: Path, path: Path, record: dict[str, object]) -> None:
    """Record how far the table is, after its pages are on the disk."""
    with data.open("rb+") as file:
        os.fsync(file.fileno())
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(path)
