from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from wm.envs.pusht.draw import draw
from wm.envs.pusht.env import random_state

STATE = np.array([150.0, 160.0, 300.0, 280.0, 0.7])


def states(count: int) -> list[np.ndarray]:
    return [np.append(random_state(np.random.default_rng(seed)), np.zeros(5)) for seed in range(count)]


def blue(picture: np.ndarray) -> np.ndarray:
    """The pusher's pixels."""
    return picture[..., 2].astype(int) - picture[..., 0] > 100


def slate(picture: np.ndarray) -> np.ndarray:
    """The block's pixels, its outline included."""
    red, green, blue_ = (picture[..., i].astype(int) for i in range(3))
    return (red < 190) & (np.abs(green - red) < 40) & (blue_ - green > 8) & (blue_ - green < 30)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_agrees_with_gym_pushts_picture(reference: Callable[..., Any]) -> None:
    small = reference(obs_type="pixels", observation_width=96, observation_height=96)
    large = reference(obs_type="pixels", observation_width=512, observation_height=512)
    for state in states(20):
        small.put(state)
        large.put(state)
        difference = np.abs(draw(state, 96, target=True).astype(int) - small.picture())
        assert difference.mean() < 2.0
        ours, theirs = draw(state, 512, target=True), large.picture()
        assert overlap(blue(ours), blue(theirs)) > 0.9
        assert overlap(slate(ours), slate(theirs)) > 0.9
        assert blue(ours).sum() == pytest.approx(np.pi * 15**2, rel=0.05)


@pytest.mark.parametrize("index", range(5))
def test_motion_of_a_fraction_of_a_pixel_changes_the_picture(index: int) -> None:
    moved = STATE.copy()
    moved[index] += 0.02 if index == 4 else 512 / 96 / 4  # a quarter of a pixel
    difference = np.abs(draw(STATE, 96).astype(int) - draw(moved, 96))
    assert 0.0 < difference.mean() < 1.0


def test_pusher_is_drawn_where_it_is() -> None:
    for x, y in [(100.0, 130.0), (401.3, 57.2), (256.0, 470.9)]:
        picture = draw(np.array([x, y, 256.0, 256.0, 0.0]), 96)
        rows, columns = np.nonzero(blue(picture))
        np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], np.array([x, y]) * 96 / 512, atol=0.35)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_sizes_show_the_same_scene(size: int) -> None:
    reference_picture = cv2.resize(draw(STATE, 4 * size), (size, size), interpolation=cv2.INTER_AREA)
    picture = draw(STATE, size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - reference_picture).mean() < 1.5


def test_target_is_drawn_only_on_request() -> None:
    def green(picture: np.ndarray) -> int:
        return int((picture[..., 1].astype(int) - picture[..., 0] > 60).sum())

    away = np.array([60.0, 60.0, 120.0, 400.0, 0.0])
    assert green(draw(away)) == 0 and green(draw(away, target=True)) > 150


def test_a_picture_belongs_to_the_caller() -> None:
    first = draw(STATE)
    first[:] = 0
    assert draw(STATE).max() == 255
    np.testing.assert_array_equal(draw(STATE), draw(np.append(STATE, [9.0] * 5)))
