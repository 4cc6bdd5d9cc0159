from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wm.checkpoint import load_tensors, save_tensors
from wm.encoders.registry import save_encoder
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError, CheckpointError, MismatchError
from wm.logs import Moments
from wm.model import WorldModel, build_joint, build_model, load_model
from wm.specs import ModelSpec
from wm.types import Latent

Frames = Callable[[int], Tensor]
PROPRIO = torch.tensor([[[200.0, 210.0, 5.0, -6.0], [203.0, 207.0, 10.0, -9.0]]])


def context(model: WorldModel, frames: Frames, b: int = 1) -> Latent:
    seen = frames(2 * b)[0].unflatten(0, (b, 2))
    return model.encode(seen, (PROPRIO + 10.0 * torch.arange(b)[:, None, None]).expand(b, 2, 4))


def candidates(b: int = 1, s: int = 4, h: int = 3) -> Tensor:
    return torch.rand(b, s, h, 10, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_encoding_gives_state_tokens_and_raw_proprioception(world_model: WorldModel, frames: Frames) -> None:
    latent = world_model.encode(frames(3), torch.ones(1, 3, 4) * 400)
    assert latent.tokens.shape == (1, 3, 2, 4) and latent.proprio is not None and float(latent.proprio[0, 0, 0]) == 400
    single = world_model.encode(frames(3)[:, 1:2])
    assert single.proprio is None
    torch.testing.assert_close(single.tokens[0, 0], latent.tokens[0, 1], atol=1e-5, rtol=0)
    expected = world_model.joint.head(world_model.encoder.encode(frames(3))[0])
    torch.testing.assert_close(latent.tokens[0], expected)


def test_imagining_gives_trajectories_in_raw_units(world_model: WorldModel, frames: Frames) -> None:
    actions = candidates(b=2)
    trajectory = world_model.imagine(context(world_model, frames, 2), actions)
    assert trajectory.tokens.shape == (2, 4, 3, 2, 4) and trajectory.actions is actions
    assert trajectory.proprio is not None and trajectory.proprio.shape == (2, 4, 3, 4)
    assert world_model.action_width == 10
    assert (trajectory.proprio[..., :2] - 210).abs().max() < 200  # px, not standard deviations


def test_imagining_equals_normalising_by_hand(world_model: WorldModel, frames: Frames) -> None:
    model, seen, actions = world_model, context(world_model, frames), candidates()
    trajectory = model.imagine(seen, actions)
    mean, std = torch.tensor([0.1, -0.2]).repeat(5), torch.tensor([0.5, 0.25]).repeat(5)
    offset, scale = torch.tensor([250.0, 240.0, 1.0, -2.0]), torch.tensor([90.0, 80.0, 30.0, 40.0])
    assert seen.proprio is not None and trajectory.proprio is not None
    for s in range(actions.shape[1]):
        states = list(torch.cat([seen.tokens[0].flatten(1), (seen.proprio[0] - offset) / scale], 1))
        for h in range(actions.shape[2]):
            states.append(model.joint.predictor(torch.stack(states[-2:]), (actions[0, s, h] - mean) / std))
            torch.testing.assert_close(trajectory.tokens[0, s, h].flatten(), states[-1][:8], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(trajectory.proprio[0, s, h], states[-1][8:] * scale + offset)


def test_candidates_do_not_disturb_each_other(world_model: WorldModel, frames: Frames) -> None:
    seen, actions = context(world_model, frames), candidates()
    together = world_model.imagine(seen, actions)
    for s in range(actions.shape[1]):
        alone = world_model.imagine(seen, actions[:, s : s + 1])
        torch.testing.assert_close(alone.tokens[:, 0], together.tokens[:, s], atol=1e-5, rtol=1e-4)
    assert (together.tokens[:, 0] - together.tokens[:, 1]).abs().max() > 1e-4


def test_gradients_are_not_kept(world_model: WorldModel, frames: Frames) -> None:
    assert not any(p.requires_grad for p in world_model.parameters()) and not world_model.training
    assert not world_model.imagine(context(world_model, frames), candidates()).tokens.requires_grad


def test_gradients_reach_the_actions_where_they_are_asked_for(world_model: WorldModel, frames: Frames) -> None:
    """As finite differences say; the observed history comes out of inference mode, with and without proprioception."""
    torch.nn.init.normal_(world_model.joint.predictor.out.weight, std=0.3, generator=torch.Generator().manual_seed(4))
    without = replace(world_model.spec, env=replace(world_model.spec.env, proprio=None))
    blind = build_model(without, world_model.encoder, Moments(torch.zeros(2), torch.ones(2)), None)
    torch.nn.init.normal_(blind.joint.predictor.out.weight, std=0.3, generator=torch.Generator().manual_seed(4))
    for model, seen in ((world_model, context(world_model, frames)), (blind, blind.encode(frames(2)))):
        model.double()
        seen = Latent(seen.tokens.double(), None if seen.proprio is None else seen.proprio.double())
        actions = candidates().double().requires_grad_()

        def value(actions: Tensor, model: WorldModel = model, seen: Latent = seen) -> Tensor:
            found = model.imagine(seen, actions)
            return (
                found.tokens.square().sum()
                if found.proprio is None
                else (found.tokens.sin().sum() + found.proprio.sum())
            )

        (gradient,) = torch.autograd.grad(value(actions), actions)
        for index in [(0, 0, 0, 0), (0, 1, 1, 7), (0, 3, 2, 9)]:
            nudge = torch.zeros_like(actions).index_put_(
                tuple(torch.tensor(i) for i in index), torch.tensor(1e-6).double()
            )
            slope = (value(actions.detach() + nudge) - value(actions.detach() - nudge)) / 2e-6
            torch.testing.assert_close(gradient[index], slope, rtol=1e-4, atol=1e-6)
        assert not any(p.grad is not None or p.requires_grad for p in model.parameters())
        with torch.no_grad():
            quiet = model.imagine(seen, actions)
        assert not quiet.tokens.requires_grad and quiet.tokens.is_inference()


def test_a_context_of_another_length_is_refused(world_model: WorldModel, frames: Frames) -> None:
    latent = world_model.encode(frames(3), torch.zeros(1, 3, 4))
    with pytest.raises(BadInputError, match="context: expected 2 frames, came 3"):
        world_model.imagine(latent, candidates())


def test_missing_or_broken_proprioception_is_refused(world_model: WorldModel, frames: Frames) -> None:
    with pytest.raises(BadInputError, match=r"the model expects \('x', 'y', 'vx', 'vy'\), came none"):
        world_model.imagine(world_model.encode(frames(2)), candidates())
    for bad in (torch.nan, torch.inf):
        with pytest.raises(BadInputError, match=f"proprio: expected finite numbers, came .*{bad}"):
            world_model.encode(frames(2), torch.full((1, 2, 4), bad))


def test_a_model_without_proprioception(world_model: WorldModel, frames: Frames, tmp_path: Path) -> None:
    spec = replace(world_model.spec, env=replace(world_model.spec.env, proprio=None))
    model = build_model(spec, world_model.encoder, Moments(torch.zeros(2), torch.ones(2)), None)
    trajectory = model.imagine(model.encode(frames(2)), candidates())
    assert trajectory.proprio is None and trajectory.tokens.shape == (1, 4, 3, 2, 4)
    with pytest.raises(BadInputError, match="the model expects none, came some"):
        model.imagine(model.encode(frames(2), torch.zeros(1, 2, 4)), candidates())
    model.save(tmp_path / "model.safetensors", {})
    assert load_model(tmp_path / "model.safetensors")[0].spec == spec


def test_another_picture_size_is_refused(world_model: WorldModel) -> None:
    with pytest.raises(BadInputError, match="expects 96x96 pixels, came 64x64"):
        world_model.encode(torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8))


def test_file_gives_the_same_model(world_model: WorldModel, frames: Frames, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    states = torch.randn(300, 8)
    world_model.remember(states, states + 0.1)
    world_model.save(path, {"command": "wm train", "seed": 3})
    loaded, provenance = load_model(path)
    assert provenance == {"command": "wm train", "seed": 3} and loaded.spec == world_model.spec
    for model in (world_model, loaded):
        assert model.spec.encoder == model.encoder.spec()
    one, other = (m.imagine(context(m, frames), candidates()) for m in (world_model, loaded))
    assert torch.equal(one.tokens, other.tokens)
    assert one.proprio is not None and other.proprio is not None and torch.equal(one.proprio, other.proprio)
    assert torch.equal(world_model.unfamiliarity(frames(2)), loaded.unfamiliarity(frames(2)))


def test_other_files_are_refused(world_model: WorldModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_encoder(world_model.encoder, path, {})
    with pytest.raises(CheckpointError, match="model.safetensors: expected a world model, came 'encoder'"):
        load_model(path)
    world_model.save(path, {})
    tensors, header = load_tensors(path)
    for change, message in [
        ({"hidden": 24}, r"misshapen \['joint.predictor.from_state.weight: expected \(24, 24\), came \(16, 24\)'"),
        ({"depth": 2}, r"missing \['joint.predictor.blocks.1"),
    ]:
        save_tensors(path, tensors, header | {"spec": header["spec"] | change})
        with pytest.raises(CheckpointError, match=message):
            load_model(path)
    del header["spec"]["history"]
    save_tensors(path, tensors, header)
    with pytest.raises(CheckpointError, match="ModelSpec: expected the fields .*'history'"):
        load_model(path)


def test_changed_encoder_weights_are_refused(world_model: WorldModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    world_model.save(path, {})
    tensors, header = load_tensors(path)
    tensors["encoder.project.bias"] += 1.0
    save_tensors(path, tensors, header)
    with pytest.raises(
        MismatchError, match=f"encoder fingerprint.*expected {world_model.spec.encoder.fingerprint}, came"
    ):
        load_model(path)


def test_building_on_another_encoder_is_refused(world_model: WorldModel) -> None:
    torch.manual_seed(9)
    moments = Moments(torch.zeros(2), torch.ones(2)), Moments(torch.zeros(4), torch.ones(4))
    with pytest.raises(MismatchError, match="encoder: expected EncoderSpec.*, came EncoderSpec"):
        build_model(world_model.spec, TinyEncoder(width=8), *moments)


def test_sizes_follow_the_spec(world_model: WorldModel) -> None:
    spec: ModelSpec = replace(world_model.spec, tokens=3, width=5, hidden=12, depth=2, history=4)
    joint = build_joint(spec)
    assert joint.predictor.out.out_features == 3 * 5 + 4 and joint.predictor.history == 4
    assert joint.predictor.from_state.in_features == 4 * 19 and joint.predictor.from_action.in_features == 10
    assert len(joint.predictor.blocks) == 2


def test_pictures_of_the_log_are_familiar_and_noise_is_not(world_model: WorldModel, frames: Frames) -> None:
    seen = frames(60)
    states = world_model.encode(seen).tokens.flatten(2)[0]
    world_model.remember(states[:40], states[40:])
    known, new = world_model.unfamiliarity(seen[:, :40]), world_model.unfamiliarity(seen[:, 40:])
    noise = torch.randint(0, 256, (1, 4, 96, 96, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert known.shape == (1, 40) and known.max() < 0.2  # distances of nearly equal numbers are rounded
    assert known.max() < new.median() < 1.01 and float((new <= 1.0).float().mean()) >= 0.9
    assert world_model.unfamiliarity(noise).min() > 2.0


def test_goal_scale_weights_the_read_out_of_the_robot(world_model: WorldModel) -> None:
    scale = world_model.goal_scale(0.25)
    assert scale.shape == (2, 4)
    assert (1 / scale.flatten() ** 2).tolist() == [1.0] * 4 + [0.25] * 4
    assert torch.equal(world_model.goal_scale(1.0), torch.ones(2, 4))


@pytest.fixture
def proposing(world_model: WorldModel) -> WorldModel:
    """The same model with a proposal of three sequences of four latent steps."""
    torch.manual_seed(3)
    spec = replace(world_model.spec, proposals=3, reach=4)
    actions = Moments(*world_model.action_moments)
    return build_model(spec, world_model.encoder, actions, Moments(*world_model.proprio_moments))


def test_spacing_is_the_distance_of_neighbours_in_the_log(world_model: WorldModel) -> None:
    """Remembered states on a line, two apart: of 8 numbers one differs, and with a scale it counts less."""
    bank = torch.zeros_like(world_model.bank)
    bank[:, 0] = 2.0 * torch.arange(len(bank))
    world_model.bank.copy_(bank[torch.randperm(len(bank), generator=torch.Generator().manual_seed(0))])
    scale = torch.ones(2, 4)
    assert world_model.spacing(scale) == pytest.approx(4 / 8, rel=1e-3)
    scale[0, 0] = 4.0
    assert world_model.spacing(scale) == pytest.approx(4 / 16 / 8, rel=1e-3)
    world_model.bank[::3] = world_model.bank[1]  # remembered more than once
    assert world_model.spacing(torch.ones(2, 4)) == pytest.approx(4 / 8, rel=1e-3)
    world_model.bank[: len(bank) // 2 + 1] = world_model.bank[1]
    assert world_model.spacing(torch.ones(2, 4)) is None


def test_a_model_without_proposal_proposes_nothing(world_model: WorldModel, frames: Frames) -> None:
    seen = context(world_model, frames)
    assert world_model.proposal is None and world_model.propose(seen, seen.tokens[:, 0], [1]) is None


def test_proposals_are_raw_actions_that_end_in_standing_still(proposing: WorldModel, frames: Frames) -> None:
    seen = context(proposing, frames, 2)
    goal = seen.tokens[:, 0]
    found = proposing.propose(seen, goal, [4, 2])
    assert found is not None and proposing.proposal is not None and found.shape == (2, 6, 4, 10)
    assert (found[:, 3:, 2:] == 0).all() and (found[:, 3:, :2] != 0).all() and (found[:, :3] != 0).all()
    mean, std = torch.tensor([0.1, -0.2]).repeat(5), torch.tensor([0.5, 0.25]).repeat(5)
    assert seen.proprio is not None
    offset, scale = torch.tensor([250.0, 240.0, 1.0, -2.0]), torch.tensor([90.0, 80.0, 30.0, 40.0])
    vectors = torch.cat([seen.tokens.flatten(2), (seen.proprio - offset) / scale], -1)
    expected = proposing.proposal(vectors, goal.flatten(1), torch.tensor([4.0, 4.0])) * std + mean
    torch.testing.assert_close(found[:, :3], expected)


def test_the_proposal_travels_in_the_file(proposing: WorldModel, frames: Frames, tmp_path: Path) -> None:
    proposing.save(tmp_path / "m.safetensors", {})
    loaded, _ = load_model(tmp_path / "m.safetensors")
    seen = context(proposing, frames)
    mine, theirs = (m.propose(seen, seen.tokens[:, 0], [4, 3]) for m in (proposing, loaded))
    assert mine is not None and theirs is not None and torch.equal(mine, theirs)


def test_a_file_with_broken_numbers_or_a_broken_specification_is_refused(
    world_model: WorldModel, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    world_model.save(path, {})
    tensors, header = load_tensors(path)
    name = "joint.predictor.out.bias"
    save_tensors(path, tensors | {name: torch.full_like(tensors[name], torch.nan)}, header)
    with pytest.raises(CheckpointError, match=f"expected finite numbers, came NaN or infinity in {name}"):
        load_model(path)
    for broken in ({"spec": header["spec"] | {"hidden": "5"}}, {"spec": header["spec"] | {"env": 3}}):
        save_tensors(path, tensors, header | broken)
        with pytest.raises(CheckpointError, match="expected the specification of a world model, it cannot be read"):
            load_model(path)
    del header["spec"]
    save_tensors(path, tensors, header)
    with pytest.raises(CheckpointError, match="expected the specification of a world model.*KeyError: 'spec'"):
        load_model(path)


def test_spacing_is_computed_once_and_follows_the_weights(
    world_model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = torch.zeros_like(world_model.bank)
    line[:, 0] = 2.0 * torch.arange(len(line))
    world_model.bank.copy_(line)
    searched: list[int] = []
    cdist = torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda *given, **how: searched.append(1) or cdist(*given, **how))
    scale = torch.ones(2, 4)
    assert world_model.spacing(scale) == world_model.spacing(scale.clone()) == pytest.approx(4 / 8)
    assert len(searched) == 1
    other = copy.deepcopy(world_model)
    other.bank.copy_(2.0 * line)
    assert other.spacing(scale) == pytest.approx(4 * 4 / 8) and world_model.spacing(scale) == pytest.approx(4 / 8)
    world_model.load_state_dict(world_model.state_dict() | {"bank": 3.0 * line})
    assert world_model.spacing(scale) == pytest.approx(9 * 4 / 8)
    world_model.load_state_dict(world_model.state_dict() | {"bank": 4.0 * line}, assign=True)
    assert world_model.spacing(scale) == pytest.approx(16 * 4 / 8)
    scale[0, 0] = 2.0  # in place
    assert world_model.spacing(scale) == pytest.approx(4 * 4 / 8)
