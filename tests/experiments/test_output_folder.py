from __future__ import annotations

import os
from pathlib import Path

import pytest

from wm.errors import BadInputError
from wm.experiments.output_folder import staged


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_new_folder_appears_whole_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with staged(out) as folder:
        (folder / "x").write_text("1")
        assert not out.exists()
    assert names(tmp_path) == ["a", "a/b", "a/b/out", "a/b/out/x"]
    umask = os.umask(0)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask


def test_files_of_an_existing_folder_are_replaced(tmp_path: Path) -> None:
    for name in ("x", "other"):
        (tmp_path / name).write_text("old")
    with staged(tmp_path) as folder:
        (folder / "x").write_text("new")
        assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["other", "x"]
    assert (tmp_path / "x").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged(tmp_path / "a" / "out") as folder:
        (folder / "x").write_text("1")
        raise error
    assert names(tmp_path) == []


def test_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with staged(tmp_path / "link") as folder:
        (folder / "x").write_text("1")
    assert names(tmp_path / "real") == ["x"]
    assert (tmp_path / "link").is_symlink()


def test_what_cannot_be_written_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BadInputError, match="expected a folder, there is a file of that name"),
        staged(tmp_path / "file"),
    ):
        pytest.fail("the work began")
    with pytest.raises(BadInputError, match="cannot be written"), staged(tmp_path / "file" / "out"):
        pytest.fail("the work began")


def test_folder_in_place_of_a_file_is_refused_before_anything_moves(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(BadInputError, match="expected to write the file b"), staged(tmp_path) as folder:
        (folder / "a").write_text("1")
        (folder / "b").write_text("1")
    assert names(tmp_path) == ["b"]
