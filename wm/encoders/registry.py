"""Encoders by name: our own and their files, and public ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from wm.checkpoint import load_tensors, load_weights, save_tensors
from wm.encoders.base import Encoder
from wm.encoders.efficientnet_lite import NAME as EFFICIENTNET_LITE
from wm.encoders.efficientnet_lite import load_efficientnet_lite
from wm.encoders.hub import locate, weight_files
from wm.encoders.pixels import PixelEncoder
from wm.encoders.pooled import PooledPixelEncoder, PooledTinyEncoder
from wm.encoders.preprocessing import read_preprocessing
from wm.encoders.public import PublicEncoder, load_network, picture_encoder
from wm.encoders.reduced import ReducedEncoder
from wm.encoders.tiny import TinyEncoder, TinyFineEncoder
from wm.encoders.vjepa2 import vjepa2_encoder
from wm.errors import CheckpointError, UnknownNameError
from wm.specs import EncoderSpec, require_equal

ENCODERS: dict[str, Callable[[int], Encoder]] = {"wm-tiny": TinyEncoder, "wm-tiny-fine": TinyFineEncoder}
"""Our own encoders: name to a constructor that takes the token width."""

CONTROLS: dict[str, Callable[[int], Encoder]] = {
    control.name: control for control in (PixelEncoder, PooledTinyEncoder, PooledPixelEncoder)
}
"""What studies compare encoders with: their files and models are loaded as ours, but none is there to be trained."""

FAMILIES: dict[str, Callable[..., PublicEncoder]] = {
    "dinov2": picture_encoder,
    "dinov2_with_registers": picture_encoder,
    "dinov3_vit": picture_encoder,
    "dinov3_convnext": picture_encoder,
    "ijepa": picture_encoder,
    "vjepa2": vjepa2_encoder,
}
"""Public ones: `model_type` in a checkpoint's `config.json` to what wraps its network."""

_BF16 = ":bf16"


def build_encoder(name: str, width: int) -> Encoder:
    """A freshly initialised encoder.

    Raises:
        UnknownNameError: no encoder of that name.
    """
    if name not in ENCODERS:
        raise UnknownNameError("encoder", name, ENCODERS)
    return ENCODERS[name](width)


def _own(name: str, width: int) -> Encoder:
    return CONTROLS[name](width) if name in CONTROLS else build_encoder(name, width)


def save_encoder(encoder: Encoder, path: Path, provenance: dict[str, object]) -> None:
    """Write an encoder's weights and spec."""
    save_tensors(path, dict(encoder.state_dict()), {"kind": "encoder", "spec": encoder.spec().to_json()} | provenance)


def load_encoder(path: Path) -> Encoder:
    """An encoder that `save_encoder` wrote, frozen.

    Raises:
        CheckpointError: missing, truncated, not an encoder, or misshapen.
        MismatchError: the weights are not those that its specification was written for.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != "encoder":
        raise CheckpointError(f"{path}: expected an encoder, came '{header.get('kind')}'.")
    spec = EncoderSpec.from_json(header["spec"])
    encoder = _own(spec.name, spec.width)
    load_weights(encoder, tensors, path)
    require_equal("encoder specification", spec, encoder.spec(), path)
    encoder.requires_grad_(False)
    return encoder.eval()


def load_public(
    name: str, image_size: int | None = None, *, near: Path | None = None, download: bool = True
) -> PublicEncoder:
    """A public encoder, frozen.

    Args:
        name: A folder with a checkpoint, ``owner/name`` on the Hub, a short name (`wm.encoders.hub.NAMES`) or
            ``efficientnet-lite0``; with ``:bf16`` behind it, the network runs in bfloat16.
        image_size: Side of the pictures that it is used with, pixels; the checkpoint's own when None.
        near: As in `wm.encoders.hub.locate`.
        download: As in `wm.encoders.hub.locate`.

    Raises:
        CheckpointError: nothing local and nothing to be had; or an unreadable, incomplete or unsuitable checkpoint.
        UnknownNameError: no such name, or a checkpoint of another family.
    """
    plain, suffix = name.removesuffix(_BF16), _BF16 if name.endswith(_BF16) else ""
    dtype = torch.bfloat16 if suffix else torch.float32
    if plain == EFFICIENTNET_LITE:
        return load_efficientnet_lite(name, image_size, dtype)
    folder, found = locate(plain, near, download)
    preprocessing = read_preprocessing(folder)
    family = _family(folder)
    network = load_network(folder, plain, dtype)
    return FAMILIES[family](found + suffix, network, preprocessing, image_size, weight_files(folder))


def _family(folder: Path) -> str:
    path = folder / "config.json"
    try:
        family = str(json.loads(path.read_text())["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a checkpoint's configuration, it cannot be read ({error}).") from error
    if family not in FAMILIES:
        raise UnknownNameError(f"family of encoders in {path}", family, FAMILIES)
    return family


def blank_encoder(spec: EncoderSpec, near: Path | None = None) -> Encoder:
    """What the tensors of a saved model are put in: our own encoder, or the public one that it refers to.

    Args:
        spec: The model's.
        near: Folder of the model. A public encoder is looked for there too, and is never downloaded for a model.

    Raises:
        CheckpointError: the public encoder is not on this machine.
        UnknownNameError: no such encoder.
    """
    if spec.name in ENCODERS or spec.name in CONTROLS:
        return _own(spec.name, spec.width)
    base = load_public(spec.name, spec.image_size, near=near, download=False)
    if (spec.grid, spec.width) == (base.grid, base.width):
        return base
    return ReducedEncoder(base, spec.grid, spec.width)
