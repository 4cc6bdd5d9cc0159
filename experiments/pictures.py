"""A folder of pictures as frames."""

from __future__ import annotations

import hashlib
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import Progress

from wm.errors import BadInputError

ENDINGS = (".png", ".jpg", ".jpeg")
LEAST_PICTURES = 8
"""Fewer are no data to learn from."""


@dataclass(frozen=True)
class PictureFolder:
    """What could be read of a folder.

    Attributes:
        frames: ``(O, size, size, 3)`` uint8 RGB, in the order of their paths.
        skipped: Paths of what could not be read.
        fingerprint: SHA-256 (16 hex digits) of the frames.
    """

    frames: UInt8[np.ndarray, "O H W 3"]
    skipped: tuple[str, ...]
    fingerprint: str


def picture_files(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder and the folders in it, sorted; hidden ones are left out."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_pictures(folder: Path, size: int) -> PictureFolder:
    """All pictures of a folder, in memory: the middle square of each, resized.

    A picture that cannot be read is named on stderr and skipped.

    Args:
        folder: Searched with the folders in it.
        size: Side of the frames, pixels.

    Raises:
        BadInputError: fewer readable pictures than `LEAST_PICTURES`.
    """
    files, frames, skipped = picture_files(folder), [], []
    if not files:
        raise BadInputError(f"{folder}: expected pictures ({', '.join(ENDINGS)}), there are none.")
    with Progress(console=Console(stderr=True)) as progress:
        for path in progress.track(files, description="read pictures"):
            try:
                frames.append(_read(path, size))
            except Exception as error:  # on broken data the decoders raise nearly anything
                skipped.append(str(path))
                print(f"wm: skipped {path}: not a readable picture ({error}).", file=sys.stderr)
    if skipped:
        print(f"wm: {folder}: {len(skipped)} of {len(files)} pictures skipped.", file=sys.stderr)
    if len(frames) < LEAST_PICTURES:
        raise BadInputError(
            f"{folder}: expected at least {LEAST_PICTURES} readable pictures, came {len(frames)} of {len(files)}."
        )
    table = np.stack(frames)
    return PictureFolder(table, tuple(skipped), hashlib.sha256(table.tobytes()).hexdigest()[:16])


def _read(path: Path, size: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.array(ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.LANCZOS))
