"""Encode once: the frozen encoder's tokens of every frame of a store, on disk in bfloat16."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from wm.datasets.reader import EpisodeStore
from wm.encoders.base import Encoder
from wm.errors import StoreError
from wm.specs import require_equal

_BATCH = 256
_COMMIT_EVERY = 200  # episodes


def feature_table(
    store: EpisodeStore, encoder: Encoder, out: Path, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Tokens ``(O, N, D)`` bfloat16 of all observations of a store, mapped from a file; it is made where it is missing.

    An interrupted table is continued after its last commit (one each 200 episodes); one of another encoder or another
    store is refused.

    Args:
        store: Episodes.
        encoder: Frozen.
        out: Folder of `tokens.bf16` and `tokens.json`.
        progress: Called with (episodes done, episodes in all).

    Raises:
        MismatchError: the table was made by another encoder or from other data.
        StoreError: the disk refuses (what was encoded so far is kept), or the table's record cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows, episodes = int(store.observation_offsets[-1]), len(store)
    tokens, width = encoder.grid * encoder.grid, encoder.width
    identity: dict[str, object] = {
        "encoder": encoder.spec().fingerprint,
        "store": store.fingerprint(),
        "shape": [rows, tokens, width],
    }
    done = _done(out / "tokens.json", identity)
    size = rows * tokens * width
    data = out / "tokens.bf16"
    try:
        if not data.exists() or data.stat().st_size != 2 * size:
            done = 0
            (out / "tokens.json").unlink(missing_ok=True)  # what it counts is gone
            with data.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 2 * size)
        table = torch.from_file(str(data), shared=True, size=size, dtype=torch.bfloat16).view(rows, tokens, width)
        for episode in range(done, episodes):
            first, stop = (int(v) for v in store.observation_offsets[episode : episode + 2])
            frames = torch.from_numpy(store.frames(episode))
            for start in range(0, stop - first, _BATCH):
                part = frames[start : start + _BATCH]
                table[first + start : first + start + len(part)] = encoder.encode(part[None])[0].to(torch.bfloat16)
            if (episode + 1) % _COMMIT_EVERY == 0 or episode + 1 == episodes:
                _commit(data, out / "tokens.json", identity | {"episodes": episode + 1})
            if progress is not None:
                progress(episode + 1, episodes)
    except OSError as error:
        raise StoreError(f"cannot write the features {data}: {error.strerror}; what was encoded is kept.") from error
    return table


def _done(path: Path, identity: dict[str, object]) -> int:
    if not path.exists():
        return 0
    try:
        found = json.loads(path.read_text())
        episodes = int(found.pop("episodes"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{path}: expected the record of cached features, it cannot be read; remove it.") from None
    require_equal("cached features of another encoder or dataset", identity, found, path)
    return episodes


def _commit(data: Path, path: Path, record: dict[str, object]) -> None:
    """Record how far the table is, after its pages are on the disk."""
    with data.open("rb+") as file:
        os.fsync(file.fileno())
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(path)
