from __future__ import annotations

import numpy as np
import pytest

from wm.envs.pusht.draw import USUAL
from wm.envs.pusht.env import PushTEnv
from wm.envs.pusht.physics import WORLD_SIZE
from wm.envs.pusht.shifts import DISC_RADIUS, OTHER_COLOURS, SHIFTS, ShiftedPushTEnv, disc_place
from wm.errors import BadInputError, UnknownNameError

STATE = np.array([100.0, 130.0, 300.0, 280.0, 0.7])


def first(env: PushTEnv, seed: int = 0) -> np.ndarray:
    picture: np.ndarray = env.reset(seed=seed, options={"state": STATE})[0]["image"]
    return picture


def of_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a picture has exactly this colour: inside of a thing, not at its edges."""
    inside: np.ndarray = (picture == np.array(colour)).all(-1)
    assert inside.sum() >= 4
    return inside


def at(picture: np.ndarray, x: float, y: float) -> list[int]:
    scale = len(picture) / WORLD_SIZE
    colour: list[int] = picture[int(y * scale), int(x * scale)].tolist()
    return colour


@pytest.mark.parametrize("shift", sorted(SHIFTS))
def test_without_strength_nothing_is_shifted_and_with_it_only_the_picture_is(shift: str) -> None:
    usual, none, full = PushTEnv(), ShiftedPushTEnv(shift, 0.0), ShiftedPushTEnv(shift)
    assert np.array_equal(first(none), first(usual))
    assert np.abs(first(full).astype(int) - first(usual)).mean() > 0.5
    half = np.abs(first(ShiftedPushTEnv(shift, 0.5)).astype(int) - first(usual)).mean()
    assert 0 < half < np.abs(first(full).astype(int) - first(usual)).mean()
    options = {"state": STATE, "goal_state": STATE + 50}
    assert np.array_equal(usual.reset(options=options)[1]["state"], full.reset(options=options)[1]["state"])
    for action in np.random.default_rng(0).uniform(-1, 1, (8, 2)):
        expected, came = usual.step(action), full.step(action)
        assert np.array_equal(expected[4]["full_state"], came[4]["full_state"])
        assert np.array_equal(expected[0]["proprio"], came[0]["proprio"]) and expected[1:4] == came[1:4]


@pytest.mark.parametrize("part", ["agent", "block", "table"])
def test_other_colours_are_where_the_usual_ones_were(part: str) -> None:
    usual, shifted = first(PushTEnv()), first(ShiftedPushTEnv("colour"))
    where = of_colour(usual, getattr(USUAL, part))
    assert np.array_equal(where, of_colour(shifted, getattr(OTHER_COLOURS, part)))


@pytest.mark.parametrize("shift", ["texture", "distractor"])
def test_block_and_pusher_lie_on_what_is_shifted(shift: str) -> None:
    for seed in range(10):
        usual, shifted = first(PushTEnv(), seed), first(ShiftedPushTEnv(shift), seed)
        for part in (USUAL.agent, USUAL.block):
            assert np.array_equal(of_colour(usual, part), of_colour(shifted, part))


def test_a_texture_is_always_the_same() -> None:
    env = ShiftedPushTEnv("texture")
    assert np.array_equal(first(env, 1), first(ShiftedPushTEnv("texture"), 2))
    assert at(first(env), 60, 450) != at(first(env), 450, 60)


def test_the_disc_moves_with_time_on_its_seeds_path_inside_the_table() -> None:
    env, again = ShiftedPushTEnv("distractor"), ShiftedPushTEnv("distractor")
    assert np.array_equal(first(env, 5), first(again, 5)) and not np.array_equal(first(env, 5), first(env, 6))
    first(env, 5)
    pictures = [env.step(np.zeros(2))[0]["image"] for _ in range(3)]
    moved = [np.abs(one.astype(int) - other).max() for one, other in zip(pictures, pictures[1:], strict=False)]
    assert min(moved) > 20
    places = np.array([[disc_place(seed, step) for step in range(60)] for seed in range(20)])
    assert places.min() > DISC_RADIUS and places.max() < WORLD_SIZE - DISC_RADIUS
    assert 3 < np.linalg.norm(np.diff(places, axis=1), axis=-1).max() < 40


def test_an_unknown_shift_and_a_strength_out_of_range_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown shift of push-T's pictures 'color'\. Did you mean 'colour'\?"):
        ShiftedPushTEnv("color")
    with pytest.raises(BadInputError, match=r"shift 'texture': expected a strength from 0 to 1, came 1\.5"):
        ShiftedPushTEnv("texture", 1.5)
