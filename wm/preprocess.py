"""Pictures of other programs to the square RGB frames that encoders take."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from wm.errors import BadInputError

LEAST_SIDE, LARGEST_SIDE = 16, 8192
"""Pixels a side that a goal picture may have."""
_SQUARE_WITHIN = 0.02  # difference of the sides, as a share of the longer one
_WIDE_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_goal_picture(path: Path | str, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """A goal picture of any program as the frame that an encoder takes.

    PNG, JPEG, BMP, WebP, TIFF, … with 16 to 8192 px a side; RGB, RGBA (composited on white), greyscale of 8 or 16 bits,
    palette, CMYK. The camera's orientation tag is obeyed. Shrunk by area averaging, enlarged by bicubic interpolation.

    Args:
        path: The file.
        size: Side of the result, pixels.

    Returns:
        ``(size, size, 3)`` uint8 RGB.

    Raises:
        BadInputError: there is no such file, it is not a picture, is truncated, moves, is not square within 2 %, is too
            small or too large, or has numbers that are not colours.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInputError(f"goal picture {path}: expected a picture file, came a folder.")
    if not path.exists():
        raise BadInputError(f"goal picture {path}: expected a picture file, there is none.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes are checked here, before anything is decoded
        image = _decoded(path)
    image = _on_white(image, path)
    if image.size == (size, size):
        return np.array(image)
    finer = Image.Resampling.BOX if min(image.size) >= size else Image.Resampling.BICUBIC
    return np.array(image.resize((size, size), finer))


def _decoded(path: Path) -> Image.Image:
    """Opened, checked and fully decoded, upright."""
    try:
        with Image.open(path) as image:
            _check_header(image, path)
            image.load()
            upright = ImageOps.exif_transpose(image)
        with Image.open(path) as image:
            image.verify()  # finds what decoding forgives: a PNG without its end
        return upright
    except BadInputError:
        raise
    except Image.UnidentifiedImageError:
        raise BadInputError(f"goal picture {path}: expected a picture (PNG, JPEG, …), came something else.") from None
    except Image.DecompressionBombError:
        raise BadInputError(f"goal picture {path}: expected at most {LARGEST_SIDE} px a side, came far more.") from None
    except Exception as error:  # on broken data the decoders raise nearly anything, from SyntaxError to struct.error
        raise BadInputError(f"goal picture {path}: expected a whole picture, it cannot be read ({error}).") from error


def _check_header(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if min(width, height) < LEAST_SIDE:
        raise BadInputError(
            f"goal picture {path}: expected at least {LEAST_SIDE}x{LEAST_SIDE} px, came {width}x{height}."
        )
    if max(width, height) > LARGEST_SIDE:
        raise BadInputError(
            f"goal picture {path}: expected at most {LARGEST_SIDE}x{LARGEST_SIDE} px, came {width}x{height}."
        )
    if abs(width - height) > _SQUARE_WITHIN * max(width, height):
        raise BadInputError(
            f"goal picture {path}: expected a square picture (within 2 %), came {width}x{height}; crop it first."
        )
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # a camera's MPO holds one photograph and its previews
        raise BadInputError(
            f"goal picture {path}: expected one still picture, came {image.format} with {pages} frames."
        )


def _on_white(image: Image.Image, path: Path) -> Image.Image:
    """Any mode to RGB, transparent places white."""
    if image.mode == "F":
        raise BadInputError(f"goal picture {path}: expected 8 or 16 bits a channel, came floating-point numbers.")
    if image.mode in _WIDE_GREY:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadInputError(f"goal picture {path}: expected 8 or 16 bits a channel, came {values.max()}.")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError:
        raise BadInputError(f"goal picture {path}: expected colours or greys, came the mode '{image.mode}'.") from None
