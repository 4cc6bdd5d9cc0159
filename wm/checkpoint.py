"""Files of weights: safetensors with a JSON header of specs. Nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wm.errors import CheckpointError, StoreError
from wm.specs import require_equal


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a safetensors file whole or not at all (temporary file, flush to disk, rename).

    Raises:
        StoreError: the disk refuses; a file that was there before is untouched.
    """
    data = save({k: v.detach().contiguous() for k, v in tensors.items()}, {"wm": json.dumps(header)})
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the error that is under way says more
            temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror}; what was there before is kept.") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `save_tensors` wrote.

    Raises:
        CheckpointError: no such file, truncated, not safetensors, or without our header.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a .safetensors file, there is none.")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get("wm")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}).") from error
    if header is None:
        raise CheckpointError(f"{path}: expected a file written by wm (a 'wm' header), it has none.")
    try:
        return tensors, dict(json.loads(header))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a JSON object as 'wm' header, came {header[:80]!r}.") from error


def load_weights(module: nn.Module, tensors: dict[str, Tensor], where: object) -> None:
    """Put tensors into a module, names and shapes exactly.

    Raises:
        CheckpointError: names the missing, unknown or misshapen tensors.
    """
    wanted = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    came = {k: tuple(v.shape) for k, v in tensors.items()}
    if wanted != came:
        missing = sorted(set(wanted) - set(came))
        unknown = sorted(set(came) - set(wanted))
        shapes = [f"{k}: expected {wanted[k]}, came {came[k]}" for k in wanted if k in came and wanted[k] != came[k]]
        raise CheckpointError(f"{where}: missing {missing}, unknown {unknown}, misshapen {shapes}.")
    module.load_state_dict(tensors)


def require_finite(tensors: dict[str, Tensor], where: object) -> None:
    """Refuse weights that are no numbers.

    Raises:
        CheckpointError: names the tensors with NaN or infinity in them.
    """
    broken = sorted(k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all()))
    if broken:
        raise CheckpointError(f"{where}: expected finite numbers, came NaN or infinity in {', '.join(broken)}.")


def save_training(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, config: Any, step: int) -> None:
    """Checkpoint of a run: weights, optimiser state, the step and the configuration."""
    tensors = {f"module.{k}": v for k, v in module.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    save_tensors(path, tensors, {"step": step, "config": dataclasses.asdict(config)})


def load_training(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, config: Any) -> int:
    """Restore what `save_training` wrote; returns the step.

    Raises:
        CheckpointError: unreadable, or other weights than the module's.
        MismatchError: the run had another configuration.
    """
    tensors, header = load_tensors(path)
    if not {"step", "config"} <= set(header):
        raise CheckpointError(f"{path}: expected a training checkpoint, came one with {sorted(header)} in its header.")
    require_equal("training configuration", dataclasses.asdict(config), header["config"], path)
    weights = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
    load_weights(module, weights, path)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(header["step"])
