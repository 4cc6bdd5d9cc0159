"""MuJoCo's own renderer, seen from above: no shadows, no multisampling, light that is the same everywhere."""

from __future__ import annotations

import importlib
import weakref
from typing import Any

import mujoco
import numpy as np

from wm.envs.chips.physics import BLADE_GROUP
from wm.errors import BadInputError


class GLView:
    """An off-screen OpenGL context and MuJoCo's scene in it.

    Args:
        model: The simulation's model.
        backend: ``"egl"`` or ``"osmesa"``; one process can use only one of them.
        size: Side of the square picture, pixels.
        blade: Show the blade.

    Raises:
        BadInputError: this backend does not work here.
    """

    def __init__(self, model: Any, backend: str, size: int, blade: bool) -> None:
        self.model, self.size = model, size
        self.context = _context(backend, size)
        self.context.make_current()
        self.mujoco_context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.mujoco_context)
        self._finalizer = weakref.finalize(self, _free, self.context, self.mujoco_context)
        self.scene = mujoco.MjvScene(model, maxgeom=2 * model.ngeom)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.scene.flags[flag] = False
        self.options, self.camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self.options.geomgroup[BLADE_GROUP] = blade
        self.camera.lookat[:], self.camera.distance = 0.0, 1.0
        self.camera.azimuth, self.camera.elevation, self.camera.orthographic = 90.0, -90.0, True

    def picture(self, data: Any) -> np.ndarray:
        """``(size, size, 3)`` uint8 RGB of the simulation's present state."""
        self.context.make_current()
        mujoco.mj_kinematics(self.model, data)
        mujoco.mjv_updateScene(
            self.model, data, self.options, None, self.camera, mujoco.mjtCatBit.mjCAT_ALL, self.scene
        )
        rect = mujoco.MjrRect(0, 0, self.size, self.size)
        mujoco.mjr_render(rect, self.scene, self.mujoco_context)
        pixels = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, rect, self.mujoco_context)
        return pixels[::-1].copy()

    def close(self) -> None:
        """Give the context back; done by itself when this is no longer used, or the process ends."""
        self._finalizer()


def _free(context: Any, mujoco_context: Any) -> None:
    context.make_current()
    mujoco_context.free()
    context.free()


def _context(backend: str, size: int) -> Any:
    try:
        return importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
    except Exception as error:  # what a missing driver raises differs from driver to driver
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInputError(
            f"renderer '{backend}': no such OpenGL here ({reason}); 'raster' needs none, 'auto' takes what works."
        ) from error
