"""Where a public checkpoint lies: a local folder, else the Hub's local cache, else a download by name."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console

from wm.encoders.preprocessing import FILES
from wm.errors import CheckpointError, UnknownNameError

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_WANTED = ("config.json", *FILES, "model*.safetensors", _INDEX)
CONTENTS = f"config.json, {FILES[0]} and {_WEIGHTS}"
"""What a checkpoint's folder holds, for messages."""

_SIZES = ("small", "base", "large", "giant")
NAMES = {
    **{f"dinov2-{size}": f"facebook/dinov2-{size}" for size in _SIZES},
    **{f"dinov2-with-registers-{size}": f"facebook/dinov2-with-registers-{size}" for size in _SIZES},
    **{f"dinov3-{size}": f"facebook/dinov3-{size}-pretrain-lvd1689m" for size in (
        "vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16",
        "convnext-tiny", "convnext-small", "convnext-base", "convnext-large",
    )},
    "ijepa-vith14": "facebook/ijepa_vith14_1k",
    "ijepa-vitg16": "facebook/ijepa_vitg16_22k",
    "vjepa2-vitl": "facebook/vjepa2-vitl-fpc64-256",
    "vjepa2-vith": "facebook/vjepa2-vith-fpc64-256",
    "vjepa2-vitg": "facebook/vjepa2-vitg-fpc64-256",
}  # fmt: skip
"""Short names of checkpoints on the Hub."""


def is_folder_name(name: str) -> bool:
    """Whether a name can only mean a folder (``./x``, ``/x``, ``~/x``, ``a/b/c``), never something on the Hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def locate(name: str, near: Path | None = None, download: bool = True) -> tuple[Path, str]:
    """Folder of a checkpoint, and the name under which it is found again: the folder's, or the Hub's ``owner/name``.

    Args:
        name: A folder, ``owner/name`` on the Hub, or one of `NAMES`.
        near: A second place for a folder, e.g. that of the model that refers to it: ``<near>/<last part of name>``.
        download: Whether something that is not on this machine may be fetched; its size is shown.

    Raises:
        CheckpointError: a folder that is not there or lacks files, or nothing local and nothing to be had.
        UnknownNameError: neither a folder nor a name that the Hub could know.
    """
    places = [Path(name).expanduser(), *([] if near is None else [near / Path(name).name])]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is not None:
        lacking = _lacking(folder)
        if lacking:
            raise CheckpointError(f"encoder '{name}': {folder} lacks {', '.join(lacking)}.")
        return folder, str(folder.resolve()) if folder == places[0] else name
    if is_folder_name(name):
        where = " or ".join(map(str, places))
        raise CheckpointError(f"encoder '{name}': expected {CONTENTS} in {where}, there is no such folder.")
    repository = NAMES.get(name, name)
    if "/" not in repository:
        raise UnknownNameError("encoder (a folder, owner/name on the Hub, or a short name)", name, NAMES)
    cached = _cached(repository)
    if cached is None:
        cached = _downloaded(repository, download)
    return cached, repository


def weight_files(folder: Path) -> list[Path]:
    """The files of weights in a checkpoint's folder, one or several."""
    index = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index.is_file():
        return [folder / _WEIGHTS]
    try:
        return sorted(folder / str(part) for part in set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: expected a list of weight files, it cannot be read ({error}).") from error


def _lacking(folder: Path) -> list[str]:
    lacking = [path.name for path in [folder / "config.json", *weight_files(folder)] if not path.is_file()]
    return lacking if any((folder / name).is_file() for name in FILES) else [*lacking, FILES[0]]


def _cached(repository: str) -> Path | None:
    """The folder in the Hub's local cache; None where it is missing or incomplete."""
    import huggingface_hub

    try:
        config = huggingface_hub.try_to_load_from_cache(repository, "config.json")
    except ValueError as error:
        raise CheckpointError(f"encoder '{repository}': no name on the Hub ({error}).") from error
    folder = Path(config).parent if isinstance(config, str) else None
    return None if folder is None or _lacking(folder) else folder


def _downloaded(repository: str, allowed: bool) -> Path:
    import huggingface_hub

    remedy = (
        f"put its {CONTENTS} in a folder and name that (--encoder ./folder), or fill the Hub's cache where there is a "
        f"network: hf download {repository}"
    )
    if not allowed:
        raise CheckpointError(f"encoder '{repository}' is not on this machine: {remedy}.")
    try:
        files = huggingface_hub.HfApi().model_info(repository, files_metadata=True).siblings or []
        wanted = [file for file in files if any(fnmatch(file.rfilename, pattern) for pattern in _WANTED)]
        size = sum(file.size or 0 for file in wanted) / 1e6
        Console(stderr=True).print(f"{repository}: downloading {size:,.0f} MB from the Hub", highlight=False)
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(_WANTED)))
    except Exception as error:  # no network, no such name, no permission, a full disk: each has a class of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"encoder '{repository}' is not on this machine and cannot be fetched ({reason}): {remedy}."
        ) from error
    lacking = _lacking(folder)
    if lacking:
        raise CheckpointError(f"encoder '{repository}': it has no {', '.join(lacking)}; other formats are not read.")
    return folder
