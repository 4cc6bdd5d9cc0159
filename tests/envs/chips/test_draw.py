from __future__ import annotations

import numpy as np
import pytest

import wm.envs.chips.draw as drawing
from wm.envs.chips.draw import best_renderer, draw, known_renderer
from wm.envs.chips.env import ChipsEnv
from wm.envs.chips.physics import ChipsPhysics, scattered
from wm.errors import BadInputError

STATE = scattered(20, np.random.default_rng(0))


def red(picture: np.ndarray) -> np.ndarray:
    """How much of each pixel is chip, 0 … 1."""
    return np.clip((233.0 - picture[..., 1]) / (233 - 66), 0.0, 1.0)


def test_chips_are_drawn_where_they_are_and_as_large_as_they_are() -> None:
    state = np.concatenate([STATE[:3], np.tile([0.2, 0.2, 0.0], 20)])
    state[3:6], state[-3:] = [-0.1, 0.05, 0.0], [0.13, -0.07, 0.6]
    picture = red(draw(state, 10, 270))[25:245, 25:245]  # 2 mm a pixel; without the rim
    picture[:45, 175:] = 0.0
    for x, y, area in ((-0.1, 0.05, np.pi * 0.009**2), (0.13, -0.07, 0.016**2)):
        row, column = 110 - y / 0.002, 110 + x / 0.002
        patch = picture[int(row) - 9 : int(row) + 9, int(column) - 9 : int(column) + 9]
        rows, columns = np.mgrid[int(row) - 9 : int(row) + 9, int(column) - 9 : int(column) + 9]
        assert (patch * rows).sum() / patch.sum() + 0.5 == pytest.approx(row, abs=0.2)
        assert (patch * columns).sum() / patch.sum() + 0.5 == pytest.approx(column, abs=0.2)
        assert patch.sum() * 0.002**2 == pytest.approx(area, rel=0.12)


@pytest.mark.parametrize("index", [3, 4, -3, -2, -1])
def test_motion_of_a_fraction_of_a_pixel_changes_the_picture(index: int) -> None:
    moved = STATE.copy()
    moved[index] += 0.3 if index == -1 else 0.54 / 96 / 4
    difference = np.abs(draw(STATE, 10).astype(int) - draw(moved, 10))
    assert 0.0 < difference.mean() < 0.3


def test_the_blade_is_drawn_on_request() -> None:
    def blue(picture: np.ndarray) -> int:
        return int((picture[..., 2].astype(int) - picture[..., 0] > 60).sum())

    assert blue(draw(STATE, 10)) == 0 and blue(draw(STATE, 10, blade=True)) >= 16


def test_a_picture_belongs_to_the_caller() -> None:
    draw(STATE, 10)[:] = 0
    assert draw(STATE, 10).max() > 200


def test_mujocos_own_picture_shows_the_same() -> None:
    try:
        env = ChipsEnv(renderer="egl", image_size=256, chips=20, action_mode="velocity")
    except BadInputError as error:
        pytest.skip(str(error))
    picture = env.reset(options={"state": STATE})[0]["image"].astype(int)
    assert np.abs(picture - draw(STATE, 10, 256, blade=True)).mean() < 1.5
    env.close()
    env.close()


def test_an_unknown_renderer_and_one_that_does_not_work_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match="renderer: expected raster, egl, osmesa, auto, came 'vulkan'"):
        ChipsEnv(renderer="vulkan")
    from wm.envs.chips.gl import GLView

    with pytest.raises(BadInputError, match="renderer 'nosuch': no such OpenGL here .*'raster' needs none"):
        GLView(ChipsPhysics(20, 10).model, "nosuch", 32, False)


@pytest.mark.parametrize(("working", "chosen"), [("osmesa", "osmesa"), (None, "raster")])
def test_the_best_renderer_is_chosen_and_told_once(
    working: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    best_renderer.cache_clear()
    monkeypatch.setattr(drawing, "working_opengl", lambda: working)
    assert [known_renderer("auto") for _ in range(3)] == [chosen] * 3
    assert [record.getMessage() for record in caplog.records] == [f"chips: pictures are drawn by {chosen}"]
    best_renderer.cache_clear()
