"""Held-out tasks by the environment's name."""

from __future__ import annotations

from wm.experiments.episode import Task
from wm.experiments.worlds import find_world

DEVELOPMENT = 1000
"""Seeds of goals from here on are for development: settings are chosen on them, and never on those below."""


def purpose(seed: int) -> str:
    """Of goals drawn from a seed: ``development`` or ``test``."""
    return "development" if seed >= DEVELOPMENT else "test"


def sample_tasks(
    env_name: str,
    seed: int,
    count: int,
    offset: int | None = None,
    image_size: int | None = None,
    kind: str | None = None,
) -> list[Task]:
    """The world's `World.sample_tasks`; arguments and errors are the same.

    Raises:
        UnknownNameError: no such environment.
    """
    return find_world(env_name).sample_tasks(seed, count, kind=kind, offset=offset, image_size=image_size)
