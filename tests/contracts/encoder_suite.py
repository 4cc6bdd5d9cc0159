"""What every encoder promises. Derive, and parametrise with `name`, a key of `wm.encoders.registry.ENCODERS`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wm.checkpoint import load_tensors, save_tensors
from wm.encoders.base import Encoder, fingerprint, normalise
from wm.encoders.registry import build_encoder, load_encoder, save_encoder
from wm.errors import BadInputError, CheckpointError, MismatchError

WIDTH = 8


def build(name: str) -> Encoder:
    """The same small encoder every time."""
    torch.manual_seed(0)
    return build_encoder(name, WIDTH)


def pictures(encoder: Encoder, b: int = 2, t: int = 3) -> Tensor:
    """Noise, ``(b, t, size, size, 3)`` uint8."""
    size = encoder.image_size
    return torch.randint(0, 256, (b, t, size, size, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


class EncoderContract:
    """Derive, and give every test a `name`."""

    def test_tokens_are_as_the_spec_says(self, name: str) -> None:
        encoder = build(name)
        spec, tokens = encoder.spec(), encoder.encode(pictures(encoder))
        assert tokens.shape == (2, 3, spec.grid**2, spec.width) and spec.width == WIDTH and spec.name == name
        assert tokens.dtype == torch.float32 and bool(torch.isfinite(tokens).all()) and tokens.std() > 1e-3
        assert not tokens.requires_grad

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 40), (64, 32)])
    def test_another_picture_size_is_refused_with_both(self, name: str, height: int, width: int) -> None:
        encoder, size = build(name), build(name).image_size
        with pytest.raises(BadInputError, match=f"'{name}' expects {size}x{size} pixels, came {width}x{height}"):
            encoder.encode(torch.zeros(1, 1, height, width, 3, dtype=torch.uint8))

    def test_is_deterministic(self, name: str) -> None:
        encoder = build(name)
        frames = pictures(encoder)
        first = encoder.encode(frames)
        assert torch.equal(first, encoder.encode(frames)) and torch.equal(first, build(name).encode(frames))

    def test_a_frame_does_not_depend_on_its_batch(self, name: str) -> None:
        encoder = build(name).train()  # encoding is inference, whatever mode training left
        frames = pictures(encoder)
        together = encoder.encode(frames)
        for b in range(2):
            for t in range(3):
                alone = encoder.encode(frames[b : b + 1, t : t + 1])[0, 0]
                assert (alone - together[b, t]).abs().max() < 1e-5

    def test_encoding_leaves_the_weights_alone(self, name: str) -> None:
        encoder = build(name)
        before = encoder.spec()
        encoder.encode(pictures(encoder))
        assert encoder.spec() == before

    def test_tokens_see_their_own_part_of_the_picture(self, name: str) -> None:
        """Row by row from the top left: a change in one corner matters most to that corner's tokens."""
        encoder = build(name)
        frames = torch.full((1, 1, encoder.image_size, encoder.image_size, 3), 128, dtype=torch.uint8)
        patch = encoder.image_size // encoder.grid
        for row, column in [(0, 0), (0, encoder.grid - 1), (encoder.grid - 1, 0)]:
            changed = frames.clone()
            changed[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 255
            difference = (encoder.encode(changed) - encoder.encode(frames)).norm(dim=-1)[0, 0]
            found = divmod(int(difference.argmax()), encoder.grid)
            assert abs(found[0] - row) <= 1 and abs(found[1] - column) <= 1

    def test_fingerprint_follows_the_weights(self, name: str) -> None:
        encoder, same = build(name), build(name)
        assert encoder.spec() == same.spec() and len(fingerprint(encoder)) == 16
        prints = {fingerprint(encoder)}
        for tensor in [*same.parameters(), *same.buffers()]:
            with torch.no_grad():
                tensor.view(-1)[0] += 1
            prints.add(fingerprint(same))
        assert len(prints) == 1 + len(list(same.state_dict()))
        assert replace(same.spec(), fingerprint="") == replace(encoder.spec(), fingerprint="")

    def test_file_gives_the_same_frozen_encoder(self, name: str, tmp_path: Path) -> None:
        encoder, path = build(name), tmp_path / "encoder.safetensors"
        frames = pictures(encoder)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter += 0.01
        save_encoder(encoder, path, {"seed": 1})
        loaded = load_encoder(path)
        assert loaded.spec() == encoder.spec() and torch.equal(loaded.encode(frames), encoder.encode(frames))
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
        assert load_tensors(path)[1]["seed"] == 1

    def test_another_file_is_refused(self, name: str, tmp_path: Path) -> None:
        encoder, path = build(name), tmp_path / "encoder.safetensors"
        save_tensors(path, dict(encoder.state_dict()), {"kind": "world-model"})
        with pytest.raises(CheckpointError, match="expected an encoder, came 'world-model'"):
            load_encoder(path)
        spec = encoder.spec().to_json()
        save_tensors(path, {"weight": torch.zeros(1)}, {"kind": "encoder", "spec": spec})
        with pytest.raises(CheckpointError, match=r"missing \[.*\], unknown \['weight'\]"):
            load_encoder(path)
        save_tensors(path, dict(encoder.state_dict()), {"kind": "encoder", "spec": spec | {"fingerprint": "0" * 16}})
        with pytest.raises(MismatchError, match="encoder specification in .*0000000000000000"):
            load_encoder(path)

    def test_normalised_pixels_span_minus_one_to_one(self, name: str) -> None:
        frames = pictures(build(name), 1, 2)[0]
        pixels = normalise(frames)
        assert pixels.shape == (2, 3, *frames.shape[1:3]) and pixels.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(pixels[1, 2, 5, 7], frames[1, 5, 7, 2] / 127.5 - 1)
        assert float(normalise(torch.zeros_like(frames)).max()) == -1
        assert float(normalise(torch.full_like(frames, 255)).min()) == 1
