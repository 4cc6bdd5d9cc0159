from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import numpy as np
import pytest
import torch

from tests.experiments.place import Place, tiny_model
from wm.envs.pusht.draw import draw
from wm.errors import BadInputError
from wm.experiments.assemble import make_env, make_mpc
from wm.experiments.delayed_planner import DelayedPlanner, PlannerSetup, pinned, planner_spec
from wm.experiments.episode import Controller
from wm.experiments.rules import Rules, on_states
from wm.planners import ICEM, MPC
from wm.planners.control.messages import PlanFailure, PlanReply, PlanRequest
from wm.planners.control.worker import PlannerProcess
from wm.planners.guardrails import Guardrail

pytestmark = pytest.mark.real_time

KINEMATICS = make_env("pusht").kinematics
GOAL = draw(np.array([300.0, 400.0, 150.0, 200.0, 2.0]), 96)
COMMITTED = np.array([[0.5, -0.25], [0.25, 0.125]])


class Recorder(ICEM):
    """Remembers what it was started from, and everything it rolled out."""

    def search(self, problem: Any, **options: Any) -> Any:
        self.warm_start, self.horizon = options["warm_start"], problem.horizon
        self.seen: list[torch.Tensor] = []

        def rollout(actions: torch.Tensor) -> Any:
            trajectory = problem.rollout(actions)
            self.seen.append(trajectory.actions)
            return trajectory

        return super().search(dataclasses.replace(problem, rollout=rollout), **options)


def planner(rules: list[Guardrail] | None = None, **options: Any) -> DelayedPlanner:
    model = tiny_model()
    mpc = MPC(Recorder(5, population=16, elites=4, iterations=2), 5, 1, 5)
    goal = model.encode(torch.from_numpy(GOAL)[None, None])
    return DelayedPlanner(model, mpc, goal, guardrails=rules, kinematics=KINEMATICS, **options)


def request(step: int, committed: np.ndarray = COMMITTED, **changes: Any) -> PlanRequest:
    states = [np.array([200.0 + 2 * step + i, 120.0, 300.0, 300.0, 0.5]) for i in range(2)]
    proprio = np.array([[*state[:2], 0.0, 0.0] for state in states], np.float32)
    values = {"images": np.stack([draw(s, 96) for s in states]), "proprio": proprio, "deadline_ms": 1e4}
    return PlanRequest(step=step, committed=committed, **(values | changes))


def test_plans_begin_with_what_is_committed_and_so_does_every_candidate() -> None:
    plan = planner()
    reply = plan(request(7))
    assert reply.step == 7 and reply.actions.shape == (25, 2)
    np.testing.assert_array_equal(reply.actions[:2], COMMITTED)
    solver = plan.mpc.solver
    for actions in solver.seen:  # type: ignore[attr-defined]
        assert torch.equal(
            actions.unflatten(-1, (5, 2))[:, :, 0, :2], torch.tensor(COMMITTED).float().expand(*actions.shape[:2], 2, 2)
        )
    assert reply.feasible and reply.margins == {} and reply.energies.keys() == {"goal"} and reply.plan_ms > 0


def test_committed_actions_may_reach_over_several_latent_steps() -> None:
    committed = np.linspace(-0.5, 0.5, 14).reshape(7, 2)
    reply = planner()(request(0, committed))
    np.testing.assert_array_equal(reply.actions[:7], committed)
    actions = torch.randn(2, 3, 5, 10)
    steps = pinned(actions, torch.from_numpy(committed).float()).reshape(2, 3, 25, 2)
    assert torch.equal(steps[:, :, 7:], actions.reshape(2, 3, 25, 2)[:, :, 7:])
    assert torch.equal(steps[1, 2, :7], torch.from_numpy(committed).float())


def test_margins_see_the_committed_actions() -> None:
    """They drive at full speed into a disc, whatever is planned afterwards; without them staying would keep it."""
    rules = Rules(((290.0, 120.0, 30.0),)).guardrails()
    into = np.tile([1.0, 0.0], (3, 1))
    reply = planner(rules)(request(0, into))
    start = torch.tensor(request(0).proprio[-1:])  # type: ignore[index]
    path = KINEMATICS.path(start, torch.from_numpy(reply.actions).float().reshape(1, 1, 5, 10), 5)
    expected = float(on_states(rules)[0].margin_of(path).min())
    assert expected < 0 and not reply.feasible
    assert reply.margins["keep_out"] == pytest.approx(expected, abs=1e-3)
    assert planner(rules)(request(0, np.zeros((3, 2)))).feasible


def test_the_search_starts_from_the_last_plan_shifted_by_the_control_steps_since() -> None:
    plan = planner()
    solver = plan.mpc.solver
    first = plan(request(10))
    assert solver.warm_start is None  # type: ignore[attr-defined]
    plan(request(13))
    warm = solver.warm_start.reshape(25, 2).numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(warm[:22], first.actions[3:], atol=1e-6)
    np.testing.assert_allclose(warm[22:], first.actions[20:23], atol=1e-6)
    plan(request(60))
    assert solver.warm_start is None  # type: ignore[attr-defined]


def test_each_picture_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, encoded = planner(), []
    encode = plan.model.encode
    monkeypatch.setattr(plan.model, "encode", lambda *a: encoded.append(1) or encode(*a))
    first = request(0)
    plan(first)
    assert len(encoded) == 2
    later = request(5)
    plan(request(5, images=np.stack([first.images[1], later.images[1]])))
    assert len(encoded) == 3


def test_the_same_frames_give_the_controller_s_context() -> None:
    plan = planner()
    controller = Controller(plan.model, make_mpc("cem", 5), plan.model.encode(torch.from_numpy(GOAL)[None, None]))
    asked = request(0)
    for row in (0, 0, 0, 0, 0, 1):  # six control steps, the last two frames one latent step apart
        controller.observe({"image": asked.images[row], "proprio": asked.proprio[row]})  # type: ignore[index]
    plan(asked)
    assert torch.equal(controller.context().tokens, plan.context().tokens)
    assert torch.equal(controller.context().proprio, plan.context().proprio)  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "horizon"), [(3, 5), (13, 5), (30, 5), (31, 5), (35, 4), (51, 1), (99, 1)])
def test_the_horizon_shrinks_towards_the_end_and_always_reaches_beyond_what_is_committed(
    step: int, horizon: int
) -> None:
    plan = planner(budget=50)
    plan(request(3))
    reply = plan(request(step))
    assert plan.mpc.solver.horizon == horizon and len(reply.actions) == 5 * horizon  # type: ignore[attr-defined]
    longer = planner(budget=50)
    longer(request(3, np.zeros((7, 2))))
    assert len(longer(request(99, np.zeros((7, 2)))).actions) == 10


def test_obeys_the_request_s_deadline() -> None:
    assert planner()(request(0, deadline_ms=0.1)).stopped_by == "deadline"


def nothing_finite() -> DelayedPlanner:
    plan = planner()
    next(plan.model.joint.predictor.parameters()).fill_(torch.nan)
    return plan


@pytest.mark.parametrize(
    ("plan", "asked", "message"),
    [
        (planner, request(0, np.full((2, 2), np.nan)), "expected 1 … 24 committed actions, came [[nan"),
        (planner, request(0, np.zeros((25, 2))), "expected 1 … 24 committed actions"),
        (planner, request(0, images=np.zeros((2, 64, 64, 3), np.uint8)), "expects 96x96 pixels, came 64x64"),
        (
            planner,
            request(0, images=np.zeros((3, 96, 96, 3), np.uint8), proprio=np.zeros((3, 4))),
            "context: expected 2 frames, came 3",
        ),
        (planner, request(0, proprio=None), "proprio: the model expects"),
        (planner, request(0, proprio=np.full((2, 4), np.inf, np.float32)), "expected finite proprio"),
        (nothing_finite, request(0), "the model foresees nothing finite"),
    ],
)
def test_what_cannot_be_planned_is_said(plan: Any, asked: PlanRequest, message: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(message)):
        plan()(asked)


def test_setup_travels_and_plans_in_a_process_of_its_own(place: Place) -> None:
    setup = PlannerSetup(
        str(place.model), "icem", GOAL, KINEMATICS, Rules(((450.0, 450.0, 10.0),), max_speed=2000), seed=3
    )
    assert dataclasses.replace(setup, guarded=False).planner_of(tiny_model(), GOAL, 0).guardrails == []
    process = PlannerProcess(setup, planner_spec(tiny_model()))
    process.start(100)
    try:
        assert process.submit(request(4))
        reply: PlanReply | PlanFailure | None = None
        end = time.monotonic() + 30
        while reply is None and time.monotonic() < end:
            reply = process.poll()
            time.sleep(0.005)
        assert isinstance(reply, PlanReply) and reply.margins.keys() == {"keep_out", "workspace", "speed"}
        np.testing.assert_array_equal(reply.actions[:2], COMMITTED)
        assert process.submit(request(9, np.full((2, 2), np.nan)))
        while (reply := process.poll()) is None:
            time.sleep(0.005)
        assert isinstance(reply, PlanFailure) and "committed actions" in reply.reason
    finally:
        process.close()
