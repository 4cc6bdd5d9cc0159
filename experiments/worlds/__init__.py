"""The worlds that the commands collect, plan and evaluate in: one file each, with all that they need to know of it."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from wm.envs import ENV_IDS
from wm.errors import UnknownNameError

if TYPE_CHECKING:
    from wm.experiments.worlds.base import World

WORLDS = {
    "pusht": "wm.experiments.worlds.pusht:PushT",
    "chips": "wm.experiments.worlds.chips:Chips",
    "arm-reach": "wm.experiments.worlds.arm:ArmReach",
    "arm-push": "wm.experiments.worlds.arm:ArmPush",
}
"""Name to the class of a world, ``module:Class``: its simulator is imported when the world is asked for."""

ALIASES = {"arm": "arm-push", **{gym_id: short for short, gym_id in ENV_IDS.items()}}
"""Other names of our own worlds: the arm's, whose robot is that of both its tasks, and Gymnasium's ids."""


@cache
def find_world(name: str) -> World:
    """A world by name; always the same object, for a world has no state.

    Args:
        name: One of `WORLDS` or `ALIASES`; or a foreign environment: a Gymnasium id, ``module:Id``, or the path of its
            declaration, ``….toml`` or ``….py`` (docs/your-own-env.md).

    Raises:
        UnknownNameError: no such world.
        BadInputError: a foreign environment that cannot be used.
    """
    if name in ALIASES:
        return find_world(ALIASES[name])
    if name.startswith("wm/"):
        raise UnknownNameError("environment", name, ENV_IDS.values())
    if name not in WORLDS:
        if not _foreign(name):
            raise UnknownNameError("environment", name, WORLDS)
        from wm.experiments.worlds.foreign import foreign_world

        return foreign_world(name)
    module, _, cls = WORLDS[name].partition(":")
    world: World = getattr(import_module(module), cls)()
    return world


def _foreign(name: str) -> bool:
    """Whether a name that is none of ours is meant for Gymnasium."""
    return ":" in name or name.endswith((".toml", ".py")) or re.search(r"-v\d+$", name) is not None
