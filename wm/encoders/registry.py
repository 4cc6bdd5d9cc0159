"""Encoders by name, and their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wm.checkpoint import load_tensors, load_weights, save_tensors
from wm.encoders.base import Encoder
from wm.encoders.tiny import TinyEncoder
from wm.errors import CheckpointError, UnknownNameError
from wm.specs import EncoderSpec, require_equal

ENCODERS: dict[str, Callable[[int], Encoder]] = {"wm-tiny": TinyEncoder}
"""Name to a constructor that takes the token width."""


def build_encoder(name: str, width: int) -> Encoder:
    """A freshly initialised encoder.

    Raises:
        UnknownNameError: no encoder of that name.
    """
    if name not in ENCODERS:
        raise UnknownNameError("encoder", name, ENCODERS)
    return ENCODERS[name](width)


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
    encoder = build_encoder(spec.name, spec.width)
    load_weights(encoder, tensors, path)
    require_equal("encoder specification", spec, encoder.spec(), path)
    encoder.requires_grad_(False)
    return encoder.eval()
