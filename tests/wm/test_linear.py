from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wm import linear as module
from wm.linear import linear

no_onednn = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch has no oneDNN here")


@pytest.fixture(autouse=True, params=[pytest.param(True, marks=no_onednn), False], ids=["onednn", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way, whichever is the faster one here."""
    monkeypatch.setattr(module, "_ONEDNN", request.param)


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (2, 0, 12), (12,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_equals_the_plain_product(shape: tuple[int, ...], bias: bool, gelu: bool) -> None:
    torch.manual_seed(0)
    x, weight, added = torch.randn(shape), torch.randn(7, 12), torch.randn(7) if bias else None
    expected = functional.linear(x, weight, added)
    expected = functional.gelu(expected) if gelu else expected
    torch.testing.assert_close(linear(x, weight, added, gelu), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        linear(x.double(), weight.double(), None), functional.linear(x.double(), weight.double())
    )


def test_takes_strided_inputs_and_rows_of_a_weight() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 6, 12), torch.randn(9, 12)
    torch.testing.assert_close(
        linear(x[:, 2:4], weight[3:]), functional.linear(x[:, 2:4], weight[3:]), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("gelu", [True, False])
def test_gradients_pass(gelu: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(4, 12), torch.randn(7, 12, requires_grad=True), torch.randn(7)
    linear(x, weight, bias, gelu).square().sum().backward()
    ours = weight.grad
    other = weight.detach().clone().requires_grad_()
    plain = functional.linear(x, other, bias)
    (functional.gelu(plain) if gelu else plain).square().sum().backward()
    assert ours is not None and other.grad is not None
    torch.testing.assert_close(ours, other.grad)
