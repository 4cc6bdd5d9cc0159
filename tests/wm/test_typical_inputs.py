from __future__ import annotations

import pytest
import torch

from wm.experiments.assemble import make_model
from wm.typical_inputs import typical_inputs


@pytest.mark.parametrize("name", ["pusht", "pusht-patch"])
def test_shapes_and_moments_are_those_of_planning(name: str) -> None:
    model = make_model(name, "pusht")
    context, actions = typical_inputs(model, observations=64, candidates=8, steps=3, seed=5)
    spec = model.spec
    assert context.tokens.shape == (64, spec.history, spec.tokens, spec.width)
    assert context.proprio is not None and context.proprio.shape == (64, spec.history, model.proprio_moments.shape[1])
    assert actions.shape == (64, 8, 3, model.action_width)
    mean, std = model.action_moments
    drawn = actions.unflatten(-1, (spec.frameskip, -1)).flatten(0, 3)
    torch.testing.assert_close(drawn.std(0), std, rtol=0.1, atol=0.0)
    assert bool(((drawn.mean(0) - mean).abs() < 0.1 * std).all())
    assert model.imagine(context, actions).tokens.shape == (64, 8, 3, spec.tokens, spec.width)
    again = typical_inputs(model, observations=64, candidates=8, steps=3, seed=5)
    assert torch.equal(again[0].tokens, context.tokens) and torch.equal(again[1], actions)


def test_a_compact_model_is_given_states_of_its_log() -> None:
    model = make_model("pusht", "pusht")
    context, _ = typical_inputs(model, observations=4, candidates=1, steps=1)
    states = context.tokens[:, -1].flatten(1)
    assert bool((states[:, None] == model.bank).all(-1).any(-1).all())
    assert context.proprio is not None
    mean, std = model.proprio_moments
    torch.testing.assert_close((context.proprio[:, -1] - mean) / std, states[:, -len(mean) :], rtol=1e-3, atol=1e-4)
    assert torch.equal(context.tokens, context.tokens[:, -1:].expand_as(context.tokens))


def test_another_seed_gives_other_inputs() -> None:
    model = make_model("pusht", "pusht")
    one, other = (typical_inputs(model, observations=8, seed=seed) for seed in (0, 1))
    assert not torch.equal(one[0].tokens, other[0].tokens) and not torch.equal(one[1], other[1])
