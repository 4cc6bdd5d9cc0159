"""Pictures of a foreign environment: square, of one size, drawn fast, and of the present state alone."""

from __future__ import annotations

import atexit
import importlib
import weakref
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from wm.envs.display import opengl_backend
from wm.envs.foreign.fields import NUMBER, NUMBERS, WHOLE, checked
from wm.envs.foreign.own_code import own_code, reason
from wm.envs.foreign.simulators import Simulator
from wm.envs.foreign.world import ForeignWorld
from wm.errors import BadInputError

_FINER = 2  # MuJoCo draws so many pixels per observed one along each axis: small things then move by less than a pixel
_DECOR = 1000  # room in the scene for sites, tendons and the like


@runtime_checkable
class View(Protocol):
    """Whatever draws an environment."""

    def frame(self) -> Any:
        """The picture of the present state, ``(height, width, 3)`` uint8 RGB."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def view_of(env: Any, world: ForeignWorld, simulator: Simulator, size: int) -> View:
    """MuJoCo's own renderer where there is MuJoCo, else the environment's `render`.

    Gymnasium's and dm_control's renderers take each other's OpenGL context away when one process uses both, so
    neither is used.

    Raises:
        BadInputError: there is no OpenGL here, or `camera` names what is not there.
    """
    model, data = getattr(simulator, "model", None), getattr(simulator, "data", None)
    if model is not None:
        return _MuJoCoView(model, data, _camera(env.unwrapped, world, model), _FINER * size)
    if world.camera:
        raise BadInputError(f"{world.at('camera')}: only MuJoCo has one, and {world.id} is not MuJoCo's.")
    return _OwnView(env, world.id, simulator)


def square(frame: Any, size: int, env_id: str) -> np.ndarray:
    """The frame's middle square, resized by averaging areas: ``(size, size, 3)`` uint8.

    Raises:
        BadInputError: it is not ``(height, width, 3)`` uint8.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        came = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise BadInputError(f"{env_id}: render: expected (height, width, 3) uint8, came {came}.")
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = np.ascontiguousarray(frame[top : top + side, left : left + side])
    if side == size:
        return middle.copy()
    return cv2.resize(middle, (size, size), interpolation=cv2.INTER_AREA)


class _OwnView:
    """The environment's own `render`."""

    def __init__(self, env: Any, env_id: str, simulator: Simulator) -> None:
        self.env, self.id, self.simulator = env, env_id, simulator

    def frame(self) -> Any:
        self.simulator.before_picture()
        with own_code(f"{self.id}: cannot be drawn here"):
            return self.env.render()

    def close(self) -> None:
        """Nothing: the environment holds it."""


class _MuJoCoView:
    """An off-screen OpenGL context and MuJoCo's scene in it: no shadows, no reflections, no multisampling."""

    def __init__(self, model: Any, data: Any, camera: Any, size: int) -> None:
        import mujoco

        self.mujoco, self.model, self.data, self.camera, self.size = mujoco, model, data, camera, size
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        self.context = _context(size)
        self.context.make_current()
        self.mujoco_context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.mujoco_context)
        self._finalizer = weakref.finalize(self, _free, self.context, self.mujoco_context)
        self._finalizer.atexit = False
        _open.add(self)
        atexit.unregister(_close_all)
        atexit.register(_close_all)  # the last registered is the first called: before OpenGL itself is shut down
        self.scene, self.options = mujoco.MjvScene(model, maxgeom=2 * model.ngeom + _DECOR), mujoco.MjvOption()
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.scene.flags[flag] = False

    def frame(self) -> np.ndarray:
        """After a step, places are those of the physics step before; they are brought up to date first."""
        mujoco, model, data = self.mujoco, self.model, self.data
        for derive in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_flex, mujoco.mj_tendon):
            derive(model, data)
        self.context.make_current()
        mujoco.mjv_updateScene(model, data, self.options, None, self.camera, mujoco.mjtCatBit.mjCAT_ALL, self.scene)
        rect, pixels = mujoco.MjrRect(0, 0, self.size, self.size), np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_render(rect, self.scene, self.mujoco_context)
        mujoco.mjr_readPixels(pixels, None, rect, self.mujoco_context)
        return pixels[::-1]

    def close(self) -> None:
        """Done by itself when this is no longer used, or the process ends."""
        self._finalizer()


_open: weakref.WeakSet[_MuJoCoView] = weakref.WeakSet()


def _close_all() -> None:
    for view in list(_open):
        view.close()


def _free(context: Any, mujoco_context: Any) -> None:
    context.make_current()
    mujoco_context.free()
    context.free()


def _context(size: int) -> Any:
    backend = opengl_backend()
    try:
        return importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
    except Exception as error:  # what a missing driver raises differs from driver to driver
        raise BadInputError(
            f"MuJoCo cannot draw here ({reason(error)}): it needs EGL or OSMesa (libegl1 or libosmesa6)."
        ) from error


def _camera(env: Any, world: ForeignWorld, model: Any) -> Any:
    """The declared camera; else the one that the environment itself would take."""
    import mujoco

    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    fields = dict(world.camera)
    name = fields.pop("name", None)
    if name is not None:
        cameras = [model.camera(index).name for index in range(model.ncam)]
        if name not in cameras:
            raise BadInputError(
                f"{world.at('camera.name')}: {world.id} has no camera '{name}'; it has {', '.join(cameras) or 'none'}."
            )
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, cameras.index(name)
    elif not fields and hasattr(env, "render_kwargs") and model.ncam:  # dm_control's first camera is its view
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    elif not fields:
        fields = _gymnasium_view(env, model)
    for field, value in fields.items():
        if field in world.camera:
            _check_field(world.at(f"camera.{field}"), camera, field, value)
        setattr(camera, field, np.asarray(value, np.float64) if field == "lookat" else value)
    return camera


def _check_field(what: str, camera: Any, field: str, value: Any) -> None:
    known = [each for each in dir(camera) if not each.startswith("_")]
    if field not in known:
        raise BadInputError(f"{what}: expected one of {', '.join(known)}, came '{field}'.")
    present = getattr(camera, field)
    if not isinstance(present, np.ndarray):
        checked(what, WHOLE if isinstance(present, int) else NUMBER, value)
    elif len(checked(what, NUMBERS, value)) != present.size:
        raise BadInputError(f"{what}: expected {present.size} numbers, came {len(value)}.")


def _gymnasium_view(env: Any, model: Any) -> dict[str, Any]:
    """What Gymnasium's renderer sets its free camera to, in the model's reference pose."""
    import mujoco

    for each in (env, *vars(env).values()):  # PointMaze has its renderer in an environment inside it
        renderer = getattr(each, "mujoco_renderer", None)
        if renderer is not None:
            data = mujoco.MjData(model)
            mujoco.mj_kinematics(model, data)
            middle = np.median(data.geom_xpos, axis=0)
            near = {"lookat": middle, "distance": model.stat.extent, "azimuth": 90.0, "elevation": -45.0}
            return near | dict(renderer.default_cam_config or {})
    return {}
