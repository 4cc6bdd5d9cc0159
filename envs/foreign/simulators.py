"""The whole state of a foreign environment: read it, put it back to the last bit, draw nothing but it."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wm.envs.foreign.own_code import one_line, own_code
from wm.envs.foreign.world import ForeignWorld
from wm.errors import BadInputError


@runtime_checkable
class Simulator(Protocol):
    """How a kind of environment keeps its state."""

    def get(self) -> dict[str, np.ndarray]:
        """All that the future and the picture depend on: name to ``(n,)`` float64, a copy, always in one order."""
        ...

    def set(self, numbers: np.ndarray) -> None:
        """Put back what `get` gave, concatenated."""
        ...

    def before_picture(self) -> None:
        """Make the next picture one of the state alone."""
        ...

    def after_step(self) -> None:
        """Keep the environment from ending its episode by itself."""
        ...


def simulator_of(env: Any, world: ForeignWorld) -> Simulator:
    """The simulator inside a bare environment, which was reset at least once.

    Raises:
        BadInputError: the state cannot be restored, the environment's own code raised, or a thing to be hidden is not
            there.
    """
    found: Simulator
    mujoco_parts = _mujoco_parts(env)
    if world.get_state is not None:
        found = _Declared(env, world)
    elif mujoco_parts is not None:
        found = _MuJoCo(env, *mujoco_parts)
    elif type(env).__module__.startswith("gymnasium.envs.classic_control"):
        with own_code(f"{world.id}: step"):
            found = _Classic(env)
    else:
        raise BadInputError(
            f"{world.id}: its state cannot be restored; declare get_state and set_state in a Python file "
            "(docs/your-own-env.md)."
        )
    if mujoco_parts is not None:
        _hide(world, mujoco_parts[0])
    elif world.hide:
        raise BadInputError(f"{world.at('hide')}: only MuJoCo's things can be hidden, and {world.id} is not MuJoCo's.")
    return found


class _MuJoCo:
    """`mjSTATE_INTEGRATION`: everything that MuJoCo's next step depends on.

    Args:
        env: The bare environment.
        model: Its `MjModel`.
        data: Its `MjData`.
    """

    def __init__(self, env: Any, model: Any, data: Any) -> None:
        import mujoco

        self.mujoco, self.model, self.data = mujoco, model, data
        state = mujoco.mjtState
        self.signature = int(state.mjSTATE_INTEGRATION)
        parts = [part for bit in range(int(state.mjNSTATE)) if (part := 1 << bit) & self.signature]
        sizes = {_part_name(mujoco, part): mujoco.mj_stateSize(model, part) for part in parts}
        self.sizes = {name: size for name, size in sizes.items() if size}
        self.dm_control = (
            getattr(env, "_env", None) if hasattr(getattr(env, "_env", None), "_reset_next_step") else None
        )
        if self.dm_control is not None:
            self.dm_control._step_limit = math.inf

    def get(self) -> dict[str, np.ndarray]:
        """By MuJoCo's own names, in its own order."""
        numbers = np.empty(sum(self.sizes.values()))
        self.mujoco.mj_getState(self.model, self.data, numbers, self.signature)
        return dict(zip(self.sizes, np.split(numbers, np.cumsum(list(self.sizes.values()))[:-1]), strict=True))

    def set(self, numbers: np.ndarray) -> None:
        """Restore, and derive everything else from it."""
        for _ in range(2):  # again: deriving the accelerations changes the next step's warm start
            self.mujoco.mj_setState(self.model, self.data, numbers, self.signature)
            self.mujoco.mj_forward(self.model, self.data)
        self.mujoco.mj_setState(self.model, self.data, numbers, self.signature)

    def before_picture(self) -> None:
        """Nothing: it draws the state and no more."""

    def after_step(self) -> None:
        """dm_control begins a new episode when it is stepped after its own end."""
        if self.dm_control is not None:
            self.dm_control._reset_next_step = False


class _Classic:
    """Gymnasium's classic control: the array `state`, in the precision in which it is stepped."""

    def __init__(self, env: Any) -> None:
        self.env = env
        middle = (env.action_space.low + env.action_space.high) / 2
        env.step(middle.astype(env.action_space.dtype))
        self.dtype = np.asarray(env.state).dtype  # a reset may give another one than a step
        env.reset()

    def get(self) -> dict[str, np.ndarray]:
        """One array, `state`."""
        self.env.state = np.array(self.env.state, self.dtype)
        return {"state": self.env.state.astype(np.float64)}

    def set(self, numbers: np.ndarray) -> None:
        """Restore the array."""
        self.env.state = numbers.astype(self.dtype)

    def before_picture(self) -> None:
        """Pendulum would draw the last torque, which is an action and not the state."""
        if hasattr(self.env, "last_u"):
            self.env.last_u = None

    def after_step(self) -> None:
        """Nothing: classic control goes on after its end."""


class _Declared:
    """The declaration's own `get_state` and `set_state`."""

    def __init__(self, env: Any, world: ForeignWorld) -> None:
        self.env, self.world = env, world
        self.getter, self.setter = world.at("get_state"), world.at("set_state")

    def get(self) -> dict[str, np.ndarray]:
        """One array, `state`."""
        assert self.world.get_state is not None
        with own_code(self.getter):
            came = self.world.get_state(self.env)
            numbers = np.array(came, np.float64).ravel()
        if not np.isfinite(numbers).all():
            raise BadInputError(f"{self.getter}: expected finite numbers, came {one_line(repr(came))}.")
        return {"state": numbers}

    def set(self, numbers: np.ndarray) -> None:
        """Hand it a copy."""
        assert self.world.set_state is not None
        with own_code(self.setter):
            self.world.set_state(self.env, numbers.copy())

    def before_picture(self) -> None:
        """Nothing is known of it."""

    def after_step(self) -> None:
        """Nothing is known of it."""


def _mujoco_parts(env: Any) -> tuple[Any, Any] | None:
    """MuJoCo's model and data inside a bare environment, or None."""
    if "mujoco" not in sys.modules:
        return None
    import mujoco

    physics = getattr(getattr(env, "_env", None), "physics", env)  # dm_control's, else the environment itself
    model, data = getattr(physics, "model", None), getattr(physics, "data", None)
    model, data = getattr(model, "ptr", model), getattr(data, "ptr", data)
    return (model, data) if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData) else None


def _part_name(mujoco: Any, part: int) -> str:
    """``"qpos"`` for `mjSTATE_QPOS`."""
    return str(mujoco.mjtState(part).name).removeprefix("mjSTATE_").lower()


def _hide(world: ForeignWorld, model: Any) -> None:
    places: Mapping[str, tuple[Any, int]] = {
        **{model.site(index).name: (model.site_rgba, index) for index in range(model.nsite)},
        **{model.geom(index).name: (model.geom_rgba, index) for index in range(model.ngeom)},
    }
    for name in world.hide:
        if name not in places:
            known = ", ".join(sorted(filter(None, places)))
            raise BadInputError(f"{world.at('hide')}: {world.id} has no geom or site '{name}'; it has {known}.")
        colours, index = places[name]
        colours[index, 3] = 0.0
