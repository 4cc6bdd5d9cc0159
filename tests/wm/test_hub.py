"""Where a checkpoint is looked for, in which order, and what is said when it is nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from wm.encoders.hub import NAMES, locate, weight_files
from wm.errors import CheckpointError, UnknownNameError

REPOSITORY = "facebook/dinov2-small"


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("config.json", "preprocessor_config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, an empty working folder, and no network."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def offline(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Cannot reach the Hub\nwith more lines")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    return tmp_path / "hub"


def cached(cache: Path, *names: str) -> Path:
    repository = cache / "models--facebook--dinov2-small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    return fill(repository / "snapshots" / "abc", *names)


def test_a_local_folder_comes_first(cache: Path) -> None:
    cached(cache)
    folder = fill(Path("dinov2-small"))
    assert locate("dinov2-small") == (folder, str(folder.resolve()))
    assert locate("./dinov2-small") == (Path("dinov2-small"), str(folder.resolve()))


def test_then_the_hubs_cache_by_short_or_full_name(cache: Path) -> None:
    folder = cached(cache)
    assert locate("dinov2-small") == locate(REPOSITORY) == (folder, REPOSITORY)


def test_a_model_finds_its_encoder_beside_itself(cache: Path, tmp_path: Path) -> None:
    folder = fill(tmp_path / "model" / "tiny")
    assert locate("/elsewhere/runs/tiny", near=tmp_path / "model") == (folder, "/elsewhere/runs/tiny")


@pytest.mark.parametrize("incomplete", [False, True])
def test_offline_with_nothing_whole_says_what_to_put_where(cache: Path, incomplete: bool) -> None:
    if incomplete:
        cached(cache, "config.json", "preprocessor_config.json")
    with pytest.raises(CheckpointError) as error:
        locate("dinov2-small")
    for part in (
        f"encoder '{REPOSITORY}' is not on this machine and cannot be fetched (Cannot reach the Hub)",
        "put its config.json, preprocessor_config.json and model.safetensors in a folder",
        "--encoder ./folder",
        f"hf download {REPOSITORY}",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_without_leave_nothing_is_asked_of_the_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", asked)
    with pytest.raises(CheckpointError, match=f"encoder '{REPOSITORY}' is not on this machine: put"):
        locate(REPOSITORY, download=False)


def test_a_download_shows_its_size_and_takes_no_other_formats(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"config.json": 1, "model.safetensors": 88_200_000, "pytorch_model.bin": 9e8, "preprocessor_config.json": 1}
    files = [SimpleNamespace(rfilename=name, size=int(size)) for name, size in names.items()]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    asked: list[dict[str, Any]] = []

    def fetch(repository: str, **options: Any) -> str:
        asked.append({"repository": repository} | options)
        return str(cached(cache))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    folder, name = locate("dinov2-small")
    assert name == REPOSITORY and (folder / "model.safetensors").is_file()
    assert re.search(rf"{REPOSITORY}: downloading\s+88 MB", capsys.readouterr().err)
    assert asked[0]["repository"] == REPOSITORY and not any("bin" in p for p in asked[0]["allow_patterns"])
    locate("dinov2-small")
    assert len(asked) == 1


def test_a_repository_without_safetensors_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=None))
    folder = str(cached(cache, "config.json", "preprocessor_config.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: folder)
    with pytest.raises(CheckpointError, match=r"it has no model\.safetensors; other formats are not read"):
        locate(REPOSITORY)


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "a/b/c", "../none"])
def test_a_folders_name_is_never_asked_of_the_hub(cache: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="expected config.json, .* in .*none|a/b/c, there is no such folder"):
        locate(name)


def test_other_names_are_refused(cache: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown encoder .*'dinov2-smal'. Did you mean 'dinov2-small'?"):
        locate("dinov2-smal")
    with pytest.raises(CheckpointError, match="no name on the Hub"):
        locate("face book/x")
    assert all(name.count("/") == 1 for name in NAMES.values())


def test_a_folder_that_lacks_files_is_refused_with_their_names(cache: Path) -> None:
    fill(Path("half"), "config.json")
    with pytest.raises(CheckpointError, match=r"half lacks model\.safetensors, preprocessor_config\.json"):
        locate("./half")


def test_weights_may_be_in_parts(cache: Path) -> None:
    folder = fill(Path("parts"), "config.json", "preprocessor_config.json", "b.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "a.safetensors"}}')
    assert [path.name for path in weight_files(folder)] == ["a.safetensors", "b.safetensors"]
    with pytest.raises(CheckpointError, match=r"lacks a\.safetensors"):
        locate("./parts")
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="expected a list of weight files"):
        locate("./parts")
