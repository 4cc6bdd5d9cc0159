"""A compact predictor's rollouts with whole numbers: 8 bits a weight, 7 bits an input, sums in 32 bits."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.errors import BadInputError
from wm.linear import Linear
from wm.model import WorldModel
from wm.typical_inputs import typical_inputs

ENGINE = "fbgemm"
"""Whose products they are. Without VNNI it adds pairs in 16 bits, which inputs of 7 bits, weights of 8, never fill."""

CALIBRATION_SEED = 0
"""Of the typical inputs that the ranges are measured on."""

_LEVELS = 127
_INSIDE = 0.9995
"""Share of the calibration's inputs, at either end, that is inside a layer's range; what is outside becomes its end."""


class Int8Linear(Linear):
    """A linear layer whose products are of whole numbers, but where a gradient has to pass.

    Weights have a scale for each output, inputs one range for all, fixed beforehand: so an input's output does not
    depend on what is computed beside it, bit for bit. Weights and names stay the layer's own; what is packed is made
    from them and is not saved.

    Args:
        layer: Whose weights are used, and shared.
        low: Of the inputs' range, <= 0.
        high: Of the inputs' range, > 0.
    """

    def __init__(self, layer: nn.Linear, low: float, high: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self._scale = (high - low) / _LEVELS
        self._high = high
        self._zero = round(-low / self._scale)
        self._packed = _pack(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())

    def forward(self, x: Float[Tensor, "*n X"]) -> Float[Tensor, "*n Y"]:
        """``x @ weight.T + bias``, rounded."""
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            return super().forward(x)
        rows = x.reshape(-1, self.in_features).clamp(max=self._high)  # else it would go on to 255, and pairs overflow
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        found: Tensor = product(rows, self._scale, self._zero, self._packed)
        return found.view(*x.shape[:-1], self.out_features)


def use_int8(model: WorldModel) -> None:
    """Roll a model out with whole numbers from now on; it is changed in place, its weights are not.

    Only the products of the residual blocks, nine tenths of the arithmetic, are rounded. Their inputs' ranges are those
    of rollouts of `typical_inputs`. Gradients, and what is computed for them, stay in fp32.

    Raises:
        BadInputError: another form than the compact one, or a build of torch without such products.
    """
    predictor = model.compact_predictor("int8 rollouts")
    if ENGINE not in torch.backends.quantized.supported_engines:
        raise BadInputError(f"int8 rollouts: this build of torch lacks {ENGINE}, which only x86 processors have.")
    layers = {name: part for name, part in predictor.blocks.named_modules() if isinstance(part, nn.Linear)}
    ranges = _ranges(model, layers)
    for name, layer in layers.items():
        block, _, own = name.rpartition(".")
        setattr(predictor.blocks.get_submodule(block), own, Int8Linear(layer, *ranges[name]))


def _pack(weight: Float[Tensor, "Y X"], bias: Float[Tensor, " Y"] | None) -> object:
    scales = (weight.abs().amax(1) / _LEVELS).clamp(min=torch.finfo(weight.dtype).tiny).double()
    engine = torch.backends.quantized.engine
    try:
        torch.backends.quantized.engine = ENGINE
        with warnings.catch_warnings():  # such tensors are to go in a later torch than the pinned one
            warnings.simplefilter("ignore", UserWarning)
            zeros = torch.zeros_like(scales, dtype=torch.long)
            whole = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        packed: object = torch.ops.quantized.linear_prepack(whole, bias)
    finally:
        torch.backends.quantized.engine = engine
    return packed


def _ranges(model: WorldModel, layers: dict[str, nn.Linear]) -> dict[str, tuple[float, float]]:
    """Of the inputs of each layer in the calibration's rollouts."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, found=seen[name]: found.append(given[0].detach().flatten()))
        for name, layer in layers.items()
    ]
    try:
        model.imagine(*typical_inputs(model, seed=CALIBRATION_SEED))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _range(torch.cat(parts)) for name, parts in seen.items()}


def _range(values: Float[Tensor, " K"]) -> tuple[float, float]:
    """Zero is inside, and is one of the levels."""
    ordered = values.sort().values
    outside = int((1 - _INSIDE) * len(ordered))
    low, high = float(ordered[outside]), float(ordered[-1 - outside])
    return min(low, 0.0), max(high, low + 1e-6, 1e-6)
