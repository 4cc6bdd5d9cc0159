"""What the model proposes takes part in the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.experiments.assemble import make_env, make_model
from wm.experiments.episode import PROPOSAL_COPIES, PROPOSAL_ENDS, PROPOSAL_NOISE, Controller
from wm.experiments.rules import ARENA, Rules
from wm.model import WorldModel
from wm.planners.guardrails import KeepOutDiscs, WorkspaceBox
from wm.planners.icem import ICEM
from wm.planners.mpc import MPC
from wm.types import Latent


@pytest.fixture
def controller() -> Controller:
    """The shipped model's, with one observation."""
    env, model = make_env("pusht", 96), make_model("pusht", "pusht")
    observation, _ = env.reset(seed=5)
    goal = model.encode(torch.from_numpy(observation["image"])[None, None])
    mpc = MPC(ICEM(5, population=8, elites=4, iterations=1), 5, 1, 5)
    found = Controller(model, mpc, goal, seed=1)
    found.observe(observation)
    return found


def test_every_sequence_comes_with_noisy_copies(controller: Controller) -> None:
    found, spec = controller.proposals(), controller.model.spec
    assert found is not None and spec.proposals > 0
    plain = spec.proposals * PROPOSAL_ENDS
    assert found.shape == (1, plain * (1 + PROPOSAL_COPIES), 5, 10)
    copies = found[:, plain:].unflatten(1, (PROPOSAL_COPIES, plain))
    noise = copies - found[:, None, :plain]
    assert float(noise.std()) == pytest.approx(PROPOSAL_NOISE, rel=0.1) and not torch.equal(copies[:, 0], copies[:, 1])
    assert (found[:, spec.proposals : plain, -1] == 0).all()  # arrived before the horizon's end: it stays


def test_the_best_plan_can_be_a_proposed_one(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = torch.full((1, 1, 5, 10), 0.37)

    def proposed(self: WorldModel, context: Latent, goal: Tensor, steps: object) -> Tensor:
        return wanted

    def imagination(self: WorldModel, context: Latent) -> object:
        def imagined(actions: Tensor) -> object:
            far = (actions - 0.37).square().mean((-1, -2))[..., None, None, None]
            tokens = self_goal + far.sqrt().expand(*actions.shape[:3], *self_goal.shape[-2:])
            return type(real)(actions, tokens)

        return imagined

    self_goal = controller.goal[:, None, None]
    real = controller.model.imagine(controller.context(), wanted)
    monkeypatch.setattr(WorldModel, "propose", proposed)
    monkeypatch.setattr(WorldModel, "imagination", imagination)
    plan, now = controller.plan()
    assert torch.allclose(plan.actions, wanted[:, 0]) and np.allclose(now, 0.37)


def test_a_longer_horizon_pads_with_standing_still(controller: Controller) -> None:
    controller.mpc = MPC(ICEM(5, population=8, elites=4, iterations=1), 7, 1, 5)
    found = controller.proposals()
    assert found is not None and found.shape[2] == 7 and (found[:, :, 5:] == 0).all()


def test_without_a_proposal_nothing_is_proposed(controller: Controller) -> None:
    controller.model.proposal = None
    controller.model.spec = replace(controller.model.spec, proposals=0)
    assert controller.proposals() is None
    assert controller.plan()[0].actions.shape == (1, 5, 10)


def test_the_pusher_always_stays_in_the_picture() -> None:
    (only,) = Rules().guardrails()
    assert isinstance(only, WorkspaceBox) and only.low.tolist() == [0.0, 0.0] and only.high.tolist() == [512.0, 512.0]
    assert only.radius == 15.0 and float(only.margin_at(torch.tensor([15.0, 497.0]))) == 0.0
    disc, box = Rules(((100.0, 100.0, 20.0),), workspace=(50.0, 60.0, 300.0, 310.0)).guardrails()
    assert isinstance(disc, KeepOutDiscs) and isinstance(box, WorkspaceBox)
    assert ARENA == (0.0, 0.0, 512.0, 512.0) and box.low.tolist() == [50.0, 60.0]
