"""`wm build` in seconds: few of everything, and the sizes of what is trained are small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from wm.envs.chips.env import ChipsEnv
from wm.experiments import build
from wm.experiments.worlds.chips import Chips
from wm.fit import FitConfig
from wm.refine import RefineConfig
from wm.train import TrainConfig, strokes_config

TINY = build.Recipe(
    episodes=20, steps=45, pretrain_episodes=12, pretrain_steps=3, draft_episodes=14, draft_steps=3,
    refine_episodes=12, refine_steps=3, predictor_steps=4, proposal_steps=3, decoder_steps=2,
)  # fmt: skip
"""Twenty episodes are the fewest, and 9 latent steps, here of 5 control steps, the shortest with a held-out report."""


@contextmanager
def small_training() -> Iterator[pytest.MonkeyPatch]:
    """Small batches, a small encoder, a small predictor and few chips instead of the shipped models'."""
    few = FitConfig(steps=1, batch=8)
    compact = TrainConfig(hidden=32, depth=1, pairs=1200, components=20, predictor=few, proposal=few)
    strokes = replace(strokes_config(), hidden=16, depth=1, predictor=few)
    pretrain = build.pretrain.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build.train, "TrainConfig", lambda **changes: replace(compact, **changes))
        patch.setattr(build.train, "strokes_config", lambda: strokes)
        patch.setattr(build, "RefineConfig", lambda: RefineConfig(schedule=few))
        patch.setattr(build.pretrain, "run", lambda *a, **settings: pretrain(*a, **settings | {"width": 8, "batch": 8}))
        patch.setattr(Chips, "make_env", lambda self, image_size=None: ChipsEnv(chips=20, image_size=image_size or 96))
        yield patch
