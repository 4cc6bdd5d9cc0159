from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.experiments.control_parts import InlineProcess
from tests.experiments.place import Place, tiny_model
from wm.errors import BadInputError, MismatchError
from wm.experiments import control_panel
from wm.experiments.assemble import make_model
from wm.experiments.baselines import NoOp
from wm.experiments.delayed_planner import planner_spec
from wm.experiments.episode import Task
from wm.experiments.rules import Rules, on_states
from wm.experiments.studies import control_rate, goal_attacks, long_run, safety_cost
from wm.experiments.studies.attacks import FORBIDDEN, GREY_LEVELS, KINDS, OTHERS, WORKSPACE, Attack, attack, perturbed
from wm.experiments.studies.closed_loop import InlinePlanner, Played, Unshielded, play, traced_env
from wm.experiments.studies.far_cases import FAR_PX, why_far
from wm.experiments.studies.ordinary import hard_tasks, ordinary_tasks
from wm.experiments.studies.rows import Rows
from wm.experiments.worlds.tasks import picture
from wm.planners.control.acting import Asked, unanswered
from wm.planners.control.messages import PlanReply, PlanRequest
from wm.planners.control.shield import Certified, Shield, ShieldLimits
from wm.planners.control.states import State
from wm.robot import RobotObservation

pytestmark = pytest.mark.real_time

SPEC = planner_spec(tiny_model())
START = np.array([100.0, 120.0, 300.0, 300.0, 0.5])


class Straight:
    """Drives to the right at full speed, whatever is there."""

    def __call__(self, request: PlanRequest) -> PlanReply:
        rest = np.tile([1.0, 0.0], (20, 1))
        return PlanReply(request.step, np.concatenate([request.committed, rest]))


@pytest.mark.parametrize("shielded", [True, False])
def test_breaches_are_those_of_the_true_path_at_every_physics_step(shielded: bool) -> None:
    env, rules = traced_env(96), Rules(((200.0, 120.0, 30.0),)).guardrails()
    kinematics, action = env.kinematics, env.env_spec.action
    shield = Shield(kinematics, action, rules, ShieldLimits()) if shielded else Unshielded(kinematics, action)
    task = Task(START, np.zeros((96, 96, 3), np.uint8), None, 0)
    played = play(env, task, InlinePlanner(Straight(), SPEC), shield, rules, 20)
    distance = np.linalg.norm(played.path[:, :2] - [200.0, 120.0], axis=1) - 45.0
    assert played.breaches["keep_out"] == int((distance < 0).sum())
    assert all((count == 0) == shielded for count in played.breaches.values())
    assert played.smallest["keep_out"] == pytest.approx(distance.min(), abs=1e-6)
    assert len(played.steps) == 20 and len(played.path) >= 200
    sent = torch.tensor(np.array([step.sent for step in played.steps])).reshape(1, 1, 1, -1)
    start = torch.tensor([[*START[:2], 0.0, 0.0]], dtype=torch.float64)
    braked = (len(played.path) - 200) // 10  # control steps before and after, at rest
    expected = kinematics.path(start, sent, 20)[0, 0, 0].numpy()
    first = next(
        k * 10 for k in range(braked + 1) if np.allclose(played.path[k * 10 : k * 10 + 200], expected, atol=1e-6)
    )
    assert first <= 10 * braked


def test_the_loop_does_the_same_again(place: Place) -> None:
    model, env = tiny_model(), traced_env(96)
    made = attack("inside keep-out", 0, 0, env, model)
    finals = []
    for _ in range(2):
        setup = control_rate.PlannerSetup(str(place.model), "icem", made.goal_image, env.kinematics)
        shield = Shield(env.kinematics, env.env_spec.action, made.rules.guardrails(), ShieldLimits())
        planner = InlinePlanner(setup.planner_of(model, made.goal_image, 0), SPEC)
        finals.append(
            play(env, Task(made.start, made.goal_image, None, 0), planner, shield, made.rules.guardrails(), 8).path[-1]
        )
    assert np.array_equal(*finals)


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_start_where_it_is_allowed_and_wish_what_is_not(kind: Any) -> None:
    model, env = tiny_model(), traced_env(96)
    for index in range(4):
        made = attack(kind, index, 5, env, model)
        again = attack(kind, index, 5, env, model)
        assert np.array_equal(made.goal_image, again.goal_image) and made.keep_out == again.keep_out
        rest = torch.tensor([*made.start[:2], 0.0, 0.0])
        assert all(float(rule.margin_of(rest)) > 0 for rule in on_states(made.rules.guardrails()))
        if made.wished is None:
            assert kind == "noise"
            continue
        wished = torch.tensor([*made.wished, 0.0, 0.0])
        assert min(float(rule.margin_of(wished)) for rule in on_states(made.rules.guardrails())) < 0
        least = made.least_px
        broken = Rules((made.keep_out,)) if kind != "outside workspace" else Rules(workspace=WORKSPACE)
        assert least >= -min(float(rule.margin_of(wished)) for rule in on_states(broken.guardrails())) - 1.5
        if kind == "outside workspace":
            walls = np.array([made.wished - WORKSPACE[:2], np.array(WORKSPACE[2:]) - made.wished])
            assert walls.min() < 16.0


def test_perturbation_is_small_and_draws_the_latent_to_the_target() -> None:
    model, env = make_model("pusht", "pusht"), traced_env(96)
    made = attack("perturbed", 2, 0, env, model)
    assert made.pull is not None and 0.1 < made.pull < 1
    origin, target = picture(env, START), picture(env, np.array([300.0, 120.0, *START[2:]]))
    bent = perturbed(model, origin, target)
    assert np.abs(bent.astype(int) - origin.astype(int)).max() in range(1, GREY_LEVELS + 1)

    def away(image: np.ndarray) -> float:
        both = [model.encode(torch.from_numpy(each)[None, None]).tokens for each in (image, target)]
        return float((both[0] - both[1]).norm())

    assert away(bent) < away(origin)


def test_goal_attacks(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goal_attacks, "STEPS", 6)
    out = tmp_path / "study"
    first = goal_attacks.run(3, 0, 0, out, str(place.model))
    kept = (out / "episodes.jsonl").read_text()
    result = goal_attacks.run(8, 4, 0, out, str(place.model))
    assert (out / "episodes.jsonl").read_text().startswith(kept) and len(Rows(out / "episodes.jsonl").rows) == 8
    assert first["executed_breaches"] == result["executed_breaches"] == 0 and result["episodes"] == 8
    assert {name: group["episodes"] for name, group in result["kinds"].items()} == dict.fromkeys(FORBIDDEN, 4)
    assert result["kinds"]["inside keep-out"]["excess_px"]["p50"] > -1.5
    assert {name: group["episodes"] for name, group in result["layers"].items()} == {
        "planner and shield": 4,
        "shield alone": 4,
    }
    assert first["others"]["episodes"] == 0 and result["others"]["episodes"] == 4
    assert {name: group["episodes"] for name, group in result["others"]["kinds"].items()} == dict.fromkeys(OTHERS, 2)
    assert all(margin >= 0 for margin in result["smallest_margins"].values())
    far = result["far_cases"]  # within six control steps hardly anyone arrives
    beyond = [row for row in Rows(out / "episodes.jsonl").first(8) if row.get("excess_px", 0) > FAR_PX]
    assert far["count"] == len(beyond) > 0 and sum(far["why"].values()) == far["count"]
    assert [case["index"] for case in far["each"]] == [row["index"] for row in beyond]
    assert json.loads((out / "goal_attacks.json").read_text()) == json.loads(json.dumps(result))
    with Image.open(out / "goal_attacks.png") as shown:
        assert shown.width > 500
    with pytest.raises(MismatchError, match="run folder of another run: seed"):
        goal_attacks.run(3, 0, 1, out, str(place.model))


NO_ACTION = np.zeros(2)


def ended(
    place: tuple[float, float], block: tuple[float, float], moving: float = 0.0, held: bool = False, fits: bool = True
) -> Played:
    """An episode in which the pusher ended at a place, after so many px a step to the right."""
    steps = []
    for k in range(8):
        at = np.array([place[0] - moving * (7 - k), place[1], 0.0, 0.0], np.float32)
        seen = RobotObservation(np.zeros((8, 8, 3), np.uint8), at, 0.1 * k, k)
        times, state = (0.1 * k, 0.0), (State.HOLDING if held else State.RUNNING, "")
        verdict = Certified(NO_ACTION, "passed", None, 0.0, 0.0, 1.0)
        entry = unanswered(k, times, state, (seen, True), Asked(NO_ACTION, None), verdict)
        steps.append(dataclasses.replace(entry, plan=PlanReply(k, np.zeros((4, 2)), feasible=fits)))
    final = np.array([*place, *block, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    return Played(False, final, np.array([[*place, 0.0, 0.0]]), steps, {}, {}, {})


@pytest.mark.parametrize(
    ("why", "options"),
    [
        ("held", {"held": True}),
        ("no feasible plan", {"fits": False}),
        ("block on the place", {"block": (320.0, 200.0)}),
        ("block in the way", {"block": (400.0, 200.0)}),
        ("keep-out in the way", {"place": (150.0, 200.0)}),
        ("time over", {"moving": 5.0}),
        ("stands with a free way", {}),
    ],
)
def test_why_a_pusher_ended_far_from_the_nearest_allowed_place(why: str, options: dict[str, Any]) -> None:
    disc, wished = (250.0, 200.0, 40.0), np.array([280.0, 200.0])
    made = Attack("inside keep-out", START, np.zeros((96, 96, 3), np.uint8), wished, disc)
    nearest = made.nearest_allowed()
    assert np.allclose(nearest, [305.0, 200.0], atol=1.0) and made.least_px == pytest.approx(25.0, abs=1.0)
    assert why_far(made, ended(**{"place": (460.0, 200.0), "block": (100.0, 400.0)} | options)) == why


def test_safety_cost(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety_cost, "STEPS", 6)
    monkeypatch.setattr(safety_cost, "OracleController", lambda action, *args, **options: NoOp(np.zeros(action.width)))
    counts = safety_cost.Counts(2, 2, 1)
    result = safety_cost.run(counts, 7, tmp_path / "study", str(place.model))
    assert result["episodes"] == 2 and result["on"]["executed_breaches"] == 0
    assert result["certify_ms"]["steps"] == 12 and 0 < result["certify_ms"]["p50"] <= result["certify_ms"]["p99"]
    assert (
        result["on_minus_off"]["ci95"][0] <= result["on_minus_off"]["difference"] <= result["on_minus_off"]["ci95"][1]
    )
    hard = result["hard"]
    assert hard["episodes"] == 2 and hard["on"]["executed_breaches"] == 0
    assert hard["oracle"]["episodes"] == hard["on_of_the_same"]["episodes"] == 1
    assert (tmp_path / "study" / "safety_cost.json").exists()


def test_hard_discs_stand_in_the_way_and_leave_start_and_goal() -> None:
    for each in hard_tasks(7, 4, 32):
        assert each.task.goal_state is not None
        ends = np.stack([each.task.start_state[:2], each.task.goal_state[:2]])
        centre, reach = np.array(each.keep_out[:2]), each.keep_out[2] + 15.0
        assert np.linalg.norm(ends - centre, axis=1).min() > reach + 9.9
        assert np.allclose(centre, ends.mean(axis=0)) and 10.0 <= each.keep_out[2] <= 30.0
        assert centre.min() - reach > 15.0 and centre.max() + reach < 497.0  # the pusher passes it on every side


def test_safety_cost_table() -> None:
    def row(index: int, off: bool, on: bool) -> dict[str, Any]:
        arm = {"breaches": {"speed": 2}, "smallest": {}, "changed": 1}
        return {
            "index": index,
            "off": arm | {"reached": off},
            "on": arm | {"reached": on, "breaches": {"speed": 0}},
            "certify_ms": [0.1, 0.3],
        }

    found = safety_cost.table([row(0, True, True), row(1, True, False), row(2, False, False), row(3, True, True)])
    assert found["off"]["success"] == 0.75 and found["on"]["success"] == 0.5
    assert found["on_minus_off"]["difference"] == -0.25 and found["off"]["executed_breaches"] == 8
    assert found["on"]["executed_breaches"] == 0 and found["actions_changed"] == 0.5
    assert found["certify_ms"]["p50"] == pytest.approx(0.2)


def test_ordinary_tasks_are_allowed_from_start_to_goal_and_a_prefix_of_more() -> None:
    tasks = ordinary_tasks(7, 4, 32)
    for each, same in zip(tasks, ordinary_tasks(7, 2, 32), strict=False):
        assert np.array_equal(each.task.start_state, same.task.start_state) and each.keep_out == same.keep_out
    for each in tasks:
        assert not each.task.start_state[5:].any() and each.task.goal_state is not None
        for state in (each.task.start_state, each.task.goal_state):
            rest = torch.tensor([*state[:2], 0.0, 0.0])
            assert all(float(rule.margin_of(rest)) > 0 for rule in on_states(each.rules.guardrails()))
            assert np.linalg.norm(state[2:4] - each.keep_out[:2]) > each.keep_out[2]


def test_control_rate(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_rate, "STEPS", 6)
    monkeypatch.setattr(control_rate, "PlannerProcess", InlineProcess)
    out = tmp_path / "study"
    control_rate.run(0, 1, 7, out, str(place.model))
    result = control_rate.run(0, 2, 7, out, str(place.model))
    assert result["long_run"] is None
    found = result["episodes"]
    assert found["periods"] == 12 and 0 <= found["on_time_share"] <= 1
    assert found["control"]["episodes"] == found["plain_receding_horizon"]["episodes"] == 2
    assert found["jitter_ms"]["p50"] <= found["jitter_ms"]["p99"] <= found["jitter_ms"]["max"]
    assert found["plans"]["fresh"] >= 2 and "failed" not in found["plans"]
    rows = Rows(out / "episodes.jsonl").first(2)
    assert [len(row["late_ms"]) + row["skipped"] for row in rows] == [6, 6]  # a busy machine may skip a period


def test_long_run_is_one_run_with_panel_and_log_towards_one_goal_after_the_other(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_run, "GOAL_STEPS", 6)
    monkeypatch.setattr("wm.experiments.control.PlannerProcess", InlineProcess)
    goals: list[np.ndarray] = []
    drawn: list[control_panel.View] = []
    of, show = long_run.PlannerSetup.planner_of, control_panel.render

    def planner_of(setup: Any, model: Any, image: np.ndarray, seed: int) -> Any:
        goals.append(image)
        return of(setup, model, image, seed)

    def render(view: control_panel.View) -> Any:
        drawn.append(view)
        return show(view)

    monkeypatch.setattr(long_run.PlannerSetup, "planner_of", planner_of)
    monkeypatch.setattr(control_panel, "render", render)
    monkeypatch.setattr(control_panel, "REFRESH_S", 0.05)
    found = long_run.long_run(1.8 / 60, 7, tmp_path, str(place.model), "icem")
    assert found["periods"] == 18 and found["goals"] == 3 and found["on_time_ms"] == 5.0
    assert 0 <= found["on_time_share"] <= 1 and found["late_ms"]["p50"] <= found["late_ms"]["p99"]
    tasks = ordinary_tasks(7, 3, 96)
    assert {image.tobytes() for image in goals} == {each.task.goal_image.tobytes() for each in tasks}
    assert drawn and found["episodes_logged"] is not None
    lines = [json.loads(line) for line in (tmp_path / "long_run" / "steps.jsonl").read_text().splitlines()]
    assert sum("run" in line for line in lines) == sum("end" in line for line in lines) == 1  # without a break
    assert long_run.long_run(1.8 / 60, 7, tmp_path, str(place.model), "icem") == found  # not driven again


def test_rows_outlive_an_interruption_and_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Rows(path).append({"index": 2, "x": 1})
    with path.open("a") as file:
        file.write('{"index": 3')
    rows = Rows(path)
    assert rows.missing(4) == [0, 1, 3] and rows.first(4) == [{"index": 2, "x": 1}]
    assert path.read_text() == '{"index": 2, "x": 1}\n'
    path.write_text('{"x": 1}\n')
    with pytest.raises(BadInputError, match=r"rows\.jsonl, line 1: not an episode"):
        Rows(path)
