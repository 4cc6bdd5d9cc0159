from __future__ import annotations

import errno
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wm.checkpoint import load_tensors, load_training, load_weights, save_tensors, save_training
from wm.errors import CheckpointError, MismatchError, StoreError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64), "c": torch.tensor(2.5)}
HEADER = {"kind": "test", "sizes": [1, 2], "none": None}


@dataclass(frozen=True)
class Config:
    steps: int
    rate: float = 0.1


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.safetensors"
    tensors = TENSORS | {"strided": torch.arange(12.0).reshape(3, 4).T}
    save_tensors(path, tensors, HEADER)
    came, header = load_tensors(path)
    assert header == HEADER and came.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(came[name], tensor) and came[name].dtype == tensor.dtype
    assert [p.name for p in path.parent.iterdir()] == ["file.safetensors"]


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=r"expected a \.safetensors file, there is none"):
            load_tensors(path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "file.safetensors"
    save_tensors(path, TENSORS, HEADER)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="file.safetensors: not a readable safetensors file"):
        load_tensors(path)


class Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_tensors(path)
    torch.save({"weights": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_tensors(path)
    assert not (tmp_path / "sprung").exists()


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file(TENSORS, path)
    with pytest.raises(CheckpointError, match=r"expected a file written by wm \(a 'wm' header\), it has none"):
        load_tensors(path)
    for broken in ("{", "7", "[1]"):
        save_file(TENSORS, path, {"wm": broken})
        with pytest.raises(CheckpointError, match="expected a JSON object as 'wm' header, came"):
            load_tensors(path)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "file.safetensors"
    save_tensors(path, TENSORS, HEADER)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if name == "fsync" else (Path, "replace")), full)
        with pytest.raises(StoreError, match="cannot write .*No space left on device; what was there before is kept"):
            save_tensors(path, {"a": torch.zeros(9)}, {})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write .*model.safetensors"):
        save_tensors(tmp_path / "file" / "model.safetensors", TENSORS, HEADER)


def test_weights_that_do_not_fit_are_named() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    came = {"weight": torch.zeros(4, 2), "scale": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        load_weights(module, came, "model.safetensors")
    assert str(error.value) == (
        "model.safetensors: missing ['bias'], unknown ['scale'], misshapen ['weight: expected (2, 3), came (4, 2)']."
    )
    assert torch.equal(module.weight, before)
    load_weights(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "here")
    assert torch.equal(module.weight, torch.ones(2, 3))


def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    groups = [{"params": [p for p in module.parameters() if (p.ndim > 1) == matrix]} for matrix in (True, False)]
    optimiser = torch.optim.AdamW(groups, lr=0.01)
    for step in range(steps):
        optimiser.zero_grad()
        module(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimiser.step()
    return module, optimiser


def test_training_comes_back_with_the_optimisers_state(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt.safetensors"
    module, optimiser = trained(5)
    save_training(path, module, optimiser, Config(9), 5)
    other, fresh = trained(0)
    assert load_training(path, other, fresh, Config(9)) == 5
    for name, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    one, two = optimiser.state_dict()["state"], fresh.state_dict()["state"]
    assert one.keys() == two.keys() and len(one) == 6
    for index in one:
        for name in one[index]:
            assert torch.equal(torch.as_tensor(one[index][name]), torch.as_tensor(two[index][name]))


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    path, (module, optimiser) = tmp_path / "run.ckpt.safetensors", trained(1)
    save_training(path, module, optimiser, Config(9), 1)
    with pytest.raises(
        MismatchError, match=r"training configuration in .*: expected .*'steps': 8.*, came .*'steps': 9"
    ):
        load_training(path, module, optimiser, Config(8))
    with pytest.raises(CheckpointError, match="missing .*'bias'"):
        load_training(path, nn.Linear(2, 2), optimiser, Config(9))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path, (module, optimiser) = tmp_path / "run.ckpt.safetensors", trained(0)
    save_tensors(path, dict(module.state_dict()), {"kind": "encoder"})
    with pytest.raises(CheckpointError, match=r"expected a training checkpoint, came one with \['kind'\]"):
        load_training(path, module, optimiser, Config(9))
