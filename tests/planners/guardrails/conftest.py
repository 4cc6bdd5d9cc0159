"""A read-out whose tokens are the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from wm.readout import StateReadout


@pytest.fixture
def read_first_two() -> Callable[..., StateReadout]:
    """Reads the first two numbers of a token, times ``scale``, with the given calibrated radii after 1 … H steps."""

    def make(radii: Sequence[float], width: int = 2, scale: float = 1.0) -> StateReadout:
        readout = StateReadout(("object_x", "object_y"), "px", 1, width, False, 0.1, len(radii))
        readout.weight.copy_(scale * torch.eye(width, 2))
        readout.radii.copy_(torch.tensor([0.0, *radii]))
        return readout

    return make
