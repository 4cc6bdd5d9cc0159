"""Shared by the tests of `wm control` and of the studies on it: a tiny model, and a planner that needs no process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wm.encoders.tiny import TinyEncoder
from wm.envs.pusht.env import push_t_spec
from wm.logs import Moments
from wm.model import WorldModel, build_model
from wm.planners.control.messages import PlanFailure, PlannerSpec, PlanReply, PlanRequest
from wm.specs import ModelSpec

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
    def log(self) -> Path:
        return self.folder / "log"


def write_start(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({"env": "pusht", "start_state": START, "goal_state": FAR} | changes))
    return path


class InlineProcess:
    """`PlannerProcess` without a process: the plan is there at the next control step."""

    def __init__(self, make: Callable[[], Callable[[PlanRequest], PlanReply]], spec: PlannerSpec) -> None:
        self.make, self.spec, self.alive, self.busy = make, spec, False, False
        self.reply: PlanReply | PlanFailure | None = None

    def start(self, timeout: float) -> None:
        self.plan, self.alive = self.make(), True

    def submit(self, request: PlanRequest) -> bool:
        try:
            self.reply = self.plan(request)
        except Exception as error:
            self.reply = PlanFailure(request.step, str(error))
        return True

    def poll(self) -> PlanReply | PlanFailure | None:
        reply, self.reply = self.reply, None
        return reply

    def close(self) -> None:
        self.alive = False
