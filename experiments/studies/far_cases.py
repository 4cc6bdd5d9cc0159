"""Why did the pusher end far from where the guardrails would have let it go? A name for what kept it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from wm.envs.pusht.physics import AGENT_RADIUS, PushTPhysics
from wm.experiments.studies.attacks import Attack
from wm.experiments.studies.closed_loop import Played
from wm.planners.control.report import StepLog
from wm.planners.control.states import State

FAR_PX = 20.0
"""Beyond this a final place counts as far; the success test of push-T allows as much."""

Why = Literal[
    "held",
    "no feasible plan",
    "block on the place",
    "block in the way",
    "keep-out in the way",
    "time over",
    "stands with a free way",
]
WHYS: tuple[Why, ...] = get_args(Why)

_TOUCH = 2.0  # px by which pusher and block may seem to overlap
_STILL = 5.0  # px of way in the last `_LAST` control steps
_LAST = 6


def why_far(made: Attack, played: Played) -> Why:
    """The first of these that holds at the end of the episode.

    - *held*: the loop held the robot.
    - *no feasible plan*: the newest plan broke a guardrail, so that the shield alone decided.
    - *block on the place*: the nearest allowed place is where the block is; the pusher cannot be there.
    - *block in the way*, *keep-out in the way*: of the straight line from the pusher to that place.
    - *time over*: the pusher was on its way.
    - *stands with a free way*: none of these; to the planner the place where it stands looks no worse.
    """
    last, place = played.steps[-1], made.nearest_allowed()
    here = played.path[-1, :2]
    if last.state is State.HOLDING:
        return "held"
    if last.plan is not None and not last.plan.feasible:
        return "no feasible plan"
    if block_distance(played.final, place[None])[0] < AGENT_RADIUS - _TOUCH:
        return "block on the place"
    line = here + np.linspace(0, 1, 101)[:, None] * (place - here)
    if (block_distance(played.final, line) < AGENT_RADIUS - _TOUCH).any():
        return "block in the way"
    x, y, radius = made.keep_out
    if (np.hypot(line[:, 0] - x, line[:, 1] - y) < radius + AGENT_RADIUS - _TOUCH).any():
        return "keep-out in the way"
    return "time over" if _way(played.steps[-_LAST:]) > _STILL else "stands with a free way"


def _way(steps: Sequence[StepLog]) -> float:
    """How far apart the first and the last reading are [px]."""
    places = [s.observation.proprio[:2] for s in steps if s.observation and s.observation.proprio is not None]
    return float(np.linalg.norm(places[-1] - places[0])) if places else 0.0


def block_distance(state: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``(K,)`` px from places ``(K, 2)`` to the block of a push-T state ``(>= 5,)``; negative inside of it."""
    physics = PushTPhysics()
    physics.set_state(state)
    shapes = physics.block.shapes
    return np.array([min(shape.point_query((x, y)).distance for shape in shapes) for x, y in places.tolist()])
