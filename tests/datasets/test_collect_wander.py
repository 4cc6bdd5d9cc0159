from __future__ import annotations

import numpy as np

from wm.datasets.collect.wander import WanderPolicy
from wm.specs import ActionSpec

SPEC = ActionSpec(("a0", "a1"), "1", (-1.0, 0.0), (1.0, 4.0), 10.0)
NOWHERE = np.empty(0)


def acted(seed: int, steps: int = 200) -> np.ndarray:
    policy = WanderPolicy(SPEC, seed)
    return np.stack([policy(NOWHERE) for _ in range(steps)])


def test_actions_are_inside_the_bounds_and_use_all_of_them() -> None:
    actions = np.concatenate([acted(seed) for seed in range(50)])
    assert actions.dtype == np.float32
    low, high = np.array(SPEC.low), np.array(SPEC.high)
    assert (actions >= low).all() and (actions <= high).all()
    counts = np.stack([np.histogram(actions[:, i], 5, (low[i], high[i]))[0] for i in range(2)])
    assert counts.min() > 0.08 * len(actions)
    np.testing.assert_allclose(actions.mean(0), (low + high) / 2, atol=0.15)


def test_a_seed_fixes_the_actions() -> None:
    np.testing.assert_array_equal(acted(1), acted(1))
    assert np.abs(acted(1) - acted(2)).max() > 0.1


def test_episodes_differ_in_strength_and_persistence() -> None:
    played = [acted(seed)[:, 0] for seed in range(60)]
    strengths = np.array([np.abs(actions).mean() for actions in played])
    kept = np.array([np.corrcoef(actions[:-1], actions[1:])[0, 1] for actions in played])
    assert strengths.min() < 0.35 and strengths.max() > 0.7
    assert kept.min() < 0.55 and kept.max() > 0.85
