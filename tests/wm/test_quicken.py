"""Quickened networks share their weights and give the reference's numbers; what does not fit is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

from wm.encoders.quicken import GeluLinear, quicken
from wm.linear import Linear


class Block(nn.Module):
    """Named as in `transformers`."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 12), nn.Linear(12, 6, bias=False)
        self.activation_fn = ACT2FN[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation_fn(self.fc1(x)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 6)
        self.act_fn = ACT2FN["gelu"]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def network(*parts: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*parts).requires_grad_(False)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "silu", "relu"])
def test_the_numbers_stay_and_the_exact_gelu_alone_is_fused(activation: str) -> None:
    whole = network(Block(activation), Gated(), nn.LayerNorm(6))
    x, before = torch.randn(5, 6), {name: p.data_ptr() for name, p in whole.named_parameters()}
    expected = whole(x)
    quicken(whole)
    torch.testing.assert_close(whole(x), expected, rtol=0, atol=1e-6)
    assert {name: p.data_ptr() for name, p in whole.named_parameters()} == before
    block, gated = whole[0], whole[1]
    assert type(block.fc1) is (GeluLinear if activation == "gelu" else Linear) and type(block.fc2) is Linear
    assert isinstance(block.activation_fn, nn.Identity) == (activation == "gelu")
    assert (type(gated.gate_proj), type(gated.up_proj)) == (GeluLinear, Linear)  # of two, the one that is activated
    quicken(whole)
    torch.testing.assert_close(whole(x), expected, rtol=0, atol=1e-6)


def test_linear_layers_of_other_classes_stay() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * functional.linear(x, self.weight, self.bias)

    whole = network(Doubled(6, 6), nn.Linear(6, 6))
    kept, x = whole[0], torch.randn(5, 6)
    expected = whole(x)
    quicken(whole)
    assert whole[0] is kept and type(whole[1]) is Linear
    torch.testing.assert_close(whole(x), expected, rtol=0, atol=1e-6)


def test_other_number_formats_are_taken() -> None:
    whole, x = network(Block("gelu")).bfloat16(), torch.randn(5, 6).bfloat16()
    expected = whole(x)
    quicken(whole)
    assert whole(x).dtype == torch.bfloat16
    torch.testing.assert_close(whole(x), expected, rtol=2e-2, atol=2e-2)
