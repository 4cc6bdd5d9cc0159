"""Foreign worlds under ids of their own, so that the contract's suite and its worker processes can make them."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import gymnasium

from wm.envs.foreign.env import ForeignEnv
from wm.envs.foreign.load import load_world
from wm.envs.foreign.world import ForeignWorld, Goal, Proprio

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MODULE = __name__


def pendulum() -> ForeignWorld:
    goal = Goal(of=("state",), tolerance=1.0, angles=(0,))
    return ForeignWorld("Pendulum-v1", proprio=Proprio(("observation[0:3]",)), goal=goal)


def mountain_car() -> ForeignWorld:
    return ForeignWorld("MountainCarContinuous-v0", repeat=2, goal=Goal(of=("observation[0]",), tolerance=0.05))


def reacher() -> ForeignWorld:
    goal = Goal(of=("qpos[0:2]",), tolerance=1.0, angles=(0, 1))
    return ForeignWorld("Reacher-v5", name="mujoco-reacher", hide=("target",), goal=goal)


WORLDS = {"pendulum": pendulum, "mountain-car": mountain_car, "reacher": reacher}
"""What comes with gymnasium and mujoco."""

if importlib.util.find_spec("gymnasium_robotics"):
    WORLDS["pointmaze"] = partial(load_world, str(EXAMPLES / "pointmaze.toml"))
if importlib.util.find_spec("shimmy") and importlib.util.find_spec("dm_control"):
    WORLDS["dm-reacher"] = partial(load_world, str(EXAMPLES / "reacher.toml"))


def make(world: str, image_size: int = 48, render_mode: str | None = "rgb_array") -> ForeignEnv:
    return ForeignEnv(WORLDS[world](), image_size, render_mode)


IDS = {name: f"{MODULE}:foreign/{name}-v0" for name in WORLDS}
for _name in WORLDS:
    gymnasium.register(f"foreign/{_name}-v0", entry_point=make, kwargs={"world": _name})
