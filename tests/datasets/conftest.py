from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from wm.datasets.schema import DatasetSpec, Episode
from wm.datasets.writer import EpisodeWriter
from wm.specs import ActionSpec, EnvSpec, ProprioSpec

SIZE = 12


@pytest.fixture
def spec() -> DatasetSpec:
    action = ActionSpec(("dx", "dy"), "100 px", (-1.0, -1.0), (1.0, 1.0), 10.0)
    env = EnvSpec("toy", action, ProprioSpec(("x", "y", "vx"), ("px", "px", "px/s")), ("a", "b", "c", "d"))
    return DatasetSpec(env, SIZE, recipe={"command": "wm collect", "seed": 3, "sizes": [1, 2]})


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    def make(steps: int, number: int = 0, **changes: object) -> Episode:
        rng = np.random.default_rng(number)
        arrays: dict[str, object] = {
            "frames": rng.integers(0, 256, (steps + 1, SIZE, SIZE, 3), np.uint8),
            "proprio": rng.normal(size=(steps + 1, 3)).astype(np.float32),
            "state": rng.normal(size=(steps + 1, 4)),
            "actions": rng.normal(size=(steps, 2)).astype(np.float32),
        }
        return Episode(**{**arrays, "seed": number, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_store(
    tmp_path: Path, spec: DatasetSpec, make_episode: Callable[..., Episode]
) -> Callable[[Iterable[int]], Path]:
    """Writes a store of episodes with the given numbers of actions, seeded 0, 1, 2 …"""

    def make(lengths: Iterable[int]) -> Path:
        with EpisodeWriter(tmp_path / "store", spec) as writer:
            for seed, steps in enumerate(lengths):
                assert writer.append(make_episode(steps, seed)) == seed
        return tmp_path / "store"

    return make
