"""Writing an episode store, so that no crash loses a committed episode."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from wm.datasets.chunks import ArrayAppender, StoredArray, layouts, sync_folder, to_json, write_file
from wm.datasets.commits import EMPTY, LOG_NAME, content_checksum, read_log
from wm.datasets.reader import EpisodeStore
from wm.datasets.schema import FORMAT, DatasetSpec, Episode
from wm.errors import StoreError
from wm.specs import require_equal


class EpisodeWriter:
    """Appends episodes to a store.

    An episode exists once its line is in the commit log, which is written last, after all its data is flushed to disk.
    A process that dies at any moment leaves a readable store with every episode whose `append` returned. One writer
    per store at a time; readers may read meanwhile.

    Args:
        path: The store's folder. It must not exist or be empty, unless ``resume``.
        spec: What will be recorded.
        resume: Continue a store of the same spec after its last committed episode (or begin one).

    Raises:
        StoreError: the folder holds something already, is being written by another process, or cannot be written.
        MismatchError: the store to be resumed has another spec.
    """

    def __init__(self, path: Path | str, spec: DatasetSpec, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.spec = spec
        self._log: int | None = None
        self._log_size = 0
        self._last = EMPTY
        self._arrays: dict[str, ArrayAppender] = {}
        if spec.format != FORMAT:
            raise StoreError(f"{self.path}: expected a spec of format version {FORMAT}, came {spec.format}.")
        try:
            occupied = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
            if occupied and not resume:
                raise StoreError(f"{self.path}: expected a new or empty folder, came one that holds something already.")
            if not occupied:
                _create(self.path, spec)
            self._open()
        except OSError as error:
            self._release()
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}.") from error
        except BaseException:
            self._release()
            raise

    def __len__(self) -> int:
        """Episodes committed so far."""
        return self._last.episode + 1

    def append(self, episode: Episode) -> int:
        """Write an episode, flush it to disk, then commit it.

        Returns:
            The episode's index. When it returns, the episode survives a power cut.

        Raises:
            BadInputError: the episode does not fit the store's spec.
            StoreError: the disk is full or fails (everything committed before is kept), or the writer is closed.
        """
        if self._log is None:
            raise StoreError(f"{self.path}: expected an open writer, came one that is closed.")
        episode.check(self.spec)
        arrays = episode.arrays()
        commit = self._last.next(len(episode), int(episode.seed), content_checksum(arrays))
        starts = {"frames": self._last.frames_end, "actions": self._last.actions_end}
        try:
            for name, appender in self._arrays.items():
                appender.write(starts.get(name, self._last.observations_end), arrays[name])
                appender.flush()
            self._commit(commit.line())
        except OSError as error:
            raise self._failure(f"episode {commit.episode} (seed {episode.seed}) cannot be written", error) from error
        self._last = commit
        return commit.episode

    def close(self) -> None:
        """State the final sizes in the metadata and let go of the store. Closing twice does nothing.

        Raises:
            StoreError: the disk is full or fails; every committed episode is kept.
        """
        if self._log is None:
            return
        ends = {"frames": self._last.frames_end, "actions": self._last.actions_end}
        try:
            for name, appender in self._arrays.items():
                appender.promise(ends.get(name, self._last.observations_end))
                appender.flush()
            write_file(self.path / "zarr.json", _group(self.spec, len(self)))
            sync_folder(self.path)
        except OSError as error:
            raise self._failure("cannot be closed properly", error) from error
        finally:
            self._release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with contextlib.suppress(StoreError):  # the error that is under way says more
                self.close()

    def _open(self) -> None:
        """Lock the store, check it, and drop whatever came after the last commit."""
        log = self.path / LOG_NAME
        if log.exists():
            self._log = os.open(log, os.O_RDWR)
            try:
                fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"{self.path}: another process is writing to it.") from error
        found = EpisodeStore(self.path).spec
        _require_same(json.loads(to_json(found.to_json())), json.loads(to_json(self.spec.to_json())), self.path)
        commits, self._log_size = read_log(log)
        self._last = commits[-1] if commits else EMPTY
        ends = {"frames": self._last.frames_end, "actions": self._last.actions_end}
        self._arrays = {layout.name: ArrayAppender(self.path, layout) for layout in layouts(self.spec)}
        for name, appender in self._arrays.items():
            appender.drop_after(ends.get(name, self._last.observations_end))

    def _commit(self, line: bytes) -> None:
        """Append a line to the log, flushed; on failure the log is as before."""
        assert self._log is not None
        try:
            os.ftruncate(self._log, self._log_size)  # whatever a failed commit left
            written = os.pwrite(self._log, line, self._log_size)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._log)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._log, self._log_size)
            raise
        self._log_size += len(line)

    def _failure(self, what: str, error: OSError) -> StoreError:
        return StoreError(f"{self.path}: {what}: {error.strerror or error}; kept: {len(self)} committed episodes.")

    def _release(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None


def _create(path: Path, spec: DatasetSpec) -> None:
    """Make an empty store beside its place and move it there whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(path.name + ".partial")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    try:
        for layout in layouts(spec):
            array = StoredArray(making, layout)
            array.folder.mkdir()
            write_file(array.metadata_file, to_json(layout.metadata(0)))
            sync_folder(array.folder)
        write_file(making / "zarr.json", _group(spec, 0))
        write_file(making / LOG_NAME, b"")
        sync_folder(making)
        os.replace(making, path)
    except OSError:
        shutil.rmtree(making, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _group(spec: DatasetSpec, episodes: int) -> bytes:
    attributes = {"wm": {"spec": spec.to_json(), "episodes": episodes}}
    return to_json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _require_same(expected: Any, came: Any, where: Path, name: str = "spec") -> None:
    """Refuse the first difference between two JSON values, by its name."""
    if isinstance(expected, dict) and isinstance(came, dict) and set(expected) == set(came):
        for key in expected:
            _require_same(expected[key], came[key], where, f"{name}.{key}")
    else:
        require_equal(f"store {where} was made with another {name}", expected, came)
