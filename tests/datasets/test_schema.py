from __future__ import annotations

import json

import numpy as np
import pytest

from wm.datasets.schema import DatasetSpec
from wm.errors import BadInputError


def _with_nan(array: np.ndarray, value: float = np.nan) -> np.ndarray:
    array = array.copy()
    array[2, 1] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros((6, 12, 12, 3), np.float32)}, r"frames: expected uint8 \(T\+1, H, W, 3\), came float32"),
        ({"frames": np.zeros((6, 12, 12), np.uint8)}, r"frames: expected uint8 .*, came uint8 \(6, 12, 12\)"),
        ({"frames": np.zeros((6, 12, 12, 4), np.uint8)}, r"frames: expected uint8 .*, came uint8 \(6, 12, 12, 4\)"),
        ({"frames": np.zeros((5, 12, 12, 3), np.uint8)}, "frames: expected 6 rows for 5 actions, came 5 rows"),
        ({"proprio": np.zeros((6, 3))}, r"proprio: expected float32 \(T\+1, P\), came float64 \(6, 3\)"),
        ({"proprio": np.zeros((7, 3), np.float32)}, "proprio: expected 6 rows for 5 actions, came 7 rows"),
        ({"state": np.zeros((6, 4), np.float32)}, r"state: expected float64 \(T\+1, S\), came float32"),
        ({"state": _with_nan(np.zeros((6, 4)))}, "state: expected finite numbers, came nan in row 2, column 1"),
        ({"actions": _with_nan(np.zeros((5, 2), np.float32), -np.inf)}, "actions: expected finite numbers, came -inf"),
        ({"actions": np.zeros((0, 2), np.float32)}, r"actions: expected at least one action, came shape \(0, 2\)"),
    ],
)
def test_episode_refuses_what_is_not_an_episode(make_episode, changes, message):
    with pytest.raises(BadInputError, match="^episode with seed 7: " + message):
        make_episode(5, 7, **changes)


def test_episode_refuses_a_seed_out_of_range(make_episode):
    with pytest.raises(BadInputError, match=r"expected a seed in 0 … 2\^63 - 1, came -1"):
        make_episode(5, 0, seed=-1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros((6, 8, 12, 3), np.uint8)}, r"frames: .* shape \(T\+1, 12, 12, 3\), came .* 8, 12, 3\)"),
        ({"actions": np.zeros((5, 3), np.float32)}, "actions: expected 2 numbers a row, came 3"),
        ({"state": np.zeros((6, 5))}, "state: expected 4 numbers a row, came 5"),
        ({"proprio": np.zeros((6, 2), np.float32)}, "proprio: expected 3 numbers a row, came 2"),
        ({"proprio": None}, "proprio: expected readings of .*'vx'.*, came no proprioception"),
    ],
)
def test_episode_of_another_world_is_refused(make_episode, spec, changes, message):
    make_episode(5).check(spec)
    with pytest.raises(BadInputError, match="^episode with seed 7: " + message):
        make_episode(5, 7, **changes).check(spec)


def test_spec_survives_json(spec):
    assert DatasetSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_spec_refuses_what_cannot_be_stored(spec):
    with pytest.raises(BadInputError, match="recipe of JSON values"):
        DatasetSpec(spec.env, 96, recipe={"noise": float("nan")})
    with pytest.raises(BadInputError, match="image_size >= 1 px, came 0"):
        DatasetSpec(spec.env, 0)
