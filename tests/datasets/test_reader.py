from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from wm.datasets.reader import EpisodeStore
from wm.datasets.writer import EpisodeWriter
from wm.errors import BadInputError, StoreError

LENGTHS = [20, 15, 3]


@pytest.fixture
def path(make_store):
    return make_store(LENGTHS)


def _edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_offsets_tell_the_episodes_apart(path):
    store = EpisodeStore(path)
    assert store.lengths.tolist() == LENGTHS
    assert store.action_offsets.tolist() == [0, 20, 35, 38]
    assert store.observation_offsets.tolist() == [0, 21, 37, 41]
    assert store.starts.tolist() == [0, 32, 48]
    assert store.seeds().tolist() == [0, 1, 2]
    for e in range(3):
        rows = slice(store.observation_offsets[e], store.observation_offsets[e + 1])
        assert np.array_equal(store.all_state()[rows], store.state(e))
        assert np.array_equal(store.all_proprio()[rows], store.proprio(e))
        rows = slice(store.action_offsets[e], store.action_offsets[e + 1])
        assert np.array_equal(store.all_actions()[rows], store.actions(e))


def test_slices_are_those_of_the_whole_episode(path):
    store = EpisodeStore(path)
    for name, rows in {"frames": 16, "proprio": 16, "state": 16, "actions": 15}.items():
        read, whole = getattr(store, name), getattr(store, name)(1)
        assert len(whole) == rows
        for start in range(rows + 1):
            for stop in range(start, rows + 1):
                assert np.array_equal(read(np.int64(1), np.int64(start), stop), whole[start:stop])


def test_a_slice_never_leaves_its_episode(path):
    store = EpisodeStore(path)
    with pytest.raises(BadInputError, match="episode 1: expected a slice of 0:16, came 0:17"):
        store.frames(1, 0, 17)
    with pytest.raises(BadInputError, match="episode 1: expected a slice of 0:15, came -1:15"):
        store.actions(1, -1)
    with pytest.raises(BadInputError, match="expected an episode in 0 … 2, came 3"):
        store.state(3)


def test_a_world_without_proprioception_and_state(tmp_path, make_episode, spec):
    bare = dataclasses.replace(spec, env=dataclasses.replace(spec.env, proprio=None, state_names=()))
    with EpisodeWriter(tmp_path / "bare", bare) as writer:
        writer.append(make_episode(5, proprio=None, state=np.zeros((6, 0))))
    store = EpisodeStore(tmp_path / "bare")
    store.verify()
    assert store.proprio(0) is None and store.all_proprio() is None
    assert store.state(0).shape == (6, 0) and store.all_state().dtype == np.float64


def test_an_empty_store(make_store):
    store = EpisodeStore(make_store([]))
    store.verify()
    assert len(store) == 0 and store.all_actions().shape == (0, 2) and store.starts.shape == (0,)


def test_what_is_not_a_store_is_refused(tmp_path, path):
    for wrong, message in {
        tmp_path / "none": "expected the folder of an episode store, came nothing",
        path / "zarr.json": "expected the folder of an episode store, came a file",
        tmp_path: "not an episode store: it has no zarr.json",
        path / "state": "expected the attribute 'wm' of an episode store, came {}",
    }.items():
        with pytest.raises(StoreError, match=message):
            EpisodeStore(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["attributes"]["wm"]["spec"].update(format=9), "expected format version 1, came 9"),
        (lambda c: c["attributes"]["wm"]["spec"].pop("image_size"), ".* cannot be read .*'image_size'"),
        (lambda c: c["attributes"]["wm"]["spec"].pop("env"), ".* cannot be read .*'env'"),
        (lambda c: c["attributes"]["wm"].pop("spec"), "expected the attribute 'wm' of an episode store"),
    ],
)
def test_corrupt_attributes_are_refused(path, change, message):
    _edit(path / "zarr.json", change)
    with pytest.raises(StoreError, match="store/zarr.json: " + message):
        EpisodeStore(path)


def test_truncated_metadata_is_refused(path):
    for name in ("zarr.json", "actions/zarr.json"):
        file = path / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(StoreError, match=f"{name}: expected JSON, came: "):
            EpisodeStore(path)
        file.write_bytes(whole)
    _edit(path / "state" / "zarr.json", lambda c: c["shape"].__setitem__(0, 40))
    with pytest.raises(StoreError, match="state/zarr.json: expected at least 41 committed rows, came 40"):
        EpisodeStore(path)
    (path / "state" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="state/zarr.json: expected the store's metadata, came: No such file"):
        EpisodeStore(path)


def test_a_log_that_lost_commits_is_refused(path):
    log = path / "commits.jsonl"
    log.write_bytes(log.read_bytes()[:-10])
    with pytest.raises(StoreError, match="commits.jsonl: expected at least 3 commits, as when it was closed, came 2"):
        EpisodeStore(path)
    log.unlink()
    with pytest.raises(StoreError, match="commits.jsonl: expected the commit log, came: No such file"):
        EpisodeStore(path)


def test_a_torn_last_commit_never_happened(tmp_path, make_episode, spec):
    writer = EpisodeWriter(tmp_path / "s", spec)
    writer.append(make_episode(5, 0))
    writer.append(make_episode(6, 1))
    log = tmp_path / "s" / "commits.jsonl"
    log.write_bytes(log.read_bytes()[:-10])
    store = EpisodeStore(tmp_path / "s")
    store.verify()
    assert len(store) == 1


@pytest.mark.parametrize("name", ["frames/c.2.0.0.0", "state/c.0.0", "proprio/c.0.0", "actions/c.0.0"])
def test_a_damaged_chunk_is_an_error_that_names_its_file(path, name):
    file = path / name
    whole = file.read_bytes()
    store = EpisodeStore(path)
    for kept in (0, 5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(StoreError, match=rf"{name}: expected .* bytes.*, came .*\b{kept}\b"):
            store.verify()
    file.unlink()
    with pytest.raises(StoreError, match=f"{name}: expected a chunk of committed data, came: No such file"):
        store.verify()
    file.write_bytes(whole)
    store.verify()


def test_verify_names_the_episode_whose_bits_changed(path):
    file = path / "state" / "c.0.0"
    data = bytearray(file.read_bytes())
    data[25 * 4 * 8] ^= 1  # row 25 belongs to episode 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="episode 1: expected checksum [0-9a-f]{32}, came [0-9a-f]{32}"):
        EpisodeStore(path).verify()


def test_a_damaged_frame_chunk_never_passes(path):
    file = path / "frames" / "c.0.0.0.0"
    whole = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 50):
        data = bytearray(whole)
        data[place] ^= 0x10
        file.write_bytes(data)
        if np.array_equal(_frames_or_none(path), EpisodeStore(path).frames(1)):
            pytest.fail("another episode's frames")
        with pytest.raises(StoreError):
            EpisodeStore(path).verify()


def _frames_or_none(path):
    try:
        return EpisodeStore(path).frames(0)
    except StoreError:
        return None


def test_fingerprint_follows_content_and_spec(tmp_path, make_episode, spec):
    prints = []
    for name, size, seeds in [("a", 12, [0]), ("b", 12, [0]), ("c", 12, [1]), ("d", 12, [0, 1])]:
        with EpisodeWriter(tmp_path / name, dataclasses.replace(spec, image_size=size)) as writer:
            for seed in seeds:
                writer.append(make_episode(5, seed))
        prints.append(EpisodeStore(tmp_path / name).fingerprint())
    EpisodeWriter(tmp_path / "e", dataclasses.replace(spec, recipe={})).close()
    prints.append(EpisodeStore(tmp_path / "e").fingerprint())
    assert prints[0] == prints[1] and len(set(prints)) == 4
    assert all(len(p) == 16 for p in prints)
