from __future__ import annotations

import numpy as np
import pytest

from wm.envs.chips.physics import APART, PARKED, TABLE_HALF, ChipsPhysics, chip_places, scattered
from wm.errors import BadInputError


def physics(chips: int = 30, boxes: int = 15, seed: int = 0) -> ChipsPhysics:
    made = ChipsPhysics(chips, boxes)
    made.set_state(scattered(chips, np.random.default_rng(seed)))
    return made


def places(world: ChipsPhysics) -> np.ndarray:
    return chip_places(world.state()[: world.width])


def sweep(world: ChipsPhysics, strokes: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(strokes):
        world.stroke(*rng.uniform(-TABLE_HALF, TABLE_HALF, (2, 2)))


@pytest.mark.parametrize(("chips", "boxes"), [(0, 0), (19, 0), (101, 0), (-5, 0)])
def test_refuses_a_number_of_chips_out_of_range(chips: int, boxes: int) -> None:
    with pytest.raises(BadInputError, match=f"chips: expected 20 to 100 chips, came {chips}"):
        ChipsPhysics(chips, boxes)


@pytest.mark.parametrize("boxes", [-1, 31])
def test_refuses_more_boxes_than_chips(boxes: int) -> None:
    with pytest.raises(BadInputError, match=f"boxes: expected 0 to 30 of the 30 chips, came {boxes}"):
        ChipsPhysics(30, boxes)


def test_starts_lie_apart_within_the_square() -> None:
    for chips in (20, 100):
        state = scattered(chips, np.random.default_rng(chips))
        at = chip_places(state)
        gaps = np.linalg.norm(at[:, None] - at, axis=-1) + np.eye(chips)
        assert at.shape == (chips, 2) and np.abs(at).max() <= 0.2 and gaps.min() > APART
        assert tuple(state[:3]) == PARKED


def test_nothing_moves_by_itself() -> None:
    world = physics()
    before = world.state()
    world.settle()
    np.testing.assert_array_equal(world.state(), before)


def test_a_stroke_carries_the_chips_of_its_lane_and_no_others() -> None:
    world = ChipsPhysics(20, 10)
    state = scattered(20, np.random.default_rng(3))
    world.set_state(state)
    before = chip_places(state)
    start, end = np.array([-0.24, 0.0]), np.array([0.05, 0.0])
    world.stroke(start, end)
    after = places(world)
    in_lane = (np.abs(before[:, 1]) < 0.045) & (before[:, 0] < 0.05)
    far = np.abs(before[:, 1]) > 0.15
    assert in_lane.any() and far.any()
    assert (after[in_lane, 0] > 0.05).all() and (after[in_lane, 0] < 0.2).all()
    np.testing.assert_array_equal(after[far & (before[:, 0] < 0)], before[far & (before[:, 0] < 0)])
    np.testing.assert_allclose(world.state()[:2], end, atol=0.005)
    assert not world.state()[world.width :].any()


def test_chips_stay_on_the_table_and_out_of_each_other() -> None:
    world = physics(60, 30)
    sweep(world, 40)
    at = places(world)
    gaps = np.linalg.norm(at[:, None] - at, axis=-1) + np.eye(60)
    assert np.abs(at).max() < TABLE_HALF - 0.006
    assert gaps.min() > 0.014  # a box is 16 mm wide
    assert np.isfinite(world.state()).all()


def test_the_blade_stays_behind_where_it_jams() -> None:
    world = physics(100, 50)
    for y in np.tile(np.linspace(-0.2, 0.2, 5), 3):
        world.stroke(np.array([-0.2, y]), np.array([TABLE_HALF, y]))
    at = places(world)
    assert world.state()[0] < TABLE_HALF - 0.015  # a row of chips is between the blade and the rim
    assert at[:, 0].max() < TABLE_HALF


def test_a_stroke_of_no_length_pushes_aside_what_lies_under_the_blade() -> None:
    world = physics()
    before = places(world)
    world.stroke(before[0], before[0])
    moved = np.linalg.norm(places(world) - before, axis=1)
    assert 0.001 < moved[0] < 0.03 and np.isfinite(world.state()).all()


def test_driving_moves_and_turns_the_blade() -> None:
    world = physics()
    world.drive(np.array([0.0, 0.1]), 0.5, 100)
    x, y, angle = world.state()[:3]
    assert x == pytest.approx(PARKED[0], abs=0.003) and y == pytest.approx(0.1, abs=0.003)
    assert angle == pytest.approx(0.5, abs=0.01)
    world.drive(np.array([0.0, 0.25]), 0.0, 200)
    assert world.state()[1] < TABLE_HALF + 0.005  # the rim


def test_a_state_that_is_put_back_leads_to_the_same_end() -> None:
    world, other = physics(seed=1), physics(seed=2)
    world.drive(np.array([0.2, 0.1]), 1.0, 90)
    middle = world.state()
    assert np.abs(middle[world.width :]).max() > 0.1
    sweep(other, 3)
    other.set_state(middle)
    for each in (world, other):
        each.drive(np.array([0.2, -0.1]), -1.0, 50)
    np.testing.assert_array_equal(world.state(), other.state())
