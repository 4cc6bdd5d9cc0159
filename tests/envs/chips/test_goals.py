from __future__ import annotations

import numpy as np
import pytest

from wm.envs.chips.goals import SHAPES, SPACING, target_state
from wm.envs.chips.physics import PARKED, TABLE_HALF, ChipsPhysics, chip_places
from wm.errors import BadInputError, UnknownNameError


@pytest.mark.parametrize("shape", SHAPES)
def test_chips_can_lie_in_every_shape(shape: str) -> None:
    for chips in (20, 100):
        goal = target_state(shape, chips, chips // 2, np.random.default_rng(chips))
        world = ChipsPhysics(chips, chips // 2)
        world.set_state(goal)
        world.settle()
        moved = np.abs(chip_places(world.state()[: world.width]) - chip_places(goal))
        assert moved.max() < 0.001
        assert np.abs(chip_places(goal)).max() < TABLE_HALF - 0.02 and tuple(goal[:3]) == pytest.approx(PARKED)


def test_shapes_have_their_sizes() -> None:
    side = np.sqrt(50) * SPACING
    square, disc, piles = (
        chip_places(target_state(shape, 50, 25, np.random.default_rng(1))) for shape in ("square", "disc", "two-piles")
    )
    np.testing.assert_allclose(np.ptp(square, axis=0), side, atol=SPACING)
    radius = np.linalg.norm(disc - disc.mean(0), axis=1).max()
    assert radius == pytest.approx(side / np.sqrt(np.pi), abs=SPACING)
    along = np.linalg.svd(piles - piles.mean(0), full_matrices=False)[2][0] @ (piles - piles.mean(0)).T
    assert np.diff(np.sort(along)).max() > SPACING  # a gap between the piles
    assert 15 <= (along > 0).sum() <= 35


def test_places_are_random_and_seeded() -> None:
    goals = [target_state("square", 20, 10, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    np.testing.assert_array_equal(goals[0], goals[1])
    middles = np.array([chip_places(goal).mean(0) for goal in goals[1:]])
    assert np.ptp(middles, axis=0).max() > 0.1


def test_an_unknown_shape_or_no_chips_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown goal shape 'sqare'. Did you mean 'square'"):
        target_state("sqare", 50, 25, np.random.default_rng(0))
    with pytest.raises(BadInputError, match="chips: expected 20 to 100 chips, came 0"):
        target_state("disc", 0, 0, np.random.default_rng(0))
