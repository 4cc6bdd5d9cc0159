from __future__ import annotations

import numpy as np
import pytest
import torch

from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.planners.control.rules import Moves, PlaceRule, compile_rule
from wm.planners.guardrails import (
    AccelerationLimit,
    Guardrail,
    JointLimits,
    KeepOutBoxes,
    KeepOutDiscs,
    KeepOutPolygons,
    PathGuardrail,
    SpeedLimit,
    Tightened,
    WorkspaceBox,
)

PUSHER = PointKinematics(100.0, 20.0, 0.01, 10, 100.0, True)
PLACES: list[PathGuardrail] = [
    WorkspaceBox((0, 0), (512, 400), 15.0),
    KeepOutDiscs([[200, 200], [350, 100]], [50.0, 20.0], 15.0),
    KeepOutBoxes([[100, 100], [300, 250]], [[220, 180], [340, 380]], 15.0),
    KeepOutPolygons([[[100, 100], [300, 120], [180, 260]], [[50, 300], [90, 300], [100, 350], [40, 340]]], 15.0),
]


def compiled(rule: Guardrail) -> PlaceRule:
    form = compile_rule(rule, PUSHER)
    assert isinstance(form, PlaceRule)
    return form


def chords(start: np.ndarray, end: np.ndarray) -> Moves:
    place = np.concatenate([start, end])  # row 0 is nobody's end here, and is left out by the caller
    count = len(start)
    before = np.concatenate([np.zeros(count - 1, int), np.arange(count)])
    length = np.concatenate([np.zeros(count - 1), np.linalg.norm(end - start, axis=1)])
    return Moves(place, before, length, np.zeros(2 * count - 1))


@pytest.mark.parametrize("rule", PLACES, ids=lambda rule: rule.name)
def test_margin_at_rest_is_the_guardrails(rule: PathGuardrail, rng: np.random.Generator) -> None:
    at = rng.uniform(-50, 550, (500, 2))
    mine = compiled(rule).margins(chords(at, at))[-len(at) :].min(1)
    theirs = rule.margin_of(torch.from_numpy(np.concatenate([at, 0 * at], 1))).numpy()
    # Deeper inside than the robot's radius a disc's chord bound stops at the centre; the sign is the same.
    assert np.allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("rule", PLACES, ids=lambda rule: rule.name)
def test_margin_of_a_chord_is_a_lower_bound_between_its_ends(rule: PathGuardrail, rng: np.random.Generator) -> None:
    start = rng.uniform(0, 512, (400, 2))
    end = start + rng.normal(size=(400, 2)) * 10
    bound = compiled(rule).margins(chords(start, end))[-len(start) :].min(1)
    for share in np.linspace(0, 1, 21):
        at = start + share * (end - start)
        margin = rule.margin_of(torch.from_numpy(np.concatenate([at, 0 * at], 1))).numpy()
        assert (margin >= bound - 1e-4).all()


@pytest.mark.parametrize("rule", PLACES, ids=lambda rule: rule.name)
def test_tangent_half_planes_lie_inside_what_is_allowed(rule: PathGuardrail, rng: np.random.Generator) -> None:
    form, at = compiled(rule), rng.uniform(0, 512, (300, 2))
    normals, _ = form.tangents(at)
    margins = form.margins(chords(at, at))[-len(at) :]
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1.0)
    other = rng.uniform(0, 512, (300, 2))
    linear = margins + np.einsum("rmx,rx->rm", normals, other - at)
    there = form.margins(chords(other, other))[-len(at) :]
    outside = margins >= 0  # a tangent is needed only from outside
    assert (there >= linear - 1e-6)[outside].all()


@pytest.mark.parametrize("rule", PLACES[1:], ids=lambda rule: rule.name)
def test_normals_turn_no_more_than_the_distance_to_the_core_allows(
    rule: PathGuardrail, rng: np.random.Generator
) -> None:
    form, at = compiled(rule), rng.uniform(0, 512, (2000, 2))
    moved = at + rng.normal(size=at.shape) * 3
    (first, core), (second, _) = form.tangents(at), form.tangents(moved)
    sine = np.linalg.norm(moved - at, axis=1)[:, None] / np.maximum(core, 1e-9)
    cosine = np.einsum("rmx,rmx->rm", first, second)
    counts = (core > 0) & (sine < 1) & (form.tangents(moved)[1] > 0)
    assert counts.sum() > 100
    assert (cosine >= np.sqrt(np.maximum(1 - sine**2, 0)) - 1e-9)[counts].all()


def test_a_rule_without_a_form_is_refused_and_never_left_out() -> None:
    class Clever(SpeedLimit):
        pass

    learned = JointLimits((0,), (-1.0,), (1.0,))
    for rule in (learned, Clever(100.0), Tightened(PLACES[0], (1.0,) * 5)):
        with pytest.raises(BadInputError, match="the shield cannot certify guardrail '.*' of type .* It certifies: "):
            compile_rule(rule, PUSHER)


def test_a_limit_made_for_another_robot_is_refused() -> None:
    other = PointKinematics(50.0, 20.0, 0.01, 10, 100.0, True)
    with pytest.raises(BadInputError, match="made for other kinematics: expected PointKinematics"):
        compile_rule(AccelerationLimit(1000.0, other), PUSHER)
