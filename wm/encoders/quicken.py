"""The layers of a public network at the rate of the machine: the same weights, tokens equal to rounding."""

from __future__ import annotations

from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wm.linear import Linear, linear

_GELU_AFTER = (
    ("fc1", "activation_fn"), ("fc1", "activation"), ("gate_proj", "act_fn"), ("up_proj", "act_fn"),
    ("pointwise_conv1", "activation_fn"),
)  # fmt: skip
"""A linear layer and what is applied to its output, by their names in `transformers`; of two that fit, the first."""


class GeluLinear(nn.Linear):
    """A linear layer and the exact GELU in one."""

    def forward(self, x: Float[Tensor, "*n X"]) -> Float[Tensor, "*n Y"]:
        """``gelu(x @ weight.T + bias)``."""
        return linear(x, self.weight, self.bias, gelu=True)


def quicken(network: nn.Module) -> None:
    """Compute every linear layer by `wm.linear`, with the GELU behind it where there is one. Weights are shared.

    Args:
        network: Of `transformers`; changed in place. Layers of other classes than `torch.nn.Linear` stay.
    """
    for part in list(network.modules()):
        first, after = next((pair for pair in _GELU_AFTER if all(hasattr(part, name) for name in pair)), ("", ""))
        fused = bool(first) and _plain(getattr(part, first)) and _is_gelu(getattr(part, after))
        for name, layer in list(part.named_children()):
            if _plain(layer):
                setattr(part, name, _sharing(layer, GeluLinear if fused and name == first else Linear))
        if fused:
            setattr(part, after, nn.Identity())


def _plain(layer: object) -> TypeGuard[nn.Linear]:
    return type(layer) is nn.Linear


def _is_gelu(activation: nn.Module) -> bool:
    """Whether it is the exact GELU; the approximations of that name are up to 5e-4 off."""
    x = torch.linspace(-6, 6, 121)
    return torch.allclose(activation(x), functional.gelu(x), rtol=0, atol=1e-6)


def _sharing(layer: nn.Linear, kind: type[nn.Linear]) -> nn.Linear:
    made = kind(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    made.weight, made.bias = layer.weight, layer.bias
    return made
