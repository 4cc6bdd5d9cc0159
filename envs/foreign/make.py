"""Make a foreign environment, or say in one line why not."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from wm.envs.display import prepare_display
from wm.envs.foreign.own_code import own_code
from wm.envs.foreign.world import ForeignWorld
from wm.errors import BadInputError

_PACKAGES = {"gymnasium_robotics": "gymnasium-robotics", "shimmy": "shimmy dm_control"}
"""Modules whose package is called otherwise, or needs another one."""

_WITHOUT_OPENGL = ("gymnasium.envs.classic_control", "gymnasium.envs.box2d")


def require_known(env_id: str) -> None:
    """Import the module of ``"module:Id"``, if one is named, and look the id up.

    Raises:
        BadInputError: the module is not installed, or there is no such id.
    """
    module, _, bare = env_id.rpartition(":")
    entry = getattr(gymnasium.registry.get(bare), "entry_point", "")
    prepare_display(opengl=not str(entry).startswith(_WITHOUT_OPENGL))
    if module:
        _import(module)
    if bare not in gymnasium.registry:
        near = difflib.get_close_matches(bare, gymnasium.registry, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        where = f" after importing '{module}'" if module else "; one of a package is written 'module:Id'"
        raise BadInputError(f"unknown environment '{env_id}'.{hint} Gymnasium has no such id{where}.")


def make_foreign(world: ForeignWorld) -> gymnasium.Env[Any, Any]:
    """The environment, without a time limit and with pictures.

    Raises:
        BadInputError: it cannot be made, has no ``rgb_array``, or no Box of finite actions.
    """
    require_known(world.id)
    with own_code(f"{world.id}: cannot be made"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gymnasium.make(
            world.id,
            render_mode="rgb_array",
            max_episode_steps=-1,  # no TimeLimit
            disable_env_checker=True,
            **dict(world.kwargs),
        )
    if "rgb_array" not in (env.metadata.get("render_modes") or ()):
        raise BadInputError(
            f"{world.id}: expected the render mode 'rgb_array', came {env.metadata.get('render_modes') or 'none'}."
        )
    _require_box(world.id, env.action_space)
    return env


def _import(module: str) -> None:
    with own_code(f"module '{module}' cannot be imported"):
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # some greet their user
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            package = _PACKAGES.get(module.split(".")[0])
            how = f"`pip install {package}` installs it." if package else "is it installed, and its name right?"
            raise BadInputError(f"no module '{error.name}': {how}") from error


def _require_box(env_id: str, space: Any) -> None:
    what = f"{env_id}: actions: expected a Box of one dimension with finite bounds"
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype.kind != "f":
        raise BadInputError(f"{what}, came {space}.")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        raise BadInputError(f"{what}, came {space.low.tolist()} to {space.high.tolist()}.")
