from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.checkpoint import load_tensors, save_tensors
from wm.datasets.windows import WindowIndex
from wm.errors import BadInputError, CheckpointError, MismatchError
from wm.joint import JointModel
from wm.logs import Log, LogWindows, Moments
from wm.model import WorldModel
from wm.predictor import Predictor
from wm.readout import StateReadout, load_readout, readout_errors, save_readout, train_readout
from wm.state_head import StateHead

STEPS, FRAMESKIP, HISTORY, H, WIDTH = 24, 2, 2, 3, 4
NAMES, UNIT = ("block_x", "block_y"), "px"


class World:
    """Episodes of a drifting state of four numbers; the truth is a known function of it, with noise on top."""

    def __init__(self, episodes: int, truth: Callable[[np.ndarray], np.ndarray], noise: float = 0.0) -> None:
        rng = np.random.default_rng(0)
        states = rng.normal(0, 0.2, (episodes, STEPS + 1, WIDTH)).cumsum(1) + rng.normal(0, 1, (episodes, 1, WIDTH))
        states = states.reshape(-1, WIDTH) * [1.0, 5.0, 0.2, 1.0] + [0, 3, 0, 0]
        self.truth = truth(states) + noise * rng.normal(0, 1, (len(states), 2))
        self.table = torch.from_numpy(states).float()
        self.episodes = episodes
        self.actions = rng.normal(0, 1, (episodes * STEPS, 2)).astype(np.float32)

    def windows(self, episodes: range) -> LogWindows:
        index = WindowIndex(np.full(self.episodes, STEPS), HISTORY, H, FRAMESKIP, np.array(episodes))
        log = Log(self.table, None, self.actions)
        return LogWindows(log, index, Moments.of(self.actions), None)


def linear(states: np.ndarray) -> np.ndarray:
    return 250 + states @ np.array([[20.0, 1.0], [0.0, 8.0], [30.0, 0.0], [0.0, -5.0]])


def product(states: np.ndarray) -> np.ndarray:
    return np.stack([100 + 30 * states[:, 0] * states[:, 3], 5 * states[:, 0] ** 2], 1)


def fresh() -> JointModel:
    """A model that predicts "nothing moves"."""
    torch.manual_seed(0)
    return JointModel(StateHead(2, 3, 2, WIDTH // 2), Predictor(WIDTH, FRAMESKIP * 2, HISTORY, 16, 1))


def trained(world: World, split: int, **settings: Any) -> StateReadout:
    train, held_out = world.windows(range(split)), world.windows(range(split, world.episodes))
    return train_readout(fresh(), train, held_out, world.truth, NAMES, UNIT, frames=4000, **settings)


def test_reads_what_is_linear_in_the_state() -> None:
    world = World(60, linear)
    readout = trained(world, 40)
    tokens = world.table.unflatten(-1, (2, 2))
    torch.testing.assert_close(readout(tokens), torch.from_numpy(world.truth).float(), atol=0.05, rtol=0)
    assert readout.radii[0] < 0.05 and readout(tokens.reshape(5, -1, 1, 2, 2)).shape == (5, 300, 1, 2)
    assert not any(p.requires_grad for p in readout.parameters()) and not readout.training


def test_products_of_pairs_read_what_is_not_linear() -> None:
    world = World(60, product)
    plain, paired = trained(world, 40), trained(world, 40, products=True)
    assert len(paired.weight) == 4 + 10 and paired.radii[0] < 0.05 < 5 < plain.radii[0]


def test_radii_grow_with_the_horizon_of_a_model_that_drifts_away() -> None:
    radii = trained(World(60, linear), 40).radii
    assert radii.shape == (H + 1,) and (radii.diff() > 0).all()


def test_radii_cover_fresh_episodes_as_often_as_promised() -> None:
    world = World(600, linear, noise=2.0)
    train, held_out, new = (world.windows(range(*part)) for part in ((100,), (100, 350), (350, 600)))
    readout = train_readout(fresh(), train, held_out, world.truth, NAMES, UNIT, alpha=0.2, frames=4000)
    errors = readout_errors(readout, fresh(), new, world.truth, seed=1)
    assert errors.shape == (250, H + 1)
    covered = (errors <= readout.radii).double().mean(0)
    # Two samples of 250 around 0.8: a standard deviation of 0.036.
    assert (covered > 0.8 - 0.11).all() and (covered < 0.8 + 0.11).all()


def test_a_smaller_alpha_widens_the_radii() -> None:
    world = World(100, linear, noise=1.0)
    assert (trained(world, 50, alpha=0.05).radii >= trained(world, 50, alpha=0.4).radii).all()


def test_survives_a_number_that_never_changes() -> None:
    world = World(60, linear)
    world.table[:, 3] = 1.0
    assert torch.isfinite(trained(world, 40, products=True).radii).all()


def test_nan_is_read_as_nan() -> None:
    readout = trained(World(60, linear), 40)
    assert readout(torch.full((2, 2), torch.nan)).isnan().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": (0, 45)}, r"expected other episodes held out than trained on, came 5 in both, e.g. 40"),
        ({"alpha": 0.02}, "alpha 0.02 needs at least 49 held-out episodes, came 20"),
        ({"frames": 4}, "4 features need more frames, came 4"),
        ({"truth": np.zeros((7, 2))}, r"expected finite truth of the shape \(1500, 2\), came \(7, 2\)"),
        ({"truth": np.full((1500, 2), np.nan)}, "expected finite truth"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    world = World(60, linear)
    settings = {"split": (0, 40), "truth": world.truth, "frames": 4000} | change
    train, held_out = world.windows(range(*settings.pop("split"))), world.windows(range(40, 60))
    truth = settings.pop("truth")
    with pytest.raises(BadInputError, match=message):
        train_readout(fresh(), train, held_out, truth, NAMES, UNIT, **settings)


def test_tokens_of_another_model_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"expected 2 tokens of 2 numbers, came \(1, 4\)"):
        trained(World(60, linear), 40)(torch.zeros(3, 1, 4))


@pytest.fixture
def saved(world_model: WorldModel, tmp_path: Path) -> tuple[StateReadout, Path]:
    readout = StateReadout(NAMES, UNIT, 2, 4, True, 0.1, 5)
    generator = torch.Generator().manual_seed(0)
    for buffer in (readout.mean, readout.weight, readout.offset):
        buffer.copy_(torch.randn(buffer.shape, generator=generator))
    readout.radii.copy_(torch.linspace(1, 6, 6))
    path = tmp_path / "readout.safetensors"
    save_readout(readout, path, world_model, {"command": "test"})
    return readout, path


def test_comes_back_from_its_file(saved: tuple[StateReadout, Path], world_model: WorldModel) -> None:
    readout, path = saved
    back = load_readout(path, world_model)
    tokens: Tensor = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(back(tokens), readout(tokens)) and torch.equal(back.radii, readout.radii)
    assert (back.names, back.unit, back.alpha, back.horizon, back.products) == (NAMES, UNIT, 0.1, 5, True)
    header = load_tensors(path)[1]
    assert header["env"] == "toy" and header["settings"]["names"] == list(NAMES)
    assert header["provenance"] == {"command": "test"}


def test_the_read_out_of_another_model_is_refused(
    saved: tuple[StateReadout, Path], world_model: WorldModel, moving: Callable[[Predictor], Predictor]
) -> None:
    """The predictor counts as well: the radii are the error of what it imagines."""
    with torch.no_grad():
        world_model.joint.predictor.out.weight.mul_(1.5)
    with pytest.raises(MismatchError, match="read-out of another model: model fingerprint in .*readout.safetensors"):
        load_readout(saved[1], world_model)


def test_the_read_out_of_another_environment_is_refused(
    saved: tuple[StateReadout, Path], world_model: WorldModel
) -> None:
    world_model.spec = replace(world_model.spec, env=replace(world_model.spec.env, env="chips"))
    with pytest.raises(MismatchError, match="another environment: env in .*: expected chips, came toy"):
        load_readout(saved[1], world_model)


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({}, {"kind": "decoder"}, "expected a state read-out, came 'decoder'"),
        ({}, {"settings": {"names": ["a"]}}, r"expected a read-out with the settings .* came \['names'\]"),
        ({"radii": torch.zeros(3)}, {}, r"radii: expected \(6,\), came \(3,\)"),
        ({"radii": torch.arange(6.0).flip(0)}, {}, "expected radii >= 0 that never fall, came"),
        ({"radii": torch.full((6,), -1.0)}, {}, "expected radii >= 0 that never fall"),
        ({"radii": torch.full((6,), torch.nan)}, {}, "expected radii >= 0 that never fall"),
        ({"radii": torch.full((6,), torch.inf)}, {}, "expected radii >= 0 that never fall"),
    ],
)
def test_a_broken_file_is_refused(
    saved: tuple[StateReadout, Path], world_model: WorldModel, tensors: Any, header: Any, message: str
) -> None:
    path = saved[1]
    before, about = load_tensors(path)
    save_tensors(path, before | tensors, about | header)
    with pytest.raises(CheckpointError, match=message):
        load_readout(path, world_model)
