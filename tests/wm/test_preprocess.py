from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wm.errors import BadInputError
from wm.preprocess import read_goal_picture

SIZE = 96


def picture(side: int = SIZE, seed: int = 0) -> np.ndarray:
    """Smooth colours, so that scaling has something to keep."""
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    waves = [np.sin(2 * x + seed) * np.cos(3 * y), x * y, np.cos(4 * x * y)]
    return np.uint8(np.stack(waves, -1) * 100 + 120)


def saved(folder: Path, image: Image.Image, name: str = "goal.png", **options: object) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_picture_of_the_right_size_is_untouched(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(picture()))
    np.testing.assert_array_equal(read_goal_picture(path, SIZE), picture())


@pytest.mark.parametrize(("name", "bound"), [("g.png", 0.1), ("g.bmp", 0.1), ("g.jpg", 3.0), ("g.webp", 4.0)])
def test_formats_agree(tmp_path: Path, name: str, bound: float) -> None:
    path = saved(tmp_path, Image.fromarray(picture()), name, quality=95)
    assert difference(read_goal_picture(path, SIZE), picture()) < bound


@pytest.mark.parametrize("side", [16, 50, 97, 300, 512])
def test_any_size_shows_the_same(tmp_path: Path, side: int) -> None:
    found = read_goal_picture(saved(tmp_path, Image.fromarray(picture(side))), SIZE)
    assert found.shape == (SIZE, SIZE, 3)
    assert found.dtype == np.uint8
    assert difference(found, picture()) < 3.0


def test_shrinking_is_the_mean_of_the_covered_area(tmp_path: Path) -> None:
    fine = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = read_goal_picture(saved(tmp_path, Image.fromarray(fine)), 16)
    np.testing.assert_allclose(
        found, fine.reshape(16, 4, 16, 4, 3).mean((1, 3)), atol=1.0
    )  # rounded once per direction


def test_transparent_places_are_white(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.full((SIZE, SIZE), 255, np.uint8)])
    rgba[:40, :, 3] = 0
    rgba[40:50, :, 3] = 128
    found = read_goal_picture(saved(tmp_path, Image.fromarray(rgba)), SIZE)
    assert (found[:40] == 255).all()
    np.testing.assert_allclose(found[40:50], (picture()[40:50] / 2 + 127.5), atol=2)
    np.testing.assert_array_equal(found[50:], picture()[50:])


def test_transparent_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.pad(np.ones((48, 48), np.uint8), 24), "P")
    image.putpalette([10, 20, 30, 200, 0, 0])
    found = read_goal_picture(saved(tmp_path, image, transparency=0), SIZE)
    assert (found[0, 0] == 255).all()
    np.testing.assert_array_equal(found[48, 48], [200, 0, 0])


def test_greys_of_8_and_16_bits_agree(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    eight = read_goal_picture(saved(tmp_path, Image.fromarray(grey), "8.png"), SIZE)
    sixteen = read_goal_picture(saved(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257), "16.png"), SIZE)
    np.testing.assert_array_equal(eight, np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(sixteen, eight)


@pytest.mark.parametrize(("mode", "name"), [("1", "g.png"), ("LA", "g.png"), ("CMYK", "g.jpg"), ("P", "g.gif")])
def test_other_modes(tmp_path: Path, mode: str, name: str) -> None:
    path = saved(tmp_path, Image.fromarray(picture()).convert(mode), name)
    assert read_goal_picture(path, SIZE).shape == (SIZE, SIZE, 3)


def test_orientation_of_the_camera_is_obeyed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise by a quarter when shown
    found = read_goal_picture(saved(tmp_path, Image.fromarray(picture()), exif=exif), SIZE)
    np.testing.assert_array_equal(found, np.rot90(picture(), -1))


def test_nearly_square_is_taken(tmp_path: Path) -> None:
    assert read_goal_picture(saved(tmp_path, Image.fromarray(picture(100)[:99])), SIZE).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (1, 1, "expected at least 16x16 px, came 1x1"),
        (15, 16, "expected at least 16x16 px, came 15x16"),
        (100, 60, "expected a square picture (within 2 %), came 100x60"),
        (8193, 8193, "expected at most 8192x8192 px, came 8193x8193"),
    ],
)
def test_sizes_that_are_refused(tmp_path: Path, width: int, height: int, message: str) -> None:
    path = saved(tmp_path, Image.new("1", (width, height)))
    with pytest.raises(BadInputError, match=re.escape(message)):
        read_goal_picture(path, SIZE)


def test_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("1", (30000, 30000)))
    with pytest.raises(BadInputError, match="expected at most 8192 px a side, came far more"):
        read_goal_picture(path, SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_picture_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), f"goal.{suffix}")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInputError, match=re.escape(str(path))):
        read_goal_picture(path, SIZE)


@pytest.mark.parametrize("cut", [12, 13, 30])
def test_png_without_its_end_is_refused(tmp_path: Path, cut: int) -> None:
    path = saved(tmp_path, Image.fromarray(picture(32)), "goal.png")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BadInputError, match=re.escape(str(path))):
        read_goal_picture(path, SIZE)


def test_flipped_bytes_never_crash(tmp_path: Path, rng: np.random.Generator) -> None:
    data = io.BytesIO()
    Image.fromarray(picture(32)).save(data, "PNG")
    for _ in range(60):
        broken = bytearray(data.getvalue())
        for place in rng.integers(8, len(broken), 3):
            broken[place] = rng.integers(256)
        path = tmp_path / "goal.png"
        path.write_bytes(broken)
        try:
            assert read_goal_picture(path, 32).shape == (32, 32, 3)
        except BadInputError as error:
            assert str(path) in str(error)


def test_what_is_not_a_picture_is_refused(tmp_path: Path) -> None:
    text, empty = tmp_path / "goal.txt", tmp_path / "empty.png"
    text.write_text("a goal")
    empty.touch()
    for path, message in [
        (text, "expected a picture (PNG, JPEG, …), came something else"),
        (empty, "expected a picture (PNG, JPEG, …), came something else"),
        (tmp_path, "expected a picture file, came a folder"),
        (tmp_path / "none.png", "expected a picture file, there is none"),
    ]:
        with pytest.raises(BadInputError, match=re.escape(f"{path}: {message}")):
            read_goal_picture(path, SIZE)


def test_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(seed=i)) for i in range(3)]
    path = saved(tmp_path, frames[0], "goal.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(BadInputError, match="expected one still picture, came GIF with 3 frames"):
        read_goal_picture(path, SIZE)


def test_floating_point_and_wide_integers_are_refused(tmp_path: Path) -> None:
    floats = saved(tmp_path, Image.fromarray(np.ones((SIZE, SIZE), np.float32)), "f.tiff")
    wide = saved(tmp_path, Image.fromarray(np.full((SIZE, SIZE), 70000, np.int32)), "i.tiff")
    for path, came in [(floats, "came floating-point numbers"), (wide, "came 70000")]:
        with pytest.raises(BadInputError, match=f"expected 8 or 16 bits a channel, {came}"):
            read_goal_picture(path, SIZE)
