"""Every encoder keeps the contract."""

from __future__ import annotations

import pytest
import torch

from tests.contracts.encoder_suite import EncoderContract
from wm.encoders.base import Encoder
from wm.encoders.registry import ENCODERS, build_encoder
from wm.errors import UnknownNameError


@pytest.mark.parametrize("name", sorted(ENCODERS))
class TestEveryEncoder(EncoderContract):
    pass


def test_an_unknown_encoder_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="unknown encoder 'wm-tny'. Did you mean 'wm-tiny'?"):
        build_encoder("wm-tny", 8)


def test_the_base_class_is_no_encoder() -> None:
    with pytest.raises(TypeError, match="Encoder is abstract"):
        Encoder()(torch.zeros(1, 3, 96, 96))
