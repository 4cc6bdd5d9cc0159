from __future__ import annotations

import numpy as np
import pytest

from wm.datasets.commits import EMPTY, content_checksum, read_log
from wm.errors import StoreError


def _log(lengths):
    commits = []
    for seed, steps in enumerate(lengths):
        commits.append((commits[-1] if commits else EMPTY).next(steps, seed, f"{seed:032x}"))
    return commits


def test_ends_follow_from_lengths():
    first, second = _log([15, 16])
    assert (first.frames_end, first.observations_end, first.actions_end) == (16, 16, 15)
    assert (second.frames_end, second.observations_end, second.actions_end) == (48, 33, 31)


def test_a_log_cut_anywhere_holds_its_whole_lines(tmp_path):
    commits = _log([15, 16, 3])
    data = b"".join(c.line() for c in commits)
    path = tmp_path / "commits.jsonl"
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        found, size = read_log(path)
        assert found == commits[: data[:cut].count(b"\n")]
        assert data[:size] == b"".join(c.line() for c in found)


def test_any_changed_byte_is_refused(tmp_path):
    commits = _log([15, 16])
    data = b"".join(c.line() for c in commits)
    path = tmp_path / "commits.jsonl"
    for place in range(len(data) - 1):  # the last line's end is another matter: without it there was no commit
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(StoreError, match=r"commits.jsonl, line [12]: expected .* came"):
            read_log(path)


def test_a_lost_line_is_refused(tmp_path):
    commits = _log([15, 16, 3])
    path = tmp_path / "commits.jsonl"
    path.write_bytes(commits[0].line() + commits[2].line())
    with pytest.raises(StoreError, match="line 2: expected the commit of episode 1 to follow"):
        read_log(path)


def test_checksum_tells_values_shapes_types_and_names_apart():
    zeros = np.zeros((2, 3), np.float32)
    others = [{"a": zeros + 1}, {"a": zeros.T}, {"a": zeros.view(np.int32)}, {"b": zeros}, {"a": zeros, "b": zeros[:0]}]
    assert len({content_checksum(arrays) for arrays in [{"a": zeros}, *others]}) == 6
    assert content_checksum({"a": np.ones((4, 6), np.float32)[::2, ::2]}) == content_checksum({"a": zeros + 1})
