"""`wm-tiny`: the small convolutional encoder that ships, 96 px pictures to an 8 × 8 or a 16 × 16 grid."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from wm.encoders.base import Encoder


class TinyEncoder(Encoder):
    """A patch embedding and three convolutions, each with batch normalisation and SiLU.

    96 px → 32 × 32 (6 × 6 patches, stride 3) → 16 × 16 → 8 × 8, then one 3 × 3 residual layer and a projection.

    Args:
        width: D, numbers per token.
    """

    name = "wm-tiny"
    image_size = 96
    grid = 8

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.stem = _layer(3, 32, kernel=6, stride=3, padding=2)
        self.down1 = _layer(32, 64, kernel=4, stride=2, padding=1)
        self.down2 = _layer(64, 128, kernel=4, stride=2, padding=1)
        self.mix = _layer(128, 128, kernel=3, stride=1, padding=1)
        self.project = nn.Conv2d(128, width, 1)

    def forward(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M N D"]:
        """Tokens of normalised pictures, row by row from the top left."""
        x = self.down2(self.down1(self.stem(pixels)))
        x = x + self.mix(x)
        return self.project(x).flatten(2).transpose(1, 2)  # (M, D, 8, 8) -> (M, 64, D)


class TinyFineEncoder(Encoder):
    """`TinyEncoder` without its last halving: a token for 6 × 6 px, for worlds of many small things.

    96 px → 32 × 32 (6 × 6 patches, stride 3) → 16 × 16, then one 3 × 3 residual layer and a projection.

    Args:
        width: D, numbers per token.
    """

    name = "wm-tiny-fine"
    image_size = 96
    grid = 16

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.stem = _layer(3, 32, kernel=6, stride=3, padding=2)
        self.down = _layer(32, 64, kernel=4, stride=2, padding=1)
        self.mix = _layer(64, 64, kernel=3, stride=1, padding=1)
        self.project = nn.Conv2d(64, width, 1)

    def forward(self, pixels: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M N D"]:
        """Tokens of normalised pictures, row by row from the top left."""
        x = self.down(self.stem(pixels))
        x = x + self.mix(x)
        return self.project(x).flatten(2).transpose(1, 2)  # (M, D, 16, 16) -> (M, 256, D)


def _layer(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())
