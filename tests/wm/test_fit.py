from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.wm.crash_fit import CONFIG, Toy
from wm.checkpoint import load_tensors
from wm.errors import BadInputError, MismatchError
from wm.fit import FitConfig, Hooks, fit, learning_rate

Draw = tuple[np.random.Generator, torch.Generator]


class Interrupted(Exception):
    pass


def train(out: Path, config: FitConfig = CONFIG, stop_at: int | None = None, value: float | None = None) -> Toy:
    """Train a fresh toy; at its `stop_at`-th step raise, or let the loss be `value`."""
    toy = Toy()

    def loss(rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        if len(toy.taken) == stop_at:
            if value is None:
                raise Interrupted
            return toy.loss(rng, generator)[0] * value, {}
        return toy.loss(rng, generator)

    fit(toy, loss, config, out, "toy")
    return toy


def lines(out: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    found = [json.loads(line) for line in (out / "toy.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def weights(out: Path) -> dict[str, Tensor]:
    return load_tensors(out / "toy.ckpt.safetensors")[0]


def require_same_run(one: Path, other: Path) -> None:
    assert lines(one) == lines(other)
    assert weights(one).keys() == weights(other).keys()
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


def test_learns_and_logs_every_step(tmp_path: Path) -> None:
    toy = train(tmp_path, replace(CONFIG, steps=150))
    log = lines(tmp_path)
    assert [line["step"] for line in log] == list(range(1, 151))
    assert log[-1]["loss"] < 0.2 * log[0]["loss"] and log[0].keys() == {"loss", "largest", "step"}
    assert not toy.training


@pytest.mark.parametrize("stop_at", [3, 10, 13, 19])
def test_an_interrupted_run_ends_as_one_that_never_stopped(tmp_path: Path, stop_at: int) -> None:
    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "halves", stop_at=stop_at)
    assert len(lines(tmp_path / "halves")) == stop_at
    resumed = train(tmp_path / "halves")
    assert len(resumed.taken) == CONFIG.steps - stop_at // CONFIG.checkpoint_every * CONFIG.checkpoint_every
    require_same_run(tmp_path / "whole", tmp_path / "halves")


def test_a_killed_run_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    script = Path(__file__).with_name("crash_fit.py")
    process = subprocess.run([sys.executable, script, tmp_path / "killed", "13"], capture_output=True, timeout=100)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert lines(tmp_path / "killed")[-1]["step"] == 13
    train(tmp_path / "killed")
    train(tmp_path / "whole")
    require_same_run(tmp_path / "whole", tmp_path / "killed")


class Follower(Hooks):
    """Moves a buffer after every step, by the step's number; notes when it was called."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.calls: list[tuple[str, int]] = []
        toy.register_buffer("trail", torch.zeros(()))

    def before_step(self, step: int) -> None:
        self.calls.append(("before", step))

    def after_step(self, done: int) -> None:
        self.calls.append(("after", done))
        self.toy.trail.mul_(0.9).add_(self.toy.net[0].bias.detach().sum() * done)

    def figures(self, done: int) -> dict[str, float]:
        return {"trail": float(self.toy.trail)}


def test_what_hooks_change_is_resumed_too(tmp_path: Path) -> None:
    def run(out: Path, stop_at: int | None = None) -> Follower:
        toy = Toy()
        hooks = Follower(toy)

        def loss(*draws: Any) -> Any:
            if len(toy.taken) == stop_at:
                raise Interrupted
            return toy.loss(*draws)

        fit(toy, loss, CONFIG, out, "toy", hooks)
        return hooks

    whole = run(tmp_path / "whole")
    assert whole.calls == [call for step in range(20) for call in (("before", step), ("after", step + 1))]
    with pytest.raises(Interrupted):
        run(tmp_path / "halves", stop_at=13)
    assert run(tmp_path / "halves").calls[0] == ("before", 10)
    require_same_run(tmp_path / "whole", tmp_path / "halves")
    assert all(line["trail"] != 0 for line in lines(tmp_path / "whole"))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    train(tmp_path)
    before = weights(tmp_path), lines(tmp_path)
    again = train(tmp_path)
    assert again.taken == [] and lines(tmp_path) == before[1]
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, before[0][f"module.{name}"])


def test_the_seed_decides_the_run(tmp_path: Path) -> None:
    train(tmp_path / "one")
    train(tmp_path / "same")
    train(tmp_path / "other", replace(CONFIG, seed=5))
    require_same_run(tmp_path / "one", tmp_path / "same")
    assert lines(tmp_path / "one") != lines(tmp_path / "other")


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(MismatchError, match="training configuration in .*'steps': 30.*'steps': 20"):
        train(tmp_path, replace(CONFIG, steps=30))
    assert len(lines(tmp_path)) == 20


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path: Path, value: float) -> None:
    with pytest.raises(BadInputError, match=rf"training 'toy': the loss became {value} at step 7\."):
        train(tmp_path, stop_at=7, value=value)
    assert load_tensors(tmp_path / "toy.ckpt.safetensors")[1]["step"] == 5
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path).values())
    train(tmp_path)
    train(tmp_path / "whole")
    require_same_run(tmp_path / "whole", tmp_path)


def test_a_torn_log_line_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path / "torn", stop_at=13)
    log = tmp_path / "torn" / "toy.jsonl"
    log.write_text(log.read_text()[:-25])
    with pytest.raises(json.JSONDecodeError):
        lines(tmp_path / "torn")
    train(tmp_path / "torn")
    train(tmp_path / "whole")
    require_same_run(tmp_path / "whole", tmp_path / "torn")


class Single(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def single_step(out: Path, value: Any, **settings: Any) -> Single:
    module = Single()
    config = FitConfig(steps=1, batch=1, learning_rate=0.1, warmup=0, **settings)
    fit(module, lambda *_: (value(module), {}), config, out, "single")
    return module


def test_an_overflowing_gradient_is_skipped(tmp_path: Path) -> None:
    module = single_step(tmp_path, lambda m: (m.matrix - 1).square().sum().sqrt())  # 0, but its slope is not a number
    assert torch.equal(module.matrix, torch.ones(2, 2)) and torch.equal(module.bias, torch.ones(2))


def test_weight_decay_is_for_matrices_only(tmp_path: Path) -> None:
    module = single_step(tmp_path, lambda m: 0 * (m.matrix.sum() + m.bias.sum()), weight_decay=0.5)
    assert torch.allclose(module.matrix, torch.full((2, 2), 1 - 0.1 * 0.5)) and torch.equal(module.bias, torch.ones(2))


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    module = single_step(tmp_path, lambda m: (m.matrix.sum() + m.frozen.sum()).square())
    assert torch.equal(module.frozen, torch.ones(2)) and not torch.equal(module.matrix, torch.ones(2, 2))


def test_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    config = FitConfig(steps=1000, batch=1, learning_rate=0.2, warmup=100)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.002) and rates[99] == pytest.approx(0.2) and max(rates) <= 0.2
    assert np.allclose(np.diff(rates[:100]), 0.002) and (np.diff(rates[100:]) < 0).all()
    assert rates[550] == pytest.approx(0.2 * (0.01 + 0.99 / 2))
    assert learning_rate(config, 1000) == pytest.approx(0.002) and rates[-1] == pytest.approx(0.002, rel=1e-3)
    assert learning_rate(FitConfig(steps=1, batch=1, warmup=0), 0) == pytest.approx(1e-3)
