"""The predictor in a stroke's own frame."""

import pytest
import torch

from wm.errors import BadInputError
from wm.rollout import rollout
from wm.stroke_predictor import StrokePredictor, require_segment

GRID, WIDTH = 8, 2


@pytest.fixture
def predictor() -> StrokePredictor:
    torch.manual_seed(0)
    predictor = StrokePredictor(GRID, WIDTH, 0.9, hidden=32, depth=1)
    torch.nn.init.normal_(predictor.leave.weight, std=0.2)
    torch.nn.init.normal_(predictor.leave.bias, std=0.2)
    return predictor.requires_grad_(False)


def _field(*lead: int) -> torch.Tensor:
    return torch.randn(*lead, GRID * GRID * WIDTH, generator=torch.Generator().manual_seed(1))


def _turned(vectors: torch.Tensor) -> torch.Tensor:
    """Fields turned by a quarter, counter-clockwise as the picture is seen."""
    planes = vectors.unflatten(-1, (GRID, GRID, WIDTH))
    return torch.rot90(planes, 1, dims=(-3, -2)).flatten(-3)


def test_a_fresh_one_changes_nothing():
    predictor = StrokePredictor(GRID, WIDTH, 0.9, hidden=16, depth=1)
    field = _field(3)
    assert torch.equal(predictor(field[:, None], torch.rand(3, 4)), field)


def test_a_turned_stroke_on_a_turned_field_does_the_same_turned(predictor):
    field, stroke = _field(1), torch.tensor([[-0.3, -0.1, 0.5, 0.2]])
    x0, y0, x1, y1 = stroke[0].tolist()
    turned_stroke = torch.tensor([[-y0, x0, -y1, x1]])
    expected = _turned(predictor(field[:, None], stroke))
    assert torch.allclose(predictor(_turned(field)[:, None], turned_stroke), expected, atol=1e-4)


def test_a_shifted_stroke_on_a_shifted_field_does_the_same_shifted(predictor):
    planes = torch.zeros(1, GRID, GRID, WIDTH)
    planes[:, 3:5, 2:4] = torch.randn(1, 2, 2, WIDTH, generator=torch.Generator().manual_seed(2))
    cell = 2 / GRID / predictor.segment
    stroke = torch.tensor([[-0.5, 0.0, -0.2, 0.0]])
    change = (predictor(planes.flatten(1)[:, None], stroke) - planes.flatten(1)).unflatten(1, (GRID, GRID, WIDTH))
    moved = torch.roll(planes, 1, dims=2).flatten(1)
    again = predictor(moved[:, None], stroke + torch.tensor([[cell, 0.0, cell, 0.0]])) - moved
    again = again.unflatten(1, (GRID, GRID, WIDTH))
    assert torch.allclose(again[:, :, 2:6], change[:, :, 1:5], atol=1e-4)


def test_what_is_out_of_its_frame_stays(predictor):
    field, stroke = _field(1), torch.tensor([[-0.9, -0.9, -0.5, -0.9]])  # along the lower edge
    changed = (predictor(field[:, None], stroke) - field).unflatten(1, (GRID, GRID, WIDTH)).abs().amax(-1)[0]
    assert changed[:5].max() < 1e-6 and changed[-1, :3].max() > 1e-3


def test_candidates_share_a_field_and_do_not_touch_each_other(predictor):
    fields, strokes = _field(2, 1), torch.rand(2, 5, 3, 4) - 0.5
    states = rollout(predictor, fields, strokes)
    assert states.shape == (2, 5, 3, GRID * GRID * WIDTH)
    for b in range(2):
        for s in range(5):
            alone = rollout(predictor, fields[b : b + 1], strokes[b : b + 1, s : s + 1])
            assert torch.allclose(states[b, s], alone[0, 0], atol=1e-5)


def test_a_stroke_without_length_gives_finite_numbers_and_gradients_pass(predictor):
    strokes = torch.tensor([[[[0.2, 0.2, 0.2, 0.2]], [[0.1, -0.2, 0.4, 0.3]]]], requires_grad=True)
    states = rollout(predictor, _field(1, 1), strokes)
    assert bool(torch.isfinite(states).all())
    states.square().sum().backward()
    assert strokes.grad is not None and float(strokes.grad[0, 1].abs().min()) > 0


def test_a_world_without_strokes_is_refused():
    with pytest.raises(BadInputError, match="segment"):
        require_segment(None)
