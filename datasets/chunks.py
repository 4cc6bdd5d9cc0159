"""One array of a store as chunk files of a Zarr v3 array: durable writes, checked reads.

Any Zarr v3 library reads these arrays. The chunk files are handled here rather than by one because a commit needs
every chunk to be whole and flushed before it counts, because Zarr takes a missing chunk for zeros where a log has to
call it damage, and because an episode is read and written several times faster.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc  # type: ignore[import-untyped]

from wm.datasets.schema import DatasetSpec
from wm.errors import StoreError

FRAMES_PER_CHUNK = 16
ROWS_PER_CHUNK = 1024
_BLOSC_HEADER = struct.Struct("<4B3I")  # versions, flags, type size; plain bytes, block size, compressed bytes
_ZARR_TYPES = {"|u1": "uint8", "<f4": "float32", "<f8": "float64"}


@dataclass(frozen=True)
class ArrayLayout:
    """An array on disk: rows of a fixed shape, cut into chunk files along the first axis.

    Attributes:
        name: Its folder inside the store.
        dtype: NumPy's, little-endian.
        row_shape: Shape of one row.
        chunk_rows: Rows in a chunk file; the last one is padded with zeros.
        compressed: blosc-lz4 without shuffle (flat-coloured frames: 2.5 times smaller and 5 times faster to read than
            with bit-shuffle) or plain bytes.
    """

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    chunk_rows: int
    compressed: bool

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a whole chunk."""
        return (self.chunk_rows, *self.row_shape)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a whole chunk, uncompressed."""
        return int(np.prod(self.chunk_shape)) * np.dtype(self.dtype).itemsize

    def metadata(self, rows: int) -> dict[str, Any]:
        """Content of the array's ``zarr.json`` (Zarr v3 core specification) for a number of rows."""
        floating = np.dtype(self.dtype).kind == "f"
        codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        if self.compressed:
            options = {"typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0}
            codecs.append({"name": "blosc", "configuration": options})
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *self.row_shape],
            "data_type": _ZARR_TYPES[self.dtype],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunk_shape)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": 0.0 if floating else 0,
            "codecs": codecs,
            "attributes": {},
        }


def layouts(spec: DatasetSpec) -> list[ArrayLayout]:
    """The arrays of a store; what has no width (no proprioception, no true state) has no array."""
    size, env = spec.image_size, spec.env
    widths = {"proprio": env.proprio.width if env.proprio else 0, "state": len(env.state_names)}
    arrays = [
        ArrayLayout("frames", "|u1", (size, size, 3), FRAMES_PER_CHUNK, True),
        ArrayLayout("proprio", "<f4", (widths["proprio"],), ROWS_PER_CHUNK, False),
        ArrayLayout("state", "<f8", (widths["state"],), ROWS_PER_CHUNK, False),
        ArrayLayout("actions", "<f4", (env.action.width,), ROWS_PER_CHUNK, False),
    ]
    return [a for a in arrays if a.row_shape != (0,)]


class StoredArray:
    """Checked reads of an array's rows.

    Args:
        store: The store's folder.
        layout: The array.
    """

    def __init__(self, store: Path, layout: ArrayLayout) -> None:
        self.layout = layout
        self.folder = store / layout.name
        self.metadata_file = self.folder / "zarr.json"

    def rows(self) -> int:
        """Rows its metadata promises (at least the committed ones).

        Raises:
            StoreError: the metadata is missing, corrupt or of another layout.
        """
        found = read_json(self.metadata_file)
        shape = found.get("shape")
        rows = shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], int) else -1
        expected = self.layout.metadata(rows)
        for key, value in expected.items():
            if found.get(key) != value:
                raise StoreError(f"{self.metadata_file}: expected {key} {value}, came {found.get(key)}.")
        return rows

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop - 1``.

        Raises:
            StoreError: a chunk file is missing, truncated or corrupt.
        """
        size = self.layout.chunk_rows
        out = np.empty((stop - start, *self.layout.row_shape), self.layout.dtype)
        for chunk in range(start // size, -(-stop // size) if stop > start else 0):
            base = chunk * size
            first, last = max(start, base), min(stop, base + size)
            if last - first == size:
                self._decode(chunk, out[first - start : last - start])
            else:
                out[first - start : last - start] = self.read_chunk(chunk)[first - base : last - base]
        return out

    def read_chunk(self, chunk: int) -> np.ndarray:
        """A whole chunk, its padding included."""
        out = np.empty(self.layout.chunk_shape, self.layout.dtype)
        self._decode(chunk, out)
        return out

    def chunk_file(self, chunk: int) -> Path:
        """Where a chunk lies."""
        return self.folder / ".".join(["c", str(chunk), *("0" for _ in self.layout.row_shape)])

    def _decode(self, chunk: int, out: np.ndarray) -> None:
        path = self.chunk_file(chunk)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: expected a chunk of committed data, came: {error.strerror}.") from error
        wanted = self.layout.chunk_bytes
        if not self.layout.compressed:
            if len(data) != wanted:
                raise StoreError(f"{path}: expected {wanted} bytes, came {len(data)}.")
            out[...] = np.frombuffer(data, self.layout.dtype).reshape(out.shape)
            return
        header = _BLOSC_HEADER.unpack_from(data) if len(data) >= _BLOSC_HEADER.size else (0,) * 7
        if header[6] != len(data) or header[4] != wanted:  # blosc itself would read past the end
            promised = (
                f"{header[6]} bytes that hold {wanted}" if header[4] == wanted else f"blosc data for {wanted} bytes"
            )
            raise StoreError(f"{path}: expected {promised}, came {len(data)} bytes.")
        try:
            blosc.decompress(data, out)
        except (RuntimeError, ValueError) as error:
            raise StoreError(f"{path}: expected blosc data, came a corrupt chunk ({error}).") from error


class ArrayAppender(StoredArray):
    """Durable writes: after `write` and `flush` the rows survive a power cut.

    A chunk that holds committed rows is never written in place: the new one is written beside it, flushed and renamed.
    """

    def __init__(self, store: Path, layout: ArrayLayout) -> None:
        super().__init__(store, layout)
        self._promised = self.rows()
        self._tail: tuple[int, np.ndarray] | None = None  # the chunk written last, so that it need not be read again

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows from ``start`` on; whatever was behind them in their last chunk becomes zeros.

        Raises:
            OSError: the disk is full or fails.
        """
        size, stop = self.layout.chunk_rows, start + len(rows)
        for chunk in range(start // size, -(-stop // size)):
            base = chunk * size
            first, last = max(start, base), min(stop, base + size)
            if last - first == size:
                buffer = np.ascontiguousarray(rows[first - start : last - start], self.layout.dtype)
            else:
                buffer = self._chunk_before(chunk, first - base)
                buffer[first - base : last - base] = rows[first - start : last - start]
                self._tail = chunk, buffer
            write_file(self.chunk_file(chunk), self._encode(buffer))
        if stop > self._promised:
            self.promise(-(-stop // 2**14) * 2**14)

    def promise(self, rows: int) -> None:
        """State a number of rows in the metadata."""
        if rows != self._promised:
            write_file(self.metadata_file, to_json(self.layout.metadata(rows)))
            self._promised = rows

    def flush(self) -> None:
        """Make the names of new files durable (their content already is)."""
        sync_folder(self.folder)

    def drop_after(self, rows: int) -> None:
        """Delete the chunk files that hold nothing of the first ``rows`` rows, and unfinished ones."""
        keep = -(-rows // self.layout.chunk_rows)
        for path in self.folder.iterdir():
            parts = path.name.split(".")
            unfinished = path.suffix == ".partial"
            if unfinished or (parts[0] == "c" and parts[1].isdigit() and int(parts[1]) >= keep):
                path.unlink()

    def _chunk_before(self, chunk: int, rows: int) -> np.ndarray:
        """The chunk's first ``rows`` rows as they are, and zeros behind them."""
        if rows and self._tail is not None and self._tail[0] == chunk:
            buffer = self._tail[1]
        elif rows:
            buffer = self.read_chunk(chunk)
        else:
            return np.zeros(self.layout.chunk_shape, self.layout.dtype)
        buffer[rows:] = 0
        return buffer

    def _encode(self, chunk: np.ndarray) -> bytes:
        return blosc.compress(chunk, b"lz4", 5, blosc.NOSHUFFLE) if self.layout.compressed else chunk.tobytes()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a store.

    Raises:
        StoreError: missing, unreadable or not a JSON object.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: expected the store's metadata, came: {error.strerror}.") from error
    except ValueError as error:
        raise StoreError(f"{path}: expected JSON, came: {error}.") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path}: expected a JSON object, came {type(found).__name__}.")
    return found


def to_json(value: dict[str, Any]) -> bytes:
    """JSON as the store writes it."""
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"


def write_file(path: Path, data: bytes) -> None:
    """Replace a file as a whole: at any moment it holds the old content or the new one, flushed to disk.

    Raises:
        OSError: the disk is full or fails; the old content stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names of files that were created or renamed in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
