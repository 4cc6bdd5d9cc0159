"""A world model of the patch form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.wm.dense_patches import dense_rollout
from wm.checkpoint import load_tensors, save_tensors
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError, CheckpointError
from wm.frame_causal import FramePredictor
from wm.logs import Moments
from wm.model import BANK, WorldModel, build_joint, build_model, load_model
from wm.patch_dynamics import PatchDynamics
from wm.specs import EnvSpec, ModelSpec, PatchSizes
from wm.types import Latent

Frames = Callable[[int], Tensor]
SIZES = PatchSizes(heads=2, head_width=4, proprio_embedding=3, action_embedding=2)
ACTIONS = Moments(torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.25]))
PROPRIO = Moments(torch.tensor([250.0, 240.0, 1.0, -2.0]), torch.tensor([90.0, 80.0, 30.0, 40.0]))


def lively(model: WorldModel) -> WorldModel:
    """With weights that make everything depend on everything: a fresh predictor copies the last frame."""
    generator = torch.Generator().manual_seed(1)
    for weights in model.joint.parameters():
        weights.add_(0.1 * torch.randn(weights.shape, generator=generator))
    return model


@pytest.fixture
def spec(toy_env: EnvSpec) -> ModelSpec:
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8).spec()
    return ModelSpec(toy_env, encoder, 5, 3, 64, 4, 16, 2, proposals=3, reach=4, form="patch", patch=SIZES)


@pytest.fixture
def model(spec: ModelSpec) -> WorldModel:
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    return lively(build_model(spec, encoder, ACTIONS, PROPRIO))


def context(model: WorldModel, frames: Frames, b: int = 1) -> Latent:
    proprio = 200.0 + 10.0 * torch.arange(b * 3 * 4).reshape(b, 3, 4)
    return model.encode(frames(3 * b)[0].unflatten(0, (b, 3)), proprio)


def candidates(b: int = 1, s: int = 5, h: int = 4) -> Tensor:
    return torch.rand(b, s, h, 10, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_imagining_equals_a_dense_transformer_step_by_step(model: WorldModel, frames: Frames) -> None:
    seen, actions, dynamics = context(model, frames, 2), candidates(2), model.joint.predictor
    found = model.imagine(seen, actions)
    assert found.tokens.shape == (2, 5, 4, 64, 4) and found.actions is actions
    assert isinstance(dynamics, PatchDynamics) and seen.proprio is not None and found.proprio is not None
    vectors = torch.cat([seen.tokens.flatten(2), PROPRIO.normalise(seen.proprio)], -1)
    normal = ACTIONS.normalise(actions.unflatten(-1, (5, 2))).flatten(-2)
    for b in range(2):
        for s in range(5):
            expected = dense_rollout(dynamics, vectors[b], normal[b, s])
            torch.testing.assert_close(found.tokens[b, s].flatten(1), expected[:, :256], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.proprio[b, s], PROPRIO.restore(expected[:, 256:]), atol=1e-2, rtol=1e-5)


def test_problems_and_candidates_do_not_disturb_each_other(model: WorldModel, frames: Frames) -> None:
    seen, actions = context(model, frames, 2), candidates(2)
    together = model.imagine(seen, actions)
    assert seen.proprio is not None
    for b in range(2):
        one = Latent(seen.tokens[b : b + 1], seen.proprio[b : b + 1])
        alone = model.imagine(one, actions[b : b + 1, 3:4])
        torch.testing.assert_close(alone.tokens[0, 0], together.tokens[b, 3], atol=1e-5, rtol=1e-5)
    assert (together.tokens[:, 0] - together.tokens[:, 1]).abs().max() > 1e-2


def test_the_history_is_observed_once_however_often_candidates_are_imagined(
    model: WorldModel, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[int] = []
    real = FramePredictor.observe

    def counting(self: FramePredictor, frames: Tensor, past: Tensor) -> object:
        observed.append(len(frames))
        return real(self, frames, past)

    monkeypatch.setattr(FramePredictor, "observe", counting)
    imagine = model.imagination(context(model, frames, 2))
    first = imagine(candidates(2))
    for _ in range(3):
        assert torch.equal(imagine(candidates(2)).tokens, first.tokens)
    imagine(candidates(2).requires_grad_()).tokens.sum().backward()
    assert observed == [2]  # at batch B, not once a candidate


def test_gradients_reach_the_actions_as_finite_differences_say(model: WorldModel, frames: Frames) -> None:
    seen = context(model, frames)
    model.double()
    assert seen.proprio is not None
    imagine = model.imagination(Latent(seen.tokens.double(), seen.proprio.double()))
    actions = candidates(s=3).double().requires_grad_()

    def value(actions: Tensor) -> Tensor:
        found = imagine(actions)
        assert found.proprio is not None
        return found.tokens.sin().sum() + found.proprio.sin().sum()

    (gradient,) = torch.autograd.grad(value(actions), actions)
    for index in [(0, 0, 0, 0), (0, 1, 1, 7), (0, 2, 3, 9)]:
        nudge = torch.zeros_like(actions).index_put_(tuple(torch.tensor(i) for i in index), torch.tensor(1e-6).double())
        slope = (value(actions.detach() + nudge) - value(actions.detach() - nudge)) / 2e-6
        torch.testing.assert_close(gradient[index], slope, rtol=1e-4, atol=1e-6)
    assert not any(p.grad is not None or p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert not imagine(actions).tokens.requires_grad


def test_the_file_gives_the_same_model(model: WorldModel, frames: Frames, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    states = torch.randn(300, 256).bfloat16()
    model.remember(states, states + 0.1)
    model.save(path, {})
    loaded, _ = load_model(path)
    assert loaded.spec == model.spec and loaded.spec.patch == SIZES
    seen = context(model, frames)
    one, other = (m.imagine(seen, candidates()) for m in (model, loaded))
    assert torch.equal(one.tokens, other.tokens)
    mine, theirs = (m.propose(seen, seen.tokens[:, 0], [4, 2]) for m in (model, loaded))
    assert mine is not None and theirs is not None and torch.equal(mine, theirs) and mine.shape == (1, 6, 4, 10)
    assert torch.equal(model.unfamiliarity(frames(2)), loaded.unfamiliarity(frames(2)))
    assert {type(v) for v in json.loads(json.dumps(model.spec.to_json()))["patch"].values()} == {int, bool}


def test_a_file_without_the_patch_forms_field_is_an_older_compact_model(
    world_model: WorldModel, frames: Frames, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    world_model.save(path, {})
    tensors, header = load_tensors(path)
    del header["spec"]["patch"]
    save_tensors(path, tensors, header)
    assert load_model(path)[0].spec == world_model.spec


def test_a_file_whose_sizes_are_wrong_is_refused(model: WorldModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path, {})
    tensors, header = load_tensors(path)
    wide = header["spec"]["patch"] | {"heads": 3}
    save_tensors(path, tensors, header | {"spec": header["spec"] | {"patch": wide}})
    with pytest.raises(CheckpointError, match=r"misshapen \['joint.predictor.predictor.blocks.0.queries"):
        load_model(path)
    save_tensors(path, tensors, header | {"spec": header["spec"] | {"patch": wide | {"colour": 1}}})
    with pytest.raises(CheckpointError, match="PatchSizes: expected the fields .*'heads'.*, came .*'colour'"):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 16}, "form 'patch': expected 64 tokens of 1 to 8 numbers .*, came 16 of 4"),
        ({"width": 9}, "form 'patch': expected 64 tokens of 1 to 8 numbers .*, came 64 of 9"),
        ({"patch": None}, "and the sizes of its predictor, came 64 of 4 and None"),
        ({"history": 5, "patch": replace(SIZES, window=4)}, "expected a window of 5 frames or more, came 4"),
        ({"hidden": 0}, "expected hidden >= 1, came 0"),
    ],
)
def test_bad_sizes_are_refused(spec: ModelSpec, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        build_joint(replace(spec, **changes))  # type: ignore[arg-type]


def test_its_tokens_form_a_grid_and_none_of_them_reads_out_the_robot(model: WorldModel) -> None:
    assert model.grid == 8 and torch.equal(model.goal_scale(0.25), torch.ones(64, 4))


def test_a_model_without_proprioception_and_one_of_a_world_of_strokes(spec: ModelSpec, frames: Frames) -> None:
    torch.manual_seed(0)
    encoder, action = TinyEncoder(width=8), spec.env.action
    strokes = replace(action, names=("x0", "y0", "x1", "y1"), low=(-1.0,) * 4, high=(1.0,) * 4, segment=1.0)
    for env in (replace(spec.env, proprio=None), replace(spec.env, proprio=None, action=strokes)):
        moments = Moments.none(env.action.width)
        model = lively(build_model(replace(spec, env=env), encoder, moments, None))
        actions = torch.rand(1, 5, 4, model.action_width)
        found = model.imagine(model.encode(frames(3)), actions.requires_grad_())
        (slope,) = torch.autograd.grad(found.tokens.sin().sum(), actions)
        assert (
            bool((slope.abs().amax(-1) > 0).all()) and found.proprio is None and found.tokens.shape == (1, 5, 4, 64, 4)
        )
        assert (found.tokens[:, 0] - found.tokens[:, 1]).abs().max() > 1e-3
    assert model.action_width == 20


def test_noise_is_unfamiliar(model: WorldModel, frames: Frames) -> None:
    seen = frames(60)
    states = model.encode(seen).tokens.flatten(2)[0]
    model.remember(states[:40], states[40:])
    noise = torch.randint(0, 256, (1, 4, 96, 96, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    new = model.unfamiliarity(seen[:, 40:])
    assert model.unfamiliarity(seen[:, :40]).max() < new.median() < 1.01 and model.unfamiliarity(noise).min() > 2.0
    assert model.bank.shape == (BANK, 4)


def test_the_default_sizes_make_a_file_of_less_than_6_megabytes(spec: ModelSpec, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = TinyEncoder(width=64)
    spec = replace(spec, encoder=encoder.spec(), width=48, hidden=384, depth=4, proposals=16, reach=5)
    model = build_model(replace(spec, patch=PatchSizes()), encoder, ACTIONS, PROPRIO)
    model.save(tmp_path / "model.safetensors", {})
    assert (tmp_path / "model.safetensors").stat().st_size < 6e6
