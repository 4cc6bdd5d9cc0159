from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.checkpoint import save_tensors
from wm.decoder import Decoder, load_decoder, model_fingerprint, save_decoder, train_decoder
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError, CheckpointError, MismatchError
from wm.fit import FitConfig
from wm.logs import Moments
from wm.model import WorldModel, build_model
from wm.specs import ActionSpec, EnvSpec, ModelSpec

SIZE, SIDE = 16, 6
LIGHT, DARK = (200, 210, 220), (20, 40, 120)
CONFIG = FitConfig(steps=300, batch=32, learning_rate=5e-3, warmup=10, log_every=50, checkpoint_every=150)


def scenes(count: int) -> tuple[Tensor, np.ndarray]:
    """A dark square somewhere on a light ground, and its place as state."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, SIZE - SIDE + 1, (count, 2))
    frames = np.full((count, SIZE, SIZE, 3), LIGHT, np.uint8)
    for frame, (row, column) in zip(frames, places, strict=True):
        frame[row : row + SIDE, column : column + SIDE] = DARK
    return torch.from_numpy(places).float().reshape(count, 2, 1) * 3 + 7, frames


def world_model(seed: int) -> WorldModel:
    torch.manual_seed(seed)
    encoder = TinyEncoder(width=8)
    env = EnvSpec("toy", ActionSpec(("dx",), "px", (-1.0,), (1.0,), 10.0), None, ("x",))
    spec = ModelSpec(env, encoder.spec(), frameskip=2, history=2, tokens=2, width=4, hidden=8, depth=1)
    return build_model(spec, encoder, Moments(torch.zeros(1), torch.ones(1)), None)


def test_it_shows_where_things_are(tmp_path: Path) -> None:
    states, frames = scenes(700)
    decoder = train_decoder(states, frames, CONFIG, tmp_path, rows=np.arange(600))
    shown, wanted = decoder.pictures(states[600:]).astype(float), frames[600:].astype(float)
    background = np.median(frames, axis=0)
    assert np.square(shown - wanted).mean() < 0.2 * np.square(background - wanted).mean()
    darkness = np.square(shown - LIGHT).sum(-1)
    rows = (darkness.sum(2) * np.arange(SIZE)).sum(1) / darkness.sum((1, 2))
    places = (states[600:, 0, 0].numpy() - 7) / 3 + (SIDE - 1) / 2
    assert np.abs(rows - places).mean() < 1.0


def test_same_seed_same_weights_also_when_resumed(tmp_path: Path) -> None:
    states, frames = scenes(50)
    config = FitConfig(steps=6, batch=8, warmup=2, checkpoint_every=3)
    torch.manual_seed(1)
    first = train_decoder(states, frames, config, tmp_path / "a")
    torch.manual_seed(2)
    second = train_decoder(states, frames, config, tmp_path / "b")
    again = train_decoder(states, frames, config, tmp_path / "b")  # nothing is left to do
    for key, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[key], rtol=0, atol=0)
        torch.testing.assert_close(value, again.state_dict()[key], rtol=0, atol=0)


def test_background_is_the_median_frame(tmp_path: Path) -> None:
    states, frames = scenes(200)
    decoder = train_decoder(states, frames, FitConfig(steps=1, batch=4), tmp_path)
    assert (decoder.background[0] * 255).round().tolist() == list(LIGHT)


def test_numbers_that_never_vary_are_not_blown_up(tmp_path: Path) -> None:
    states, frames = scenes(50)
    states = torch.cat([states, torch.ones(50, 1, 1)], dim=1)
    decoder = train_decoder(states, frames, FitConfig(steps=1, batch=4), tmp_path)
    assert decoder.moments[1, 2] == 1
    assert (decoder.moments[1, :2] > 1).all()


@pytest.mark.parametrize("size", [16, 50, 96])
def test_pictures_are_uint8_of_the_given_size(size: int) -> None:
    pictures = Decoder(2, 4, size).pictures(torch.randn(3, 2, 4) * 100)
    assert pictures.shape == (3, size, size, 3)
    assert pictures.dtype == np.uint8


def test_the_full_size_stays_small() -> None:
    assert 4 * sum(p.numel() for p in Decoder(1, 64).parameters()) < 300_000


def test_a_frame_without_foreground_is_trained_on_as_well(tmp_path: Path) -> None:
    states, frames = scenes(50)
    frames[7] = frames[49] = LIGHT
    train_decoder(states, frames, FitConfig(steps=3, batch=50), tmp_path)
    empty = np.full_like(frames, 80)
    shown = train_decoder(states, empty, FitConfig(steps=3, batch=4), tmp_path / "empty").pictures(states[:2])
    np.testing.assert_allclose(shown, 80, atol=8)


def test_colours_of_some_pixels_are_those_of_the_whole_picture() -> None:
    decoder, states = Decoder(2, 4, 12).eval(), torch.randn(2, 2, 4)
    torch.nn.init.normal_(decoder.colour[-1].weight, std=0.3)
    pixels = torch.tensor([[0, 143, 30], [12, 13, 1]])
    some = (decoder(states, pixels).clamp(0, 1) * 255).round().byte().numpy()
    whole = decoder.pictures(states).reshape(2, 144, 3)
    np.testing.assert_array_equal(some, np.take_along_axis(whole, pixels.numpy()[..., None], axis=1))
    assert whole.std() > 1


def test_states_and_frames_must_agree(tmp_path: Path) -> None:
    states, frames = scenes(10)
    with pytest.raises(BadInputError, match="expected 10 square frames"):
        train_decoder(states, frames[:, :, :8], CONFIG, tmp_path)


def test_file_round_trip(tmp_path: Path) -> None:
    model, decoder, path = world_model(0), Decoder(2, 4, 32).eval(), tmp_path / "decoder.safetensors"
    save_decoder(decoder, path, model_fingerprint(model), {"command": "test"})
    loaded, states = load_decoder(path, model_fingerprint(model)), torch.randn(2, 2, 4)
    np.testing.assert_array_equal(loaded.pictures(states), decoder.pictures(states))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_decoder_of_another_model_is_refused(tmp_path: Path) -> None:
    mine, other = model_fingerprint(world_model(0)), model_fingerprint(world_model(1))
    assert mine != other
    save_decoder(Decoder(2, 4), tmp_path / "d.safetensors", mine, {})
    with pytest.raises(MismatchError, match=f"decoder of another model: .*expected {other}, came {mine}"):
        load_decoder(tmp_path / "d.safetensors", other)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is none"):
        load_decoder(tmp_path / "none.safetensors", "")
    save_tensors(tmp_path / "e.safetensors", {"x": torch.zeros(1)}, {"kind": "encoder"})
    with pytest.raises(CheckpointError, match=re.escape("expected a decoder, came 'encoder'")):
        load_decoder(tmp_path / "e.safetensors", "")


def test_sizes_of_another_version_are_refused(tmp_path: Path) -> None:
    header = {"kind": "decoder", "model": "m", "sizes": {"tokens": 2, "width": 4}, "provenance": {}}
    save_tensors(tmp_path / "d.safetensors", {"x": torch.zeros(1)}, header)
    with pytest.raises(
        CheckpointError, match=r"expected a decoder with the sizes .*'frames'.*came \['tokens', 'width'\]"
    ):
        load_decoder(tmp_path / "d.safetensors", "m")
