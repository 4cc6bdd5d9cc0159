from __future__ import annotations

import pytest
import torch
from torch import nn

from wm.errors import BadInputError
from wm.experiments.assemble import make_model
from wm.int8 import CALIBRATION_SEED, ENGINE, Int8Linear, use_int8
from wm.model import WorldModel
from wm.typical_inputs import typical_inputs

ENGINES = torch.backends.quantized.supported_engines
pytestmark = pytest.mark.skipif(ENGINE not in ENGINES, reason="no int8 products here")


@pytest.fixture(scope="module")
def exact() -> WorldModel:
    return make_model("pusht", "pusht")


@pytest.fixture(scope="module")
def rounded() -> WorldModel:
    return make_model("pusht", "pusht", "int8")


def layer(inputs: int = 40, outputs: int = 7, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40,), (5, 40), (2, 3, 40)])
def test_a_layer_is_right_to_the_rounding_of_its_inputs_and_weights(bias: bool, shape: tuple[int, ...]) -> None:
    plain, low, high = layer(bias=bias), -3.0, 3.0
    x = torch.empty(shape).uniform_(low, high, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Half a level of each input times its weight, and half a level of each weight times its input.
        input_level, weight_levels = (high - low) / 127, plain.weight.abs().amax(1) / 127
        most = 0.5 * (input_level * plain.weight.abs().sum(1) + weight_levels * (x.abs() + input_level).sum(-1, True))
        off = (Int8Linear(plain, low, high)(x) - plain(x)).abs()
    assert off.shape == (*shape[:-1], 7)
    assert bool((off <= most + 1e-4).all())
    assert float(off.max()) > 1e-4  # it is rounded indeed


def test_inputs_outside_the_range_count_as_its_ends() -> None:
    plain = layer()
    rounded = Int8Linear(plain, -1.0, 1.0)
    far = 50.0 * torch.ones(1, 40)
    with torch.no_grad():
        torch.testing.assert_close(rounded(far), rounded(torch.ones(1, 40)), atol=1e-6, rtol=0)


def test_gradients_are_those_of_the_layer_itself() -> None:
    plain = layer()
    rounded, x = Int8Linear(plain, -3.0, 3.0), torch.randn(5, 40, requires_grad=True)
    rounded(x).square().sum().backward()
    found = x.grad
    x.grad = None
    plain(x).square().sum().backward()
    torch.testing.assert_close(found, x.grad, atol=0, rtol=0)


def test_weights_and_names_stay(exact: WorldModel, rounded: WorldModel) -> None:
    before, after = exact.state_dict(), rounded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_rollouts_differ_by_little_of_what_the_state_moves(exact: WorldModel, rounded: WorldModel) -> None:
    """On other inputs than the ranges are from."""
    context, actions = typical_inputs(exact, seed=CALIBRATION_SEED + 1)
    plain, whole = (model.imagine(context, actions).tokens for model in (exact, rounded))
    moved = (plain - context.tokens[:, None, -1:]).square().mean((0, 1, 3, 4))
    share = (plain - whole).square().mean((0, 1, 3, 4)) / moved
    assert float(share.min()) > 0
    assert float(share.max()) < 0.015  # of the mean square; the model's own error is 0.056


def test_a_candidate_does_not_depend_on_the_others_bit_for_bit(rounded: WorldModel) -> None:
    block = rounded.joint.predictor.blocks[0]
    x = torch.randn(300, block.widen.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(block.widen(x)[17:19], block.widen(x[17:19]))


def test_the_same_model_is_rounded_the_same_way(rounded: WorldModel) -> None:
    context, actions = typical_inputs(rounded)
    again = make_model("pusht", "pusht", "int8")
    assert torch.equal(again.imagine(context, actions).tokens, rounded.imagine(context, actions).tokens)


def test_gradients_pass_through_a_rollout(rounded: WorldModel, exact: WorldModel) -> None:
    context, actions = typical_inputs(rounded)
    slopes = []
    for model in (exact, rounded):
        leaf = actions[:, :1].clone().requires_grad_()
        model.imagine(context, leaf).tokens[:, :, -1].square().sum().backward()
        slopes.append(leaf.grad)
    assert torch.equal(*slopes)


def test_the_engine_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(name for name in ENGINES if name != ENGINE)
    monkeypatch.setattr(torch.backends.quantized, "engine", other)
    Int8Linear(layer(), -1.0, 1.0)
    assert torch.backends.quantized.engine == other


def test_another_form_is_refused() -> None:
    with pytest.raises(BadInputError, match="int8 rollouts: expected a model of form 'compact', came 'patch'"):
        make_model("pusht-patch", "pusht", "int8")


def test_a_build_without_such_products_is_refused(exact: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm.int8.ENGINE", "none-such")
    with pytest.raises(BadInputError, match="int8 rollouts: this build of torch lacks none-such"):
        use_int8(exact)
