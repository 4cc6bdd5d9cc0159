from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from wm.datasets.reader import EpisodeStore
from wm.datasets.writer import EpisodeWriter
from wm.errors import BadInputError, MismatchError, StoreError

LENGTHS = [20, 15, 16, 3]


def _files(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def _assert_holds(store: EpisodeStore, episodes) -> None:
    assert len(store) == len(episodes)
    for e, episode in enumerate(episodes):
        for name, array in episode.arrays().items():
            assert np.array_equal(getattr(store, name)(e), array), (e, name)
    store.verify()


def _fail_with_full_disk(*args):
    raise OSError(28, "No space left on device")


def test_what_was_appended_is_read(make_store, make_episode):
    _assert_holds(EpisodeStore(make_store(LENGTHS)), [make_episode(n, i) for i, n in enumerate(LENGTHS)])


def test_zarr_reads_the_store(make_store):
    path = make_store(LENGTHS)
    store, group = EpisodeStore(path), zarr.open_group(path, mode="r")
    assert group.attrs["wm"]["spec"]["image_size"] == 12
    assert np.array_equal(group["actions"][:], store.all_actions())
    assert np.array_equal(group["proprio"][:], store.all_proprio())
    assert np.array_equal(group["state"][:], store.all_state())
    for e, (start, steps) in enumerate(zip(store.starts, store.lengths, strict=True)):
        assert np.array_equal(group["frames"][int(start) : int(start + steps + 1)], store.frames(e))


def test_a_kill_at_any_moment_keeps_every_committed_episode(tmp_path, make_store, make_episode, spec):
    reference = make_store(LENGTHS[:3])
    episodes = [make_episode(n, i) for i, n in enumerate(LENGTHS[:3])]
    script = Path(__file__).with_name("crash_writer.py")
    subprocess.run([sys.executable, str(script), str(reference), str(tmp_path / "killed")], check=True, timeout=60)
    killed = sorted((tmp_path / "killed").iterdir(), key=lambda p: int(p.name))
    committed = []
    for path in killed:
        store = EpisodeStore(path)
        committed.append(len(store))
        _assert_holds(store, episodes[: len(store)])
        with EpisodeWriter(path, spec, resume=True) as writer:
            for episode in episodes[len(writer) :]:
                writer.append(episode)
        assert _files(path) == _files(reference), path
    assert len(killed) > 20
    assert committed == sorted(committed) and set(committed) == {2, 3}


def test_resuming_twice_equals_one_go(tmp_path, make_store, make_episode, spec):
    reference = make_store(LENGTHS)
    for number, steps in enumerate(LENGTHS):
        with EpisodeWriter(tmp_path / "parts", spec, resume=True) as writer:
            assert len(writer) == number
            writer.append(make_episode(steps, number))
    assert _files(tmp_path / "parts") == _files(reference)


def test_a_full_disk_is_an_error_that_says_what_is_kept(tmp_path, make_store, make_episode, spec, monkeypatch):
    episodes = [make_episode(n, i) for i, n in enumerate(LENGTHS)]
    for call in ("fsync", "replace", "pwrite", "ftruncate"):
        path = tmp_path / call
        with EpisodeWriter(path, spec) as writer:
            writer.append(episodes[0])
            with monkeypatch.context() as patch:
                patch.setattr(os, call, _fail_with_full_disk)
                message = r"episode 1 \(seed 1\) cannot be written: No space left on device; kept: 1 committed episodes"
                with pytest.raises(StoreError, match=message):
                    writer.append(episodes[1])
                _assert_holds(EpisodeStore(path), episodes[:1])
            writer.append(episodes[1])
        _assert_holds(EpisodeStore(path), episodes[:2])


def test_a_disk_that_is_full_for_half_a_commit(tmp_path, make_episode, spec, monkeypatch):
    real = os.pwrite
    with EpisodeWriter(tmp_path / "s", spec) as writer:
        writer.append(make_episode(5, 0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", lambda handle, data, at: real(handle, data[:7], at))
            with pytest.raises(StoreError, match="No space left on device; kept: 1"):
                writer.append(make_episode(40, 1))
        writer.append(make_episode(4, 2))
    _assert_holds(EpisodeStore(tmp_path / "s"), [make_episode(5, 0), make_episode(4, 2)])


def test_a_disk_that_is_full_at_the_end(tmp_path, make_episode, spec, monkeypatch):
    writer = EpisodeWriter(tmp_path / "s", spec)
    writer.append(make_episode(5, 0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", _fail_with_full_disk)
        with pytest.raises(StoreError, match="cannot be closed properly: No space left on device; kept: 1"):
            writer.close()
    _assert_holds(EpisodeStore(tmp_path / "s"), [make_episode(5, 0)])


def test_a_refused_episode_leaves_no_trace(make_store, make_episode, spec):
    path = make_store([5])
    before = _files(path)
    with EpisodeWriter(path, spec, resume=True) as writer, pytest.raises(BadInputError, match="expected 2 numbers"):
        writer.append(make_episode(5, actions=np.zeros((5, 3), np.float32)))
    assert _files(path) == before


def test_an_occupied_folder_is_refused(tmp_path, make_store, spec):
    path = make_store([5])
    for occupied in (path, path / "zarr.json"):
        with pytest.raises(StoreError, match="expected a new or empty folder, came one that holds something"):
            EpisodeWriter(occupied, spec)
    (tmp_path / "empty").mkdir()
    EpisodeWriter(tmp_path / "empty", spec).close()
    assert len(EpisodeStore(tmp_path / "empty")) == 0
    with pytest.raises(StoreError, match=r"not an episode store: it has no zarr.json"):
        EpisodeWriter(tmp_path, spec, resume=True)


def test_resuming_with_another_spec_is_refused(make_store, spec):
    path = make_store([5])
    other = dataclasses.replace(spec, env=dataclasses.replace(spec.env, env="arm"))
    with pytest.raises(MismatchError, match="made with another spec.env.env: expected toy, came arm"):
        EpisodeWriter(path, other, resume=True)
    with pytest.raises(MismatchError, match="another spec.image_size: expected 12, came 64"):
        EpisodeWriter(path, dataclasses.replace(spec, image_size=64), resume=True)
    with pytest.raises(StoreError, match="expected a spec of format version 1, came 2"):
        EpisodeWriter(path, dataclasses.replace(spec, format=2), resume=True)


def test_one_writer_at_a_time(make_store, make_episode, spec):
    path = make_store([5])
    with EpisodeWriter(path, spec, resume=True) as writer:
        with pytest.raises(StoreError, match="another process is writing to it"):
            EpisodeWriter(path, spec, resume=True)
        writer.append(make_episode(3, 1))
    with EpisodeWriter(path, spec, resume=True) as writer:
        assert len(writer) == 2
    with pytest.raises(StoreError, match="expected an open writer, came one that is closed"):
        writer.append(make_episode(3, 2))


def test_a_folder_that_cannot_be_made(tmp_path, spec):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written: "):
        EpisodeWriter(tmp_path / "file" / "store", spec)


def test_nothing_half_made_is_left(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(os, "fsync", _fail_with_full_disk)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        EpisodeWriter(tmp_path / "store", spec)
    assert list(tmp_path.iterdir()) == []
