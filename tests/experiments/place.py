"""Shared by the tests of `wm plan`, `wm control` and the studies: a folder with a tiny model, and the command in it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from wm.encoders.tiny import TinyEncoder
from wm.envs.pusht.env import push_t_spec
from wm.experiments.cli import main as command
from wm.logs import Moments
from wm.model import WorldModel, build_model
from wm.specs import ModelSpec

Run = Callable[..., tuple[int, str, str]]
"""A subcommand with more words and with options replaced, to exit code, stdout and stderr."""

START = [100.0, 120.0, 300.0, 300.0, 0.5, 0.0, 0.0]
FAR = [400.0, 120.0, 300.0, 300.0, 0.5, 0.0, 0.0]
NEAR = [105.0, 120.0, 300.0, 300.0, 0.5, 0.0, 0.0]


def tiny_model() -> WorldModel:
    torch.manual_seed(0)
    encoder, env = TinyEncoder(width=8), push_t_spec()
    spec = ModelSpec(env, encoder.spec(), frameskip=5, history=2, tokens=2, width=4, hidden=16, depth=1)
    model = build_model(spec, encoder, Moments(torch.zeros(2), torch.ones(2)), Moments(torch.zeros(4), torch.ones(4)))
    for weights in model.joint.predictor.parameters():
        weights.normal_(std=0.3)  # a fresh one predicts that nothing changes, whatever the action
    model.usual_distance.fill_(1e3)  # nothing is unfamiliar
    return model


@dataclass(frozen=True)
class Place:
    folder: Path
    model: Path
    goal: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def log(self) -> Path:
        return self.folder / "log"


def write_start(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({"env": "pusht", "start_state": START, "goal_state": FAR} | changes))
    return path


def runner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], subcommand: str, usual: dict[str, object]
) -> Run:
    """`wm subcommand` with its usual options."""

    def call(*more: object, **replaced: object) -> tuple[int, str, str]:
        options = usual | {key.replace("_", "-"): value for key, value in replaced.items()}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        monkeypatch.setattr(sys, "argv", ["wm", subcommand, *map(str, [*words, *more])])
        with pytest.raises(SystemExit) as stop:
            command()
        found = capsys.readouterr()
        return int(stop.value.code or 0), found.out, found.err

    return call


def refused(result: tuple[int, str, str], message: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that holds the message."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert err.startswith("wm: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err
