"""Raw pixels and mean tokens: encoders that others are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from wm.checkpoint import load_weights
from wm.encoders.base import Encoder
from wm.encoders.pixels import PixelEncoder
from wm.encoders.pooled import PooledPixelEncoder, PooledTinyEncoder
from wm.encoders.registry import CONTROLS, blank_encoder, build_encoder, load_encoder, save_encoder
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError, UnknownNameError


@pytest.fixture
def frames() -> Tensor:
    return torch.randint(0, 256, (2, 3, 96, 96, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_a_patchs_token_is_its_pixels_averaged_down(frames: Tensor) -> None:
    encoder = PixelEncoder()
    tokens = encoder.encode(frames)
    assert tokens.shape == (2, 3, 64, 48) and encoder.spec().grid == 8
    small = (frames.float() / 127.5 - 1).unflatten(3, (32, 3)).unflatten(2, (32, 3)).mean((3, 5))  # (2, 3, 32, 32, 3)
    row, column = 2, 5
    patch = small[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(2)
    token = tokens[:, :, 8 * row + column]
    assert torch.allclose(token.sort(dim=-1).values, patch.sort(dim=-1).values, atol=1e-5)


def test_pixels_have_one_width() -> None:
    with pytest.raises(BadInputError, match="'pixels': expected 48 numbers per token, came 64"):
        PixelEncoder(64)


@pytest.mark.parametrize(("whole", "pooled"), [(TinyEncoder, PooledTinyEncoder), (PixelEncoder, PooledPixelEncoder)])
def test_the_pooled_token_is_the_mean_one(whole: type[Encoder], pooled: type[Encoder], frames: Tensor) -> None:
    torch.manual_seed(0)
    encoder, mean = whole(48), pooled(48)
    load_weights(mean, dict(encoder.state_dict()), "the whole one")
    assert mean.spec().grid == 1 and mean.spec().name != encoder.spec().name
    assert mean.spec().fingerprint != encoder.spec().fingerprint  # or one's cached tokens were taken for the other's
    expected = encoder.encode(frames).mean(2, keepdim=True)
    assert torch.allclose(mean.encode(frames), expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_a_file_gives_the_same_encoder_and_none_is_there_to_be_trained(
    name: str, frames: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    encoder, path = CONTROLS[name](48), tmp_path / "encoder.safetensors"
    save_encoder(encoder, path, {})
    loaded = load_encoder(path)
    assert loaded.spec() == encoder.spec() and torch.equal(loaded.encode(frames), encoder.encode(frames))
    assert type(blank_encoder(encoder.spec())) is type(encoder)
    with pytest.raises(UnknownNameError, match=f"unknown encoder '{name}'"):
        build_encoder(name, 48)
