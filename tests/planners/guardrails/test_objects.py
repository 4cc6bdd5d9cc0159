"""The soft rules on an object, whose place is read out of the latent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from wm.errors import BadInputError
from wm.planners.guardrails import (
    ContactEnergy,
    KeepOutBoxes,
    KeepOutDiscs,
    ObjectDistance,
    ObjectKeepOut,
    PlaceGuardrail,
    WorkspaceBox,
)
from wm.readout import StateReadout
from wm.types import Trajectory

Read = Callable[..., StateReadout]
NUMBER = st.floats(-600, 600, width=32)
NO_RESET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
RADII = [2.0, 3.0, 7.0]


def imagined(places: Any, path: Tensor | None = None) -> Trajectory:
    """One candidate whose object is at these places after each latent step."""
    tokens = torch.as_tensor(places, dtype=torch.float32)[None, None, :, None]
    return Trajectory(torch.zeros(1, 1, tokens.shape[2], 2), tokens, path=path)


def along(*steps: list[tuple[float, float, float, float]]) -> Tensor:
    return torch.tensor([[steps]])


def rules(read: Read) -> list[Any]:
    return [
        ObjectKeepOut(read(RADII), KeepOutDiscs([[300, 300]], [50], robot_radius=40)),
        ObjectDistance(read(RADII), object_radius=40),
        ContactEnergy(read(RADII), max_energy=1e3, mass=1, object_radius=40),
    ]


@NO_RESET
@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=3, max_size=3))
def test_the_object_keeps_out_by_its_regions_margin_less_the_calibrated_error(
    read_first_two: Read, places: list[tuple[float, float]]
) -> None:
    regions: list[PlaceGuardrail] = [
        KeepOutDiscs([[300, 300]], [50], robot_radius=40),
        KeepOutBoxes([[0, 0]], [[100, 100]], robot_radius=40),
        WorkspaceBox((0, 0), (512, 512), 40),
    ]
    for region in regions:
        margins = ObjectKeepOut(read_first_two(RADII), region)(imagined(places))
        expected = region.margin_at(torch.tensor(places)) - torch.tensor(RADII)
        torch.testing.assert_close(margins, expected[None, None], atol=1e-3, rtol=0)


def test_the_distance_counts_the_nearest_instant_and_the_nearer_place_of_the_object(read_first_two: Read) -> None:
    path = along(
        [(0, 0, 0, 0), (0, 30, 0, 0)], [(0, 60, 0, 0), (0, 90, 0, 0)], [(0, 100, 0, 0), (0, 110, 0, 0)]
    ).float()
    rule = ObjectDistance(read_first_two(RADII), object_radius=10, robot_radius=15, min_distance=5)
    margins = rule(imagined([(0, 100), (40, 60), (0, 200)], path))
    # Step 1: 70 px to the place after it. Step 2: 10 px to the place before it. Step 3: from (0, 100) to (40, 60).
    expected = torch.tensor([70.0 - 30 - 2, 10.0 - 30 - 3, (2 * 40**2) ** 0.5 - 30 - 7])
    torch.testing.assert_close(margins, expected[None, None])


def test_kinetic_energy_counts_within_reach_and_nowhere_else(read_first_two: Read) -> None:
    rule = ContactEnergy(read_first_two(RADII), 1000.0, mass=2, object_radius=20, robot_radius=15, reach=5)
    fast = (30.0, 40.0)  # 2500 of energy
    path = along(
        [(58, 0, *fast), (41.9, 0, 3, 4)],  # 40 px + radius 2 px: the fast instant is out of reach
        [(43.1, 0, *fast), (300, 0, *fast)],  # radius 3 px: just out of reach
        [(46.9, 0, *fast), (300, 0, *fast)],  # radius 7 px: just within
    )
    margins = rule(imagined([(0, 0)] * 3, path))
    torch.testing.assert_close(margins, torch.tensor([[[1000.0 - 25.0, 1000.0, 1000.0 - 2500.0]]]))


@NO_RESET
@given(st.lists(st.floats(0, 40, width=32), min_size=3, max_size=3).map(sorted), st.integers(0, 30))
def test_a_larger_calibrated_error_is_never_safer(read_first_two: Read, more: list[float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    path = torch.randn(1, 1, 3, 4, 4, generator=generator) * 60 + 250
    trajectory = imagined(torch.randn(3, 2, generator=generator) * 60 + 250, path)
    wider = lambda radii, **k: read_first_two([a + b for a, b in zip(radii, more, strict=True)], **k)  # noqa: E731
    for loose, tight in zip(rules(read_first_two), rules(wider), strict=True):
        assert (tight(trajectory) <= loose(trajectory)).all()


def test_nan_never_looks_safe(read_first_two: Read) -> None:
    path = torch.full((1, 1, 3, 4, 4), 100.0)
    path[..., 2:] = 0.0
    far = [(900.0, 900.0)] * 3
    for rule in rules(read_first_two):
        assert (rule(imagined(far, path)) >= 0).all()
        broken = [(900.0, 900.0), (900.0, float("nan")), (900.0, 900.0)]
        assert not (rule(imagined(broken, path))[0, 0, 1] >= 0)
        if not isinstance(rule, ObjectKeepOut):  # which does not look at the robot
            for component in range(2 if isinstance(rule, ObjectDistance) else 4):
                lost = path.clone()
                lost[0, 0, 2, 1, component] = torch.nan
                assert (rule(imagined(far, lost)) >= 0).tolist() == [[[True, True, False]]]


def test_a_read_out_that_was_never_calibrated_holds_nothing(read_first_two: Read) -> None:
    fresh = StateReadout(("x", "y"), "px", 1, 2, False, 0.1, 3)
    path = torch.full((1, 1, 3, 4, 4), 100.0)
    for rule in rules(lambda radii: fresh):
        assert not (rule(imagined([(900, 900)] * 3, path)) >= 0).any()


def test_they_are_soft_and_named(read_first_two: Read) -> None:
    assert [(rule.name, rule.unit, rule.soft) for rule in rules(read_first_two)] == [
        ("object_keep_out", "px", True),
        ("object_distance", "px", True),
        ("contact_energy", "kg px^2/s^2", True),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda r: ObjectDistance(r, -1),
            "'object_distance': object_radius must be one number >= 0, came -1",
        ),
        (lambda r: ObjectDistance(r, 1, min_distance=float("nan")), "min_distance must be finite"),
        (lambda r: ContactEnergy(r, -1, 1, 1), "max_energy must be one number >= 0, came -1"),
        (lambda r: ContactEnergy(r, 1, -1, 1), "mass must be one number >= 0, came -1"),
        (lambda r: ContactEnergy(r, 1, 1, 1, reach=-2), "reach must be one number >= 0, came -2"),
    ],
)
def test_bad_settings_are_refused(read_first_two: Read, make: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make(read_first_two(RADII))


def test_what_cannot_be_checked_is_an_error(read_first_two: Read) -> None:
    angle = StateReadout(("cos", "sin", "x"), "px", 1, 2, False, 0.1, 3)
    with pytest.raises(BadInputError, match=r"needs a read-out of x and y, came one of \('cos', 'sin', 'x'\)"):
        ObjectDistance(angle, 1)
    keep_out, *others = rules(read_first_two)
    for rule in others:
        with pytest.raises(BadInputError, match=f"guardrail '{rule.name}' needs the robot's path"):
            rule(imagined([(0, 0)] * 3))
    for rule in (keep_out, *others):
        with pytest.raises(BadInputError, match="knows the error up to 3 latent steps ahead, came a horizon of 4"):
            rule(imagined([(0, 0)] * 4, torch.zeros(1, 1, 4, 2, 4)))
