"""Small worlds and models that train in a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.datasets.windows import WindowIndex
from wm.encoders.tiny import TinyEncoder
from wm.joint import JointModel
from wm.logs import Log, LogWindows, Moments
from wm.model import WorldModel, build_model
from wm.predictor import Predictor
from wm.specs import ActionSpec, EnvSpec, ModelSpec, ProprioSpec
from wm.state_head import StateHead

GRID, WIDTH, FRAMESKIP, HISTORY = 4, 6, 2, 2


@pytest.fixture
def toy_env() -> EnvSpec:
    action = ActionSpec(("dx", "dy"), "100 px", (-1.0, -1.0), (1.0, 1.0), 10.0)
    return EnvSpec("toy", action, ProprioSpec(("x", "y", "vx", "vy"), ("px", "px", "px/s", "px/s")), ("a", "b"))


@pytest.fixture
def drifting_dot() -> Callable[..., LogWindows]:
    """Windows of a dot pushed about in the unit square, seen as `GRID` x `GRID` tokens (a soft picture of it)."""

    def make(horizon: int = 3, episodes: int = 20, steps: int = 30) -> LogWindows:
        rng = np.random.default_rng(0)
        places, actions = [], []
        for _ in range(episodes):
            place, push = rng.uniform(-0.7, 0.7, 2), rng.uniform(-1.0, 1.0, 2)
            places.append(place)
            for _ in range(steps):
                push = np.clip(0.8 * push + rng.normal(0.0, 0.4, 2), -1.0, 1.0)
                place = np.clip(place + 0.15 * push, -1.0, 1.0)
                places.append(place)
                actions.append(push)
        position = torch.tensor(np.array(places), dtype=torch.float32)
        axis = torch.linspace(-1.0, 1.0, GRID)
        centres = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
        bump = torch.exp(-2.0 * (position[:, None] - centres).square().sum(-1))  # (O, Ne)
        mix = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
        log = Log(bump[..., None] * mix, None, np.array(actions, np.float32))
        index = WindowIndex(np.full(episodes, steps), HISTORY, horizon, FRAMESKIP)
        return LogWindows(log, index, Moments.of(log.actions), None)

    return make


@pytest.fixture
def dot_model() -> Callable[[], JointModel]:
    """A joint model of `drifting_dot`, always the same one."""

    def make() -> JointModel:
        torch.manual_seed(0)
        head = StateHead(GRID, WIDTH, 1, 8)
        return JointModel(head, Predictor(8, FRAMESKIP * 2, HISTORY, 32, 1))

    return make


@pytest.fixture
def square_encoder() -> Callable[[], TinyEncoder]:
    """A small encoder for 24 px pictures, always the same one: a 2 x 2 grid of 8 numbers."""

    def make() -> TinyEncoder:
        torch.manual_seed(0)
        encoder = TinyEncoder(width=8)
        encoder.image_size, encoder.grid = 24, 2
        return encoder

    return make


@pytest.fixture
def pushed_square() -> Callable[..., LogWindows]:
    """Windows of a bright square that the actions push about, in 24 px pictures."""

    def make(proprio: bool = True, horizon: int = 2) -> LogWindows:
        rng, frames, actions, places = np.random.default_rng(0), [], [], []
        for _ in range(10):
            place, push = rng.uniform(4, 16, 2), rng.uniform(-2, 2, 2)
            for step in range(21):
                picture = np.full((24, 24, 3), 30, np.uint8)
                row, column = place.round().astype(int)
                picture[row : row + 5, column : column + 5] = (220, 120, 60)
                frames.append(picture)
                places.append(place)
                push = np.clip(0.8 * push + rng.normal(0, 0.7, 2), -2, 2)
                if step < 20:
                    actions.append(push)
                place = np.clip(place + push, 0, 18)
        moves, known = np.array(actions, np.float32), np.array(places, np.float32)
        index = WindowIndex(np.full(10, 20), HISTORY, horizon, FRAMESKIP)
        log = Log(np.stack(frames), known if proprio else None, moves)
        return LogWindows(log, index, Moments.of(moves), Moments.of(known) if proprio else None)

    return make


@pytest.fixture
def moving() -> Callable[[Predictor], Predictor]:
    """Gives a predictor a random last layer: a fresh one only copies the last state."""

    def fill(predictor: Predictor) -> Predictor:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            predictor.out.weight.copy_(0.1 * torch.randn(predictor.out.weight.shape, generator=generator))
        return predictor

    return fill


@pytest.fixture
def world_model(toy_env: EnvSpec, moving: Callable[[Predictor], Predictor]) -> WorldModel:
    torch.manual_seed(0)
    encoder = TinyEncoder(width=8)
    spec = ModelSpec(toy_env, encoder.spec(), frameskip=5, history=2, tokens=2, width=4, hidden=16, depth=1)
    actions = Moments(torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.25]))
    proprio = Moments(torch.tensor([250.0, 240.0, 1.0, -2.0]), torch.tensor([90.0, 80.0, 30.0, 40.0]))
    model = build_model(spec, encoder, actions, proprio)
    moving(model.joint.predictor)
    return model


@pytest.fixture
def frames() -> Callable[[int], Tensor]:
    """Pictures of random push-T scenes, ``(1, count, 96, 96, 3)`` uint8."""
    from wm.envs.pusht.draw import draw

    def make(count: int) -> Tensor:
        rng = np.random.default_rng(0)
        scenes = [np.append(rng.uniform(100, 400, 4), rng.uniform(-3, 3)) for _ in range(count)]
        return torch.from_numpy(np.stack([draw(scene) for scene in scenes]))[None]

    return make
