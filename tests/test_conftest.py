"""The test run itself checks array shapes, in every sub-package."""

from __future__ import annotations

import importlib

import jaxtyping
import pytest
import torch

from wm.types import Latent


def test_wrong_number_of_dimensions_is_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="tokens"):
        Latent(torch.zeros(2, 3, 4))


def test_dimensions_of_one_name_must_agree() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="proprio"):
        Latent(torch.zeros(2, 3, 1, 4), torch.zeros(2, 5, 4))


def test_right_shapes_pass() -> None:
    assert Latent(torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 4)).tokens.shape == (2, 3, 1, 4)


@pytest.mark.parametrize("name", ["wm", "wm.types", "wm.planners", "wm.envs", "wm.datasets", "wm.experiments"])
def test_every_sub_package_is_checked(name: str) -> None:
    spec = importlib.import_module(name).__spec__
    assert spec is not None
    assert type(spec.loader).__module__ == "jaxtyping._import_hook"


def test_torch_runs_on_one_thread() -> None:
    assert torch.get_num_threads() == 1
