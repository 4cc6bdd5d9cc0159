"""Public encoders give the tokens of the reference implementation, whatever the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tests.checkpoints import FAMILIES, PREPROCESSORS, SIDE, pictures, write_checkpoint
from wm.encoders.efficientnet_lite import load_efficientnet_lite
from wm.encoders.public import PublicEncoder
from wm.encoders.reduced import coarser, fit_reduction
from wm.encoders.registry import load_public
from wm.encoders.vjepa2 import VJepa2Encoder
from wm.errors import BadInputError, CheckpointError, UnknownNameError

SIZES = [(96, 96), (48, 64), (53, 37)]
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("checkpoints")

    def of(family: str) -> Path:
        path = folder / family
        return path if path.is_dir() else write_checkpoint(path, family)

    return of


def reference_pixels(folder: Path, family: str, frames: Tensor) -> Tensor:
    """By the reference's own processor; by Pillow on floating-point numbers where that one needs torchvision."""
    images = [Image.fromarray(frame.numpy()) for frame in frames]
    if family.startswith("dinov2"):
        return BitImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")["pixel_values"]
    if family == "ijepa":
        return ViTImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")["pixel_values"]
    h, w = frames.shape[1:3]
    side = SIDE if family != "vjepa2" else int(SIDE * 256 / 224)
    shape = (side, side) if family != "vjepa2" else (int(side * h / min(h, w)), int(side * w / min(h, w)))
    planes = frames.permute(0, 3, 1, 2).float().flatten(0, 1) / 255
    resized = [np.asarray(Image.fromarray(p.numpy()).resize(shape[::-1], Image.Resampling.BILINEAR)) for p in planes]
    pixels = torch.from_numpy(np.stack(resized)).unflatten(0, (-1, 3))
    top, left = (shape[0] - SIDE) // 2, (shape[1] - SIDE) // 2
    mean, std = (torch.tensor(PREPROCESSORS[family][key])[:, None, None] for key in ("image_mean", "image_std"))
    return (pixels[..., top : top + SIDE, left : left + SIDE] - mean) / std


def reference_tokens(folder: Path, family: str, pixels: Tensor) -> Tensor:
    network = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        if family == "vjepa2":
            return network(pixels[:, None].repeat(1, 2, 1, 1, 1), skip_predictor=True).last_hidden_state
        first = {"dinov2": 1, "dinov2_with_registers": 4, "dinov3_vit": 3, "dinov3_convnext": 1, "ijepa": 0}[family]
        return network(pixels).last_hidden_state[:, first:]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tokens_are_the_references(made: Made, family: str, height: int, width: int) -> None:
    encoder, frames = load_public(str(made(family)), 96), pictures(height, width)
    tokens, pixels = encoder.encode(frames), encoder.pixels(frames[0])
    wanted = reference_pixels(made(family), family, frames[0])
    if family == "vjepa2":  # the reference's operator rounds to bytes, which is up to half a grey level
        assert (pixels - wanted).abs().max() < 1.01 / 255 / 0.224
        wanted = pixels
    torch.testing.assert_close(pixels, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens[0], reference_tokens(made(family), family, wanted), rtol=0, atol=1e-5)
    grid = 2 if family == "dinov3_convnext" else 4
    spec = encoder.spec()
    assert tokens.shape == (1, 2, grid**2, spec.width) and spec.grid == grid and spec.image_size == 96
    assert tokens.dtype == torch.float32 and tokens.std() > 0.1 and not tokens.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_near_and_another_encoder(made: Made, family: str) -> None:
    folder, frames = str(made(family)), pictures(53, 37)
    whole, half = load_public(folder, 96), load_public(f"{folder}:bf16", 96)
    first, second = whole.encode(frames), half.encode(frames)
    assert second.dtype == torch.float32 and half.network.dtype == torch.bfloat16
    assert 0 < (first - second).norm() < 0.05 * first.norm()
    assert half.spec().fingerprint != whole.spec().fingerprint and half.spec().name == whole.spec().name + ":bf16"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frame_does_not_depend_on_its_batch(made: Made, family: str) -> None:
    encoder, frames = load_public(str(made(family))), pictures(48, 64, 35)
    together = encoder.encode(frames)
    torch.testing.assert_close(encoder.encode(frames[:, 33:34])[0, 0], together[0, 33], rtol=0, atol=1e-5)


def test_tokens_are_row_by_row(made: Made) -> None:
    encoder, frames = (
        load_public(str(made("dinov3_convnext"))),
        torch.full((1, 1, SIDE, SIDE, 3), 128, dtype=torch.uint8),
    )
    changed = frames.clone()
    changed[:, :, : SIDE // 2, SIDE // 2 :] = 255
    difference = (encoder.encode(changed) - encoder.encode(frames)).norm(dim=-1)[0, 0]
    assert int(difference.argmax()) == 1


def test_a_clip_has_half_as_many_steps_and_is_the_references(made: Made) -> None:
    encoder, frames = load_public(str(made("vjepa2"))), pictures(40, 56, 6)
    assert isinstance(encoder, VJepa2Encoder)
    steps = encoder.encode_clips(frames)
    network = transformers.AutoModel.from_pretrained(made("vjepa2")).eval()
    with torch.inference_mode():
        wanted = network(encoder.pixels(frames[0])[None], skip_predictor=True).last_hidden_state
    assert steps.shape == (1, 3, 16, 24)
    torch.testing.assert_close(steps.flatten(1, 2), wanted, rtol=0, atol=1e-5)
    still = frames[:, :1].expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(encoder.encode_clips(still), encoder.encode(frames[:, :1]), rtol=0, atol=1e-5)
    with pytest.raises(BadInputError, match="expected a multiple of 2 frames in a clip, came 5"):
        encoder.encode_clips(frames[:, :5])


def test_the_fingerprint_follows_weights_and_preprocessing(made: Made, tmp_path: Path) -> None:
    found = {load_public(str(made("ijepa"))).spec().fingerprint}
    found.add(load_public(str(write_checkpoint(tmp_path / "a", "ijepa", seed=1))).spec().fingerprint)
    folder = write_checkpoint(tmp_path / "b", "ijepa")
    assert load_public(str(folder)).spec().fingerprint in found
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS["ijepa"] | {"resample": 3}))
    found.add(load_public(str(folder)).spec().fingerprint)
    assert len(found) == 3


@pytest.mark.parametrize("channels", [1, 4])
def test_frames_of_another_channel_count_are_refused(made: Made, channels: int) -> None:
    frames = torch.zeros(1, 2, 40, 40, channels, dtype=torch.uint8)
    for family in ("dinov2", "vjepa2"):
        encoder: Any = load_public(str(made(family)))
        with pytest.raises(BadInputError, match=rf"expected RGB frames \(3 channels\), came {channels} channels"):
            encoder.encode(frames)
    with pytest.raises(BadInputError, match="expected RGB frames"):
        encoder.encode_clips(frames)


def test_a_public_encoder_is_not_trained(made: Made) -> None:
    encoder = load_public(str(made("ijepa")))
    assert not list(encoder.parameters()) and not any(p.requires_grad for p in encoder.network.parameters())
    with pytest.raises(BadInputError, match="expected one of our own to train"):
        encoder(torch.zeros(1, 3, SIDE, SIDE))


def broken(folder: Path, how: str) -> Path:
    weights, preprocessing = folder / "model.safetensors", folder / "preprocessor_config.json"
    config = json.loads((folder / "config.json").read_text())
    if how == "weights missing":
        save_file({k: v for k, v in load_file(weights).items() if "layernorm" not in k}, weights, {"format": "pt"})
    elif how == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "other shapes":
        (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    elif how == "no configuration":
        (folder / "config.json").write_text("{")
    elif how == "other family":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    elif how == "pickled":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "no preprocessing":
        preprocessing.unlink()
    elif how == "broken preprocessing":
        preprocessing.write_text('{"image_processor_type": "BitImageProcessor"}')
    elif how == "another processor":
        preprocessing.write_text('{"image_processor_type": "CLIPImageProcessor"}')
    elif how == "other pictures":
        odd = {"height": 30, "width": 30}
        preprocessing.write_text(json.dumps(PREPROCESSORS["dinov2"] | {"crop_size": odd}))
    elif how == "nearest":
        preprocessing.write_text(json.dumps(PREPROCESSORS["dinov2"] | {"resample": 0}))
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("weights missing", r"lacks the weights layernorm.bias, layernorm.weight \(2 in all\)"),
        ("weights cut off", "cannot be read .*SafetensorError"),
        ("other shapes", "cannot be read"),
        ("no configuration", "config.json: expected a checkpoint's configuration"),
        ("other family", "unknown family of encoders in .*'clip'.*Known: dinov2, "),
        ("pickled", "lacks model.safetensors"),
        ("no preprocessing", "lacks preprocessor_config.json"),
        ("broken preprocessing", "preprocessor_config.json: expected the preprocessing of pictures, .*resample"),
        ("another processor", "expected a processor of Bit, ViT, .*came 'CLIPImageProcessor'"),
        ("other pictures", "expected pictures of a multiple of 8 px, its preprocessing makes 30 px"),
        ("nearest", r"expected resize \(bilinear or bicubic\)"),
    ],
)
def test_a_broken_checkpoint_is_refused(tmp_path: Path, how: str, message: str) -> None:
    folder = broken(write_checkpoint(tmp_path / "dinov2", "dinov2"), how)
    with pytest.raises((CheckpointError, UnknownNameError), match=message):
        load_public(str(folder))


def test_a_network_of_other_channels_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "grey", "dinov2", num_channels=1)
    with pytest.raises(CheckpointError, match="expected a network of 3 colour channels, came 1"):
        load_public(str(folder))


def test_efficientnet_lite_is_the_packages_network() -> None:
    encoder, frames = load_public("efficientnet-lite0", 96), pictures(96, 96)
    kept: list[Tensor] = []
    encoder.network._blocks[10].register_forward_hook(lambda module, inputs, output: kept.append(output))
    tokens = encoder.encode(frames)
    with torch.inference_mode():
        encoder.network.extract_features(encoder.pixels(frames[0]))
    torch.testing.assert_close(tokens[0], kept[1].flatten(2).transpose(1, 2), rtol=0, atol=1e-5)
    assert tokens.shape == (1, 2, 196, 112) and encoder.spec().image_size == 96
    images = [Image.fromarray(f.numpy()).resize((256, 256), Image.Resampling.BICUBIC) for f in frames[0]]
    wanted = torch.from_numpy(np.stack([np.asarray(image)[16:240, 16:240] for image in images])).permute(0, 3, 1, 2)
    torch.testing.assert_close(encoder.pixels(frames[0]), (wanted.float() - 127) / 128, rtol=0, atol=1e-5)
    half = load_public("efficientnet-lite0:bf16", 96).encode(pictures(53, 37))
    whole = encoder.encode(pictures(53, 37))
    assert 0 < (half - whole).norm() < 0.1 * whole.norm()


def test_broken_efficientnet_weights_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    for content in ({"_fc.bias": torch.zeros(3)}, Path("x")):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(CheckpointError, match=r"weights\.pth cannot be read"):
            load_efficientnet_lite("efficientnet-lite0", None, torch.float32, tmp_path / "weights.pth")


def test_a_reduction_keeps_the_variance_it_can(made: Made) -> None:
    base, frames = load_public(str(made("dinov2")), 96), pictures(64, 64, 12)[0]
    reduced = fit_reduction(base, frames, grid=2, width=6)
    tokens = reduced.encode(frames[None])[0]
    assert tokens.shape == (12, 4, 6) and (reduced.spec().grid, reduced.spec().width) == (2, 6)
    quarter = base.encode(frames[None])[0].unflatten(1, (4, 4))[:, :2, 2:].flatten(1, 2).mean(1)
    torch.testing.assert_close(tokens[:, 1], (quarter - reduced.centre) @ reduced.axes, rtol=0, atol=1e-5)
    rows = tokens.flatten(0, 1).double()
    covariance = rows.T @ rows / len(rows)
    values = np.linalg.eigvalsh(np.cov(reduced.pooled(base.encode(frames[None])[0]).flatten(0, 1).T, bias=True))[::-1]
    torch.testing.assert_close(covariance.diagonal(), torch.from_numpy(values[:6].copy()), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(reduced.axes.T @ reduced.axes, torch.eye(6), rtol=0, atol=1e-5)
    assert reduced.spec().name == base.spec().name and reduced.spec().fingerprint != base.spec().fingerprint
    assert set(reduced.state_dict()) == {"centre", "axes"}
    with pytest.raises(BadInputError, match="expected 16 or more finite tokens, came 4"):
        fit_reduction(base, frames[:1], grid=2, width=16)


@pytest.mark.parametrize(("grid", "expected"), [(2, 2), (8, 8), (14, 7), (16, 8), (24, 8), (37, 8), (18, 6)])
def test_coarser_grids_divide_the_finer_where_they_can(grid: int, expected: int) -> None:
    assert coarser(grid, 8) == expected


def test_the_base_class_is_no_encoder(made: Made) -> None:
    encoder = load_public(str(made("ijepa")))
    preprocessing = replace(encoder.preprocessing, crop=None)
    plain = PublicEncoder("x", encoder.network, preprocessing, None, 4, 16, [])
    with pytest.raises(TypeError, match="PublicEncoder is abstract"):
        plain.encode(pictures(32, 32))
