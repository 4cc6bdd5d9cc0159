from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import wm.envs
from wm.envs.chips.draw import draw
from wm.envs.chips.env import ChipsEnv, chips_spec
from wm.envs.chips.goals import target_state
from wm.envs.chips.metrics import reached
from wm.envs.chips.physics import chip_places, scattered
from wm.errors import BadInputError


def small(**options: Any) -> ChipsEnv:
    return ChipsEnv(**{"image_size": 32, "chips": 20, **options})


@pytest.mark.filterwarnings("ignore::UserWarning")  # unbounded proprioception
def test_velocity_mode_passes_gymnasiums_checker_as_well() -> None:
    check_env(small(action_mode="velocity"))


def test_a_velocity_that_was_put_back_goes_on() -> None:
    one, other = small(action_mode="velocity"), small(action_mode="velocity")
    one.reset(seed=0)
    for _ in range(12):
        observation, *_ = one.step(np.array([0.9, 0.3, 0.2]))
    state = one.get_state()
    np.testing.assert_allclose(observation["proprio"], np.r_[state[:3], state[63:66]], rtol=1e-6)
    assert observation["proprio"][3] == pytest.approx(0.9 * 0.25, abs=0.05)
    other.reset(options={"state": state})
    for _ in range(5):
        ends = [env.step(np.array([0.5, -0.6, -0.2])) for env in (one, other)]
        np.testing.assert_array_equal(ends[0][0]["image"], ends[1][0]["image"])
        np.testing.assert_array_equal(one.get_state(), other.get_state())


def test_observation_and_info_describe_the_state() -> None:
    env = small()
    observation, info = env.reset(seed=1)
    for _ in range(3):
        state = env.get_state()
        np.testing.assert_array_equal(info["full_state"], state)
        np.testing.assert_array_equal(info["state"], state[:63])
        np.testing.assert_array_equal(observation["image"], draw(state[:63], 10, 32))
        assert set(info) == {"state", "full_state"} and set(observation) == {"image"}
        observation, reward, terminated, truncated, info = env.step(np.array([-0.9, 0.1, 0.5, 0.2]))
        assert reward == 0.0 and not terminated and not truncated
    assert small(render_mode=None).render() is None


def test_tells_how_far_the_goal_is() -> None:
    env = small()
    goal = target_state("disc", 20, 10, np.random.default_rng(0))
    start = scattered(20, np.random.default_rng(5))
    _, info = env.reset(options={"state": start, "goal_state": goal})
    assert info["chamfer_fraction"] == 1.0 and info["chamfer_m"] > 0.02 and not info["is_success"]
    halfway = goal.copy()
    halfway[3:].reshape(-1, 3)[:10, :2] = chip_places(start)[:10]
    env.set_state(halfway)
    _, _, _, _, info = env.step(np.array([-1.0, -1.0, -1.0, -1.0]))
    assert 0.0 < info["chamfer_fraction"] < 1.0 and 0.4 < info["coverage"] < 1.0
    env.set_state(goal)
    _, reward, terminated, _, info = env.step(np.array([-1.0, -1.0, -1.0, -1.0]))
    assert reached(info["state"], goal) and info["is_success"] and terminated and reward == 1.0
    assert info["coverage"] == 1.0
    assert "is_success" not in env.reset(seed=0)[1]
    assert env.reset(options={"state": goal, "goal_state": goal})[1]["chamfer_fraction"] == 0.0


@pytest.mark.parametrize("action", [[np.nan] * 4, [0.0, 0.0, np.inf, 0.0], [0.0], 0.5])
def test_refuses_an_unusable_action_and_stays_where_it_was(action: Any) -> None:
    env = small()
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(BadInputError, match="action: expected 4 finite numbers .*, came"):
        env.step(np.array(action))
    np.testing.assert_array_equal(env.get_state(), before)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (np.zeros(62), r"expected 63 or 126 finite numbers, came shape \(62,\)"),
        (np.full(63, np.nan), "expected 63 or 126 finite numbers, came NaN or infinity"),
        ("abc", "expected 63 or 126 numbers, came 'abc'"),
        (np.r_[1.5, np.zeros(62)], r"expected the blade within 1 m of the middle .*, came \[1.5, 0.0\] and 0"),
        (np.r_[np.zeros(63), np.full(63, 1e12)], r"expected the blade .* no velocity above 100 .* and 1e\+12"),
        (np.full(63, 0.3), r"expected chips on the table, \|x\| and \|y\| <= 0.25 m, came 0.300 m"),
    ],
)
def test_refuses_an_unusable_state(state: Any, message: str) -> None:
    env = small()
    env.reset(seed=0)
    with pytest.raises(BadInputError, match="chips state: " + message):
        env.set_state(state)
    with pytest.raises(BadInputError, match="chips goal_state: " + message):
        env.reset(options={"goal_state": state})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chips": 0}, "chips: expected 20 to 100 chips, came 0"),
        ({"boxes": 21}, "boxes: expected 0 to 20 of the 20 chips, came 21"),
        ({"image_size": 8}, "image_size: expected 16 to 1024 pixels, came 8"),
    ],
)
def test_refuses_unknown_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        small(**options)


def test_spec_states_units_and_bounds() -> None:
    stroke, velocity = chips_spec(), chips_spec(30, "velocity")
    assert stroke.action.names == ("x0", "y0", "x1", "y1") and stroke.action.unit == "0.25 m" and stroke.proprio is None
    assert len(stroke.state_names) == 153 and len(velocity.state_names) == 93
    assert velocity.action.low == (-1.0,) * 3 and velocity.action.control_hz == 10.0
    assert velocity.proprio is not None and velocity.proprio.units[2:4] == ("rad", "m/s")
    assert wm.envs.ENV_IDS[stroke.env] == "wm/Chips-v0"
