from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from wm.datasets.chunks import ArrayAppender, ArrayLayout, StoredArray, layouts, to_json, write_file
from wm.datasets.schema import DatasetSpec
from wm.errors import StoreError
from wm.specs import EnvSpec


def _create(folder, layout):
    (folder / layout.name).mkdir(parents=True)
    write_file(folder / layout.name / "zarr.json", to_json(layout.metadata(0)))
    return ArrayAppender(folder, layout)


place = st.integers(0, 240)


@pytest.mark.parametrize("compressed", [True, False])
@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=6), window=st.tuples(place, place))
def test_pieces_written_are_the_whole_read(tmp_path_factory, compressed, cuts, window):
    layout = ArrayLayout("x", "|u1" if compressed else "<f8", (3, 2), 16, compressed)
    folder = tmp_path_factory.mktemp("array")
    appender = _create(folder, layout)
    data = np.random.default_rng(0).integers(0, 256, (sum(cuts), 3, 2)).astype(layout.dtype)
    ends = np.cumsum(cuts)
    for start, stop in zip(ends - cuts, ends, strict=True):
        appender.write(int(start), data[start:stop])
    appender.promise(len(data))
    start, stop = sorted(min(w, len(data)) for w in window)
    assert np.array_equal(StoredArray(folder, layout).read(start, stop), data[start:stop])
    assert np.array_equal(zarr.open_array(folder / "x", mode="r")[:], data)


def test_a_fresh_appender_continues_a_chunk_and_clears_what_follows(tmp_path):
    layout = ArrayLayout("x", "<f4", (2,), 16, False)
    appender = _create(tmp_path, layout)
    appender.write(0, np.full((14, 2), 1, np.float32))
    ArrayAppender(tmp_path, layout).write(5, np.full((3, 2), 2, np.float32))
    assert StoredArray(tmp_path, layout).read_chunk(0)[:, 0].tolist() == [1] * 5 + [2] * 3 + [0] * 8


def test_drop_after_deletes_only_what_is_behind(tmp_path):
    layout = ArrayLayout("x", "<f4", (2,), 4, False)
    appender = _create(tmp_path, layout)
    appender.write(0, np.ones((12, 2), np.float32))
    (tmp_path / "x" / "c.9.0.partial").touch()
    appender.drop_after(5)
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["c.0.0", "c.1.0", "zarr.json"]


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    write_file(tmp_path / "f", b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "f", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize("key", ["data_type", "codecs", "chunk_grid", "fill_value"])
def test_metadata_of_another_layout_is_refused(tmp_path, key):
    layout = ArrayLayout("x", "<f4", (2,), 16, False)
    _create(tmp_path, layout)
    write_file(tmp_path / "x" / "zarr.json", to_json({**layout.metadata(0), key: "other"}))
    with pytest.raises(StoreError, match=f"x/zarr.json: expected {key} .*, came other"):
        StoredArray(tmp_path, layout).rows()


def test_what_has_no_width_has_no_array(spec):
    env = EnvSpec("toy", spec.env.action, None, ())
    assert [a.name for a in layouts(spec)] == ["frames", "proprio", "state", "actions"]
    assert [a.name for a in layouts(DatasetSpec(env, 8))] == ["frames", "actions"]
