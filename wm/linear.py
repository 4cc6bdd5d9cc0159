"""Linear layers at the rate of the machine, in fp32 and equal to rounding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

AVX512 = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
"""oneDNN is there, and 512-bit instructions for it."""

_ONEDNN = AVX512 and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(
    x: Float[Tensor, "*n X"], weight: Float[Tensor, "Y X"], bias: Float[Tensor, " Y"] | None = None, gelu: bool = False
) -> Float[Tensor, "*n Y"]:
    """``x @ weight.T + bias``, and its GELU (the exact one, with erf) where asked for.

    torch multiplies fp32 matrices with MKL, which takes 256-bit instructions on AMD processors. oneDNN comes in the
    same CPU builds and takes 512-bit ones wherever they are: more than twice the rate on a Zen 5 core, GELU included.
    There it is used where no gradient has to pass. Elsewhere this is torch's own product, which at 256 bits is the
    faster one by a tenth.
    """
    if _ONEDNN and _plain(x) and weight.dtype == x.dtype and not _needs_gradient(x, weight, bias):
        after, algorithm = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], algorithm)
    y = functional.linear(x, weight, bias)
    return functional.gelu(y) if gelu else y


class Linear(nn.Linear):
    """torch's layer, its weights and names, on `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight.T + bias``."""
        return linear(x, self.weight, self.bias)


def _plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim > 1 and x.numel() > 0


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
