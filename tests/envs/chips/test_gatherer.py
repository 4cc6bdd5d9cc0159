from __future__ import annotations

import numpy as np

from wm.envs.chips.gatherer import GreedyGatherer, SweepGatherer
from wm.envs.chips.goals import target_state
from wm.envs.chips.metrics import chamfer
from wm.envs.chips.physics import TABLE_HALF, ChipsPhysics, chip_places, scattered


def test_both_gather_and_looking_ahead_gathers_more() -> None:
    left: dict[str, list[float]] = {"greedy": [], "sweep": []}
    for seed in range(4):
        goal = target_state("square", 30, 15, np.random.default_rng(seed))
        start = scattered(30, np.random.default_rng(100 + seed))
        for name, policy in (("greedy", GreedyGatherer(goal)), ("sweep", SweepGatherer(goal, seed))):
            world = ChipsPhysics(30, 15)
            world.set_state(start)
            for _ in range(8):
                stroke = policy(world.state()[: world.width])
                assert stroke.shape == (4,) and stroke.dtype == np.float32 and np.abs(stroke).max() <= 1.0
                world.stroke(TABLE_HALF * stroke[:2], TABLE_HALF * stroke[2:])
            distances = [chamfer(chip_places(s[: world.width]), chip_places(goal)) for s in (world.state(), start)]
            left[name].append(float(distances[0] / distances[1]))
    assert np.mean(left["sweep"]) < 0.4 and np.mean(left["sweep"]) < np.mean(left["greedy"]) < 0.7


def test_the_greedy_one_goes_behind_the_furthest_chip() -> None:
    chips = np.full((20, 2), 0.0)
    chips[7] = [-0.15, 0.0]
    state = np.concatenate([np.zeros(3), np.column_stack([chips, np.zeros(20)]).ravel()])
    goal = np.concatenate([np.zeros(3), np.tile([0.1, 0.0, 0.0], 20)])
    x0, y0, x1, y1 = GreedyGatherer(goal)(state) * TABLE_HALF
    np.testing.assert_allclose([x0, y0, x1, y1], [-0.17, 0.0, 0.087, 0.0], atol=1e-6)
