"""Frames to the pixels that a public checkpoint was trained on, as its own `preprocessor_config.json` says.

Three kinds, told apart by the name of the processor in that file, because they round differently:

- ``Bit…``, ``ViT…`` (DINOv2, I-JEPA): Pillow's resampling of bytes, rounded after each direction;
- ``DINOv3ViT…``: scaled to 0…1 first, then antialiased interpolation of floating-point numbers;
- ``VJEPA2Video…``: antialiased interpolation of bytes; the shorter side becomes 256/224 of the crop, whatever `size`
  says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from wm.errors import CheckpointError

FILES = ("preprocessor_config.json", "video_preprocessor_config.json")
"""Where a checkpoint says how its pixels are made."""

_KINDS = {"Bit": "pillow", "ViT": "pillow", "DINOv3ViT": "float", "VJEPA2Video": "bytes"}
_CROPPED = ("Bit", "VJEPA2Video")
_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True)
class Preprocessing:
    """Resize, cut out the middle, normalise.

    Attributes:
        kind: ``"pillow"``, ``"float"`` or ``"bytes"``, see above.
        resize: Shorter side in pixels, the other one in proportion; or height and width.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        crop: Side of the square cut out of the middle; None: all of it.
        scale: Factor of the bytes, 1/255.
        mean: Of each colour, after scaling.
        std: The same.
    """

    kind: str
    resize: int | tuple[int, int]
    interpolation: str
    crop: int | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def side(self) -> int:
        """Side of the square pictures that come out, pixels."""
        return self.crop or (self.resize if isinstance(self.resize, int) else self.resize[0])

    def __call__(self, frames: UInt8[Tensor, "M H W 3"]) -> Float[Tensor, "M 3 S S"]:
        """Pixels of frames of any size."""
        pixels = frames.permute(0, 3, 1, 2)
        height, width = self._resized(*frames.shape[1:3])
        if self.kind == "pillow":
            pixels = _pillow_resize(pixels, height, width, self.interpolation).float() * self.scale
        else:
            pixels = pixels.float() * self.scale if self.kind == "float" else pixels.contiguous()
            pixels = functional.interpolate(pixels, (height, width), mode=self.interpolation, antialias=True)
            pixels = pixels if self.kind == "float" else pixels.float() * self.scale
        if self.crop is not None:
            top, left = (height - self.crop) // 2, (width - self.crop) // 2
            pixels = pixels[..., top : top + self.crop, left : left + self.crop]
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize
        longer = int(self.resize * max(height, width) / min(height, width))
        return (self.resize, longer) if height <= width else (longer, self.resize)


def read_preprocessing(folder: Path) -> Preprocessing:
    """What a checkpoint's folder says.

    Raises:
        CheckpointError: no file that says it, an unreadable one, or steps that are not known here.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: expected {' or '.join(FILES)}, there is none.")
    try:
        return _parsed(dict(json.loads(path.read_text())), path)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{path}: expected the preprocessing of pictures, it cannot be read ({reason})."
        ) from error


def _parsed(data: dict[str, Any], path: Path) -> Preprocessing:
    processor = str(data.get("image_processor_type") or data.get("video_processor_type"))
    name = processor.split("ImageProcessor")[0].split("Processor")[0]
    if name not in _KINDS:
        raise CheckpointError(f"{path}: expected a processor of {', '.join(_KINDS)}, came '{processor}'.")
    off = [step for step in ("do_resize", "do_rescale", "do_normalize") if not data.get(step, True)]
    if off or int(data["resample"]) not in _FILTERS:
        raise CheckpointError(f"{path}: expected resize (bilinear or bicubic), rescale, normalise; came {data}.")
    crop = int(_sides(data["crop_size"])[0]) if data.get("do_center_crop", name in _CROPPED) else None
    size = data["size"]
    resize = int(size["shortest_edge"]) if "shortest_edge" in size else _sides(size)
    if name == "VJEPA2Video" and crop is not None:
        resize = int(crop * 256 / 224)
    found = Preprocessing(
        _KINDS[name], resize, _FILTERS[int(data["resample"])], crop, float(data.get("rescale_factor", 1 / 255)),
        tuple(map(float, data["image_mean"])), tuple(map(float, data["image_std"])),
    )  # fmt: skip
    shortest = resize if isinstance(resize, int) else min(resize)
    square = crop is not None or (not isinstance(resize, int) and resize[0] == resize[1])
    if not square or shortest < (crop or 1) or len(found.mean) != 3 or len(found.std) != 3:
        raise CheckpointError(f"{path}: expected square pictures of three colours, came {found}.")
    return found


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def _pillow_resize(
    pictures: UInt8[Tensor, "M 3 H W"], height: int, width: int, interpolation: str
) -> UInt8[Tensor, "M 3 {height} {width}"]:
    resample = next(number for number, name in _FILTERS.items() if name == interpolation)
    resized = np.empty((len(pictures), height, width, 3), np.uint8)
    for target, picture in zip(resized, pictures.permute(0, 2, 3, 1).numpy(), strict=True):
        target[:] = np.asarray(Image.fromarray(picture).resize((width, height), resample))
    return torch.from_numpy(resized).permute(0, 3, 1, 2)
