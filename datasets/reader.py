"""Reading an episode store."""

from __future__ import annotations

import hashlib
import json
import operator
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from wm.datasets.chunks import StoredArray, layouts, read_json
from wm.datasets.commits import LOG_NAME, content_checksum, read_log
from wm.datasets.schema import FORMAT, DatasetSpec
from wm.errors import BadInputError, StoreError, WmError


class EpisodeStore:
    """The committed episodes of a store, as they were when it was opened. It never writes.

    Whatever came after the last commit is ignored. Metadata and commit log are checked here; chunk files when they are
    read; the data's checksums by `verify`.

    Args:
        path: The store's folder.

    Attributes:
        path: The store's folder.
        spec: What it says of itself.
        lengths: ``(E,)`` int64, T of each episode: its number of actions.
        starts: ``(E,)`` int64, each episode's first row in the padded ``frames`` array on disk (a chunk's start).
        observation_offsets: ``(E+1,)`` int64, where episodes begin in the concatenated observations, and their end.
        action_offsets: ``(E+1,)`` int64, the same for the concatenated actions.

    Raises:
        StoreError: missing, not a store, of another format version, truncated or corrupt.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.spec, promised = read_attributes(self.path)
        log = self.path / LOG_NAME
        self._commits, _ = read_log(log)
        if len(self) < promised:
            raise StoreError(f"{log}: expected at least {promised} commits, as when it was closed, came {len(self)}.")
        self._arrays = {layout.name: StoredArray(self.path, layout) for layout in layouts(self.spec)}
        self.observation_offsets = np.array([0] + [c.observations_end for c in self._commits], np.int64)
        self.action_offsets = np.array([0] + [c.actions_end for c in self._commits], np.int64)
        self.lengths = np.diff(self.action_offsets)
        self.starts = np.array([0] + [c.frames_end for c in self._commits], np.int64)[:-1]
        self._check_rows()

    def __len__(self) -> int:
        """E, the number of committed episodes."""
        return len(self._commits)

    def frames(self, e: SupportsIndex, start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> np.ndarray:
        """Frames ``start`` to ``stop - 1`` of episode ``e``, ``(stop - start, H, W, 3)`` uint8; at most T + 1.

        Raises:
            BadInputError: no such episode, or a slice outside it.
            StoreError: damaged data.
        """
        e, first, last = self._slice(e, start, stop, 1)
        base = int(self.starts[e])
        return self._arrays["frames"].read(base + first, base + last)

    def actions(self, e: SupportsIndex, start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> np.ndarray:
        """Actions of episode ``e``, ``(stop - start, A)`` float32, raw units; at most T. Raises as `frames`."""
        e, first, last = self._slice(e, start, stop, 0)
        base = int(self.action_offsets[e])
        return self._rows("actions", base + first, base + last)

    def proprio(
        self, e: SupportsIndex, start: SupportsIndex = 0, stop: SupportsIndex | None = None
    ) -> np.ndarray | None:
        """Proprioception of episode ``e``, ``(stop - start, P)`` float32, raw units, or None. Raises as `frames`."""
        e, first, last = self._slice(e, start, stop, 1)
        base = int(self.observation_offsets[e])
        return None if self.spec.env.proprio is None else self._rows("proprio", base + first, base + last)

    def state(self, e: SupportsIndex, start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> np.ndarray:
        """True state of episode ``e``, ``(stop - start, S)`` float64, for diagnostics only. Raises as `frames`."""
        e, first, last = self._slice(e, start, stop, 1)
        base = int(self.observation_offsets[e])
        return self._rows("state", base + first, base + last)

    def all_actions(self) -> np.ndarray:
        """All actions, ``(sum of T, A)`` float32; `action_offsets` tells the episodes apart."""
        return self._rows("actions", 0, int(self.action_offsets[-1]))

    def all_proprio(self) -> np.ndarray | None:
        """All proprioception, ``(sum of T + 1, P)`` float32, or None; see `observation_offsets`."""
        return None if self.spec.env.proprio is None else self._rows("proprio", 0, int(self.observation_offsets[-1]))

    def all_state(self) -> np.ndarray:
        """All true states, ``(sum of T + 1, S)`` float64; see `observation_offsets`."""
        return self._rows("state", 0, int(self.observation_offsets[-1]))

    def seeds(self) -> np.ndarray:
        """``(E,)`` int64, the episodes' seeds."""
        return np.array([c.seed for c in self._commits], np.int64)

    def verify(self) -> None:
        """Read everything and compare it with the committed checksums.

        Raises:
            StoreError: names the first episode whose data is damaged.
        """
        for e, commit in enumerate(self._commits):
            found = {"frames": self.frames(e), "state": self.state(e), "actions": self.actions(e)}
            proprio = self.proprio(e)
            if proprio is not None:
                found["proprio"] = proprio
            came = content_checksum(found)
            if came != commit.checksum:
                raise StoreError(f"{self.path}: episode {e}: expected checksum {commit.checksum}, came {came}.")

    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of the spec and the committed checksums: what a cache of derived data belongs to."""
        text = json.dumps([self.spec.to_json(), *(c.checksum for c in self._commits)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        if name in self._arrays:
            return self._arrays[name].read(start, stop)
        dtype = np.float64 if name == "state" else np.float32
        return np.empty((stop - start, 0), dtype)  # an array without width is not stored

    def _slice(
        self, e: SupportsIndex, start: SupportsIndex, stop: SupportsIndex | None, more: int
    ) -> tuple[int, int, int]:
        """Check a slice of an episode's T + ``more`` rows, and fill in its end."""
        e, first = operator.index(e), operator.index(start)
        if not 0 <= e < len(self):
            raise BadInputError(f"{self.path}: expected an episode in 0 … {len(self) - 1}, came {e}.")
        rows = int(self.lengths[e]) + more
        last = rows if stop is None else operator.index(stop)
        if not 0 <= first <= last <= rows:
            raise BadInputError(f"{self.path}: episode {e}: expected a slice of 0:{rows}, came {first}:{last}.")
        return e, first, last

    def _check_rows(self) -> None:
        ends = {"frames": self._commits[-1].frames_end if self._commits else 0}
        ends["actions"] = int(self.action_offsets[-1])
        for name, array in self._arrays.items():
            committed, rows = ends.get(name, int(self.observation_offsets[-1])), array.rows()
            if rows < committed:
                raise StoreError(f"{array.metadata_file}: expected at least {committed} committed rows, came {rows}.")


def read_attributes(path: Path) -> tuple[DatasetSpec, int]:
    """A store's spec, and the number of episodes it was last closed with.

    Raises:
        StoreError: missing, not an episode store, of another format version, or corrupt.
    """
    if not path.is_dir():
        raise StoreError(
            f"{path}: expected the folder of an episode store, came {'a file' if path.exists() else 'nothing'}."
        )
    file = path / "zarr.json"
    if not file.exists():
        raise StoreError(f"{path}: not an episode store: it has no zarr.json.")
    attributes = read_json(file).get("attributes")
    content = attributes.get("wm") if isinstance(attributes, dict) else None
    if not isinstance(content, dict) or not isinstance(content.get("spec"), dict):
        raise StoreError(f"{file}: expected the attribute 'wm' of an episode store, came {attributes}.")
    found = content["spec"].get("format")
    if found != FORMAT:
        raise StoreError(f"{file}: expected format version {FORMAT}, came {found}.")
    try:
        return DatasetSpec.from_json(content["spec"]), int(content["episodes"])
    except (WmError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{file}: expected a dataset's spec, came one that cannot be read ({error}).") from error
