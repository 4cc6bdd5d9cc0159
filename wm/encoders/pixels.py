"""Raw pixels as tokens: no encoder at all, for a study to compare encoders with."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wm.encoders.base import Encoder
from wm.errors import BadInputError

_SHRINK, _PATCH = 3, 4  # 96 px -> 32 px, cut into 8 x 8 patches of 4 x 4


class PixelEncoder(Encoder):
    """The picture averaged down to 32 × 32 and cut into 8 × 8 patches; a patch's 48 colours, -1…1, are its token.

    It has no weights. At full resolution a patch would be 432 numbers, and the state head takes products of all pairs.

    Args:
        width: 48, the only one there is.

    Raises:
        BadInputError: another width.
    """

    name = "pixels"
    image_size = 96
    grid = 8

    def __init__(self, width: int = 3 * _PATCH**2) -> None:
        super().__init__()
        if width != 3 * _PATCH**2:
            raise BadInputError(f"encoder '{self.name}': expected {3 * _PATCH**2} numbers per token, came {width}.")
        self.width = width

    def forward(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M N D"]:
        """Tokens of normalised pictures, row by row from the top left."""
        patches = functional.pixel_unshuffle(functional.avg_pool2d(pixels, _SHRINK), _PATCH)  # (M, 48, 8, 8)
        return patches.flatten(2).transpose(1, 2)
