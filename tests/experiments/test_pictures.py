from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wm.errors import BadInputError
from wm.experiments.pictures import picture_files, read_pictures


def write(folder: Path, count: int = 9, size: tuple[int, int] = (40, 30)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        picture = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3)).astype(np.uint8))
        picture.save(folder / f"{index:02}.{'png' if index % 2 else 'JPG'}", format="PNG" if index % 2 else "JPEG")


def test_all_pictures_of_a_folder_and_its_folders_in_one_size(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path / "below", 2, (16, 64))
    (tmp_path / "notes.txt").write_text("no picture")
    write(tmp_path / ".thumbnails", 3)
    assert len(picture_files(tmp_path)) == 11
    found = read_pictures(tmp_path, 24)
    assert found.frames.shape == (11, 24, 24, 3) and found.frames.dtype == np.uint8 and found.skipped == ()
    assert read_pictures(tmp_path, 24).fingerprint == found.fingerprint
    Image.new("RGB", (24, 24), "red").save(tmp_path / "01.png")
    assert read_pictures(tmp_path, 24).fingerprint != found.fingerprint


def test_the_middle_square_is_what_is_seen(tmp_path: Path) -> None:
    write(tmp_path)
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (10, 200, 30)
    Image.fromarray(wide).save(tmp_path / "a.png")
    clear = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    clear.save(tmp_path / "b.png")
    Image.new("L", (30, 30), 77).save(tmp_path / "c.png")
    frames = read_pictures(tmp_path, 20).frames
    middle, transparent, grey = frames[-3:]
    assert np.abs(middle[:, 2:-2].astype(int) - (10, 200, 30)).max() < 12
    assert (transparent == 255).all() and (grey == 77).all()


def test_a_corrupt_picture_is_skipped_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    whole = (tmp_path / "01.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.jpg").write_text("not a picture")
    (tmp_path / "empty.jpeg").touch()
    found = read_pictures(tmp_path, 24)
    said = capsys.readouterr().err
    assert len(found.frames) == 9 and [Path(p).name for p in found.skipped] == ["cut.png", "empty.jpeg", "words.jpg"]
    assert all(f"skipped {tmp_path / name}: not a readable picture" in said for name in ("cut.png", "words.jpg"))
    assert f"{tmp_path}: 3 of 12 pictures skipped." in said


def test_a_folder_without_readable_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInputError, match=r"expected pictures \(\.png, \.jpg, \.jpeg\), there are none"):
        read_pictures(tmp_path, 24)
    for index in range(9):
        (tmp_path / f"{index}.png").write_text("not a picture")
    with pytest.raises(BadInputError, match="expected at least 8 readable pictures, came 0 of 9"):
        read_pictures(tmp_path, 24)
    assert capsys.readouterr().err.count("not a readable picture") == 9
