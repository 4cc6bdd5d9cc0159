"""Pictures of a field of patch tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wm.decoder import load_decoder, save_decoder
from wm.errors import BadInputError
from wm.fit import FitConfig
from wm.patch_decoder import PatchDecoder, train_patch_decoder

CONFIG = FitConfig(steps=150, batch=16, learning_rate=3e-3, warmup=10)


def _log(count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Fields of 4 × 4 cells with one number, and 16 px pictures in which a full cell is red, an empty one white."""
    full = torch.rand(count, 16, 1, generator=torch.Generator().manual_seed(0)).round()
    cells = full.reshape(count, 4, 4).numpy().repeat(4, 1).repeat(4, 2)[..., None]
    return full, (255 - cells * np.array([0, 255, 255])).astype(np.uint8)


def test_it_learns_what_fields_look_like(tmp_path: Path):
    states, frames = _log(200)
    decoder = train_patch_decoder(states, frames, CONFIG, tmp_path)
    error = np.abs(decoder.pictures(states[:20]).astype(float) - frames[:20]).mean()
    assert error < 12


def test_it_is_saved_and_loaded_as_what_it_is(tmp_path: Path):
    decoder, path = PatchDecoder(16, 2, 32, hidden=8), tmp_path / "decoder.safetensors"
    save_decoder(decoder, path, "m", {"command": "test"})
    again = load_decoder(path, "m")
    states = torch.randn(3, 16, 2)
    assert isinstance(again, PatchDecoder) and np.array_equal(again.pictures(states), decoder.pictures(states))


@pytest.mark.parametrize(("tokens", "size"), [(15, 32), (16, 30)])
def test_sizes_that_do_not_fit_are_refused(tokens: int, size: int):
    with pytest.raises(BadInputError, match="square grid"):
        PatchDecoder(tokens, 1, size)


def test_frames_that_are_not_the_states_are_refused(tmp_path: Path):
    states, frames = _log(10)
    with pytest.raises(BadInputError, match="10 square frames"):
        train_patch_decoder(states, frames[:, :8], CONFIG, tmp_path)
