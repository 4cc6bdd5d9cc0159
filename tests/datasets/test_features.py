from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import wm.datasets.features
from wm.datasets.features import Coding, feature_table
from wm.datasets.reader import EpisodeStore
from wm.encoders.tiny import TinyEncoder
from wm.errors import MismatchError, StoreError

LENGTHS = [4, 7, 5, 6, 3]
MakeStore = Callable[[Iterable[int]], Path]


class Interrupted(Exception):
    pass


def encoder(seed: int = 0) -> TinyEncoder:
    """For the toy store's 12 px pictures: a single token."""
    torch.manual_seed(seed)
    tiny = TinyEncoder(width=8)
    tiny.image_size, tiny.grid = 12, 1
    return tiny


def tokens_of(model: TinyEncoder) -> Coding:
    def encode(frames: Tensor) -> Tensor:
        return model.encode(frames[None])[0]

    return Coding(encode, (1, 8), torch.bfloat16, {"encoder": model.spec().fingerprint})


@pytest.fixture
def store(make_store: MakeStore) -> EpisodeStore:
    return EpisodeStore(make_store(LENGTHS))


@pytest.fixture
def commit_every_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wm.datasets.features, "_COMMIT_EVERY", 2)


def interrupt_after(last: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == last:
            raise Interrupted

    return progress


def counted(store: EpisodeStore, out: Path) -> tuple[Tensor, list[int]]:
    """The table, and which episodes were encoded for it."""
    done: list[int] = []
    return feature_table(store, tokens_of(encoder()), out, progress=lambda now, _: done.append(now - 1)), done


@pytest.mark.parametrize("batch", [256, 3])
def test_a_row_is_its_frames_tokens(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(wm.datasets.features, "_BATCH", batch)
    table = feature_table(store, tokens_of(encoder()), tmp_path / "features")
    assert table.shape == (sum(LENGTHS) + 5, 1, 8) and table.dtype == torch.bfloat16
    for episode in range(5):
        frames = torch.from_numpy(store.frames(episode))
        tokens = encoder().encode(frames[None])[0].to(torch.bfloat16)
        first, stop = store.observation_offsets[episode : episode + 2]
        torch.testing.assert_close(table[first:stop], tokens, rtol=1e-2, atol=1e-2)
    assert table.float().std() > 0.01


def test_rows_have_the_codings_own_shape_and_type_and_episodes_may_be_left_out(
    store: EpisodeStore, tmp_path: Path
) -> None:
    coding = Coding(lambda frames: frames.float().mean((1, 2, 3))[:, None], (1,), torch.float32, {"mean": 1})
    table = feature_table(store, coding, tmp_path, episodes=3)
    assert table.shape == (sum(LENGTHS[:3]) + 3, 1) and table.dtype == torch.float32
    expected = np.concatenate([store.frames(e) for e in range(3)]).mean((1, 2, 3))
    np.testing.assert_allclose(table[:, 0].numpy(), expected, rtol=1e-5)
    with pytest.raises(MismatchError, match="another coding or dataset"):
        feature_table(store, coding, tmp_path)


def test_is_encoded_once(store: EpisodeStore, tmp_path: Path) -> None:
    table, done = counted(store, tmp_path)
    again, more = counted(store, tmp_path)
    assert done == [0, 1, 2, 3, 4] and more == [] and torch.equal(table, again)


@pytest.mark.usefixtures("commit_every_two")
@pytest.mark.parametrize(("last", "first"), [(1, 0), (3, 2), (4, 4)])
def test_an_interrupted_table_is_continued(store: EpisodeStore, tmp_path: Path, last: int, first: int) -> None:
    whole, _ = counted(store, tmp_path / "whole")
    with pytest.raises(Interrupted):
        feature_table(store, tokens_of(encoder()), tmp_path / "halves", progress=interrupt_after(last))
    table, done = counted(store, tmp_path / "halves")
    assert done == list(range(first, 5)) and torch.equal(table, whole)


def test_a_slow_encoding_is_committed_by_the_clock(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wm.datasets.features, "_COMMIT_SECONDS", -1.0)
    with pytest.raises(Interrupted):
        feature_table(store, tokens_of(encoder()), tmp_path, progress=interrupt_after(3))
    assert counted(store, tmp_path)[1] == [3, 4]


def test_rows_may_come_from_another_table_and_batches_may_be_smaller(store: EpisodeStore, tmp_path: Path) -> None:
    offsets, sizes = store.observation_offsets, []
    known = torch.arange(int(offsets[-1]), dtype=torch.float32)[:, None]

    def doubled(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return rows * 2

    coding = Coding(doubled, (1,), torch.float32, {"doubled": True})
    table = feature_table(store, coding, tmp_path, rows=lambda e: known[offsets[e] : offsets[e + 1]], batch=3)
    assert torch.equal(table, known * 2) and max(sizes) == 3


@pytest.mark.usefixtures("commit_every_two")
def test_lost_data_is_encoded_again_even_after_another_interruption(store: EpisodeStore, tmp_path: Path) -> None:
    whole, _ = counted(store, tmp_path)
    expected = whole.clone()
    (tmp_path / "table.bin").unlink()
    with pytest.raises(Interrupted):
        feature_table(store, tokens_of(encoder()), tmp_path, progress=interrupt_after(1))
    table, done = counted(store, tmp_path)
    assert done == [0, 1, 2, 3, 4] and torch.equal(table, expected)


def test_another_encoders_table_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    counted(store, tmp_path)
    with pytest.raises(MismatchError) as error:
        feature_table(store, tokens_of(encoder(1)), tmp_path)
    assert "cached features of another coding or dataset" in str(error.value)
    assert encoder(1).spec().fingerprint in str(error.value) and encoder().spec().fingerprint in str(error.value)


def test_another_stores_table_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    counted(store, tmp_path / "features")
    record = json.loads((tmp_path / "features" / "table.json").read_text())
    (tmp_path / "features" / "table.json").write_text(json.dumps(record | {"store": "0" * 16}))
    with pytest.raises(MismatchError, match=f"{store.fingerprint()}.*0000000000000000"):
        counted(store, tmp_path / "features")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"encoder": "x"}'])
def test_an_unreadable_record_is_refused(store: EpisodeStore, tmp_path: Path, text: str) -> None:
    counted(store, tmp_path)
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(StoreError, match="table.json: expected the record of cached features, it cannot be read"):
        counted(store, tmp_path)


@pytest.mark.usefixtures("commit_every_two")
def test_a_full_disk_keeps_what_was_encoded(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StoreError, match="cannot write the features .*No space left on device"):
            counted(store, tmp_path)
    with pytest.raises(Interrupted):
        feature_table(store, tokens_of(encoder()), tmp_path, progress=interrupt_after(3))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="what was encoded is kept"):
            counted(store, tmp_path)
    assert counted(store, tmp_path)[1] == [2, 3, 4]
