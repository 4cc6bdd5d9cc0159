"""What stands in the arm's world, and the camera that looks at it.

A KUKA LBR iiwa (`kuka_iiwa/model.urdf` of pybullet_data) on a pillar beside a table holds a rod with a red tip.
Bullet's own software renderer draws, so that no GL is needed.

Length unit: m, origin on the table's surface below the arm, x away from the arm, z upwards. Angles in rad.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

Task = Literal["reach", "push"]
PUSH_HEIGHT = 0.025
LOW = {"reach": (0.22, -0.25, 0.05), "push": (0.22, -0.25, PUSH_HEIGHT)}
HIGH = {"reach": (0.66, 0.25, 0.45), "push": (0.66, 0.25, 0.2)}
"""Corners of the tip's workspace, m; in end-effector mode the tip pushes at `PUSH_HEIGHT`."""
JOINTS = 7
TOOL_LINK = 7
"""Bullet's index of the link whose origin is the tool's tip; the seven before it are turned by the joints."""
TOOL_RADIUS = 0.015
CUBE_SIDE, CUBE_HEIGHT = 0.07, 0.05
TABLE_MIDDLE, TABLE_HALF = (0.44, 0.0), (0.31, 0.34)

_PILLAR = 0.51  # m: from so high the wrist reaches near and far places alike
_FLANGE, _ROD = 0.045, 0.36  # m along the last link; the rod is long so that the wrist seldom hides the cube
_TIP_LOW, _TIP_HIGH = -0.015, 0.065  # m: the red part of the rod, from its tip's middle
_CUBE_MASS, _FRICTION = 0.2, 0.5
_CUBE_RGBA, _TABLE_RGBA, _PILLAR_RGBA = (0.05, 0.30, 0.95, 1.0), (0.95, 0.93, 0.86, 1.0), (0.35, 0.35, 0.38, 1.0)

_AZIMUTH = 70.0  # degrees: from here the arm hides the cube least

_TOOL = """
  <material name="Tip"><color rgba="0.95 0.05 0.05 1"/></material>
  <material name="Rod"><color rgba="0.10 0.10 0.10 1"/></material>
  <joint name="rod_joint" type="fixed">
    <parent link="lbr_iiwa_link_7"/><child link="rod"/><origin xyz="0 0 {at}" rpy="3.141592653589793 0 0"/>
  </joint>
  <link name="rod">
    <inertial><mass value="0.1"/><inertia ixx="1e-3" ixy="0" ixz="0" iyy="1e-3" iyz="0" izz="1e-4"/></inertial>
    <visual><origin xyz="0 0 {tip_middle}"/><geometry><box size="{wide} {wide} {tip}"/></geometry>
      <material name="Tip"/></visual>
    <visual><origin xyz="0 0 {rod_middle}"/><geometry><box size="{thin} {thin} {rod}"/></geometry>
      <material name="Rod"/></visual>
    <collision><origin xyz="0 0 {tip_middle}"/><geometry><cylinder radius="{radius}" length="{tip}"/></geometry>
    </collision>
  </link>
</robot>"""


def load_bullet() -> ModuleType:
    """PyBullet, imported without the line that its C code prints."""
    if "pybullet" in sys.modules:
        return sys.modules["pybullet"]
    with _quiet():
        import pybullet
    return pybullet


@contextmanager
def _quiet() -> Iterator[None]:
    """Whatever C code prints to standard output and error goes nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)


@dataclass(frozen=True)
class _Camera:
    """Where a camera looks [m], from how far [m] and how high [degrees], and its field of view [degrees]."""

    at: tuple[float, float, float]
    distance: float
    elevation: float
    field_of_view: float


_CAMERAS: dict[Task, _Camera] = {
    "reach": _Camera((0.46, 0.04, 0.44), 1.25, 38.0, 46.0),  # near, and with the wrist in view: both show the depth
    "push": _Camera((0.439, 0.062, 0.145), 2.2, 42.0, 17.8),
}


class Scene:
    """One Bullet world with the arm, the table and, if wanted, the cube.

    Args:
        task: `"push"` has the cube; it also chooses the camera.

    Attributes:
        bullet: The `pybullet` module.
        client: Its connection; every call names it, so that several worlds live in one process.
        close: Disconnects; it is called by itself when the scene is forgotten, and a second call does nothing.
        arm: Bullet's number of the arm.
        cube: Bullet's number of the cube, or None.
    """

    def __init__(self, task: Task) -> None:
        self._camera = _CAMERAS[task]
        self.bullet: Any = load_bullet()
        with _quiet():
            self.client: int = self.bullet.connect(self.bullet.DIRECT)
            self.close = weakref.finalize(self, self.bullet.disconnect, self.client)
            self.arm: int = self._load_arm()
        table = (*TABLE_HALF, 0.02)
        self._box(table, (*TABLE_MIDDLE, -0.02), _TABLE_RGBA, felt_half=(5.0, 5.0, 0.02))  # nothing falls off
        self._box((0.09, 0.09, _PILLAR / 2), (0.0, 0.0, _PILLAR / 2), _PILLAR_RGBA)
        half = (CUBE_SIDE / 2, CUBE_SIDE / 2, CUBE_HEIGHT / 2)
        self.cube: int | None = (
            self._box(half, (0.44, 0.0, half[2]), _CUBE_RGBA, _CUBE_MASS) if task == "push" else None
        )

    def picture(self, size: int) -> np.ndarray:
        """The camera's view ``(size, size, 3)`` uint8."""
        return self._image(size, self.bullet.ER_NO_SEGMENTATION_MASK)[2]

    def bodies_seen(self, size: int) -> np.ndarray:
        """``(size, size)`` Bullet's number of the body in each pixel, -1 where there is none."""
        return self._image(size, 0)[4]

    def _image(self, size: int, flags: int) -> tuple[Any, ...]:
        bullet, camera = self.bullet, self._camera
        view = bullet.computeViewMatrixFromYawPitchRoll(
            camera.at, camera.distance, _AZIMUTH + 90.0, -camera.elevation, 0.0, 2
        )
        lens = bullet.computeProjectionMatrixFOV(camera.field_of_view, 1.0, 0.5, 4.0)
        image = bullet.getCameraImage(
            size,
            size,
            view,
            lens,
            shadow=0,
            renderer=bullet.ER_TINY_RENDERER,
            flags=flags,
            lightDirection=(0.6, 1.0, 2.0),
            physicsClientId=self.client,
        )
        picture = np.ascontiguousarray(np.reshape(image[2], (size, size, 4))[..., :3]).astype(np.uint8)
        return (*image[:2], picture, image[3], np.reshape(image[4], (size, size)))

    def _load_arm(self) -> int:
        import pybullet_data

        folder = Path(pybullet_data.getDataPath()) / "kuka_iiwa"
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "arm.urdf"
            file.write_text(_arm_with_tool(folder), encoding="utf-8")
            bullet = self.bullet
            return bullet.loadURDF(
                str(file),
                (0, 0, _PILLAR),
                useFixedBase=True,
                physicsClientId=self.client,
            )

    def _box(self, half: Any, at: Any, rgba: Any, mass: float = 0.0, felt_half: Any = None) -> int:
        bullet, where = self.bullet, {"physicsClientId": self.client}
        seen = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=half, rgbaColor=rgba, **where)
        felt = bullet.createCollisionShape(bullet.GEOM_BOX, halfExtents=felt_half or half, **where)
        body: int = bullet.createMultiBody(mass, felt, seen, at, **where)
        bullet.changeDynamics(body, -1, lateralFriction=_FRICTION, **where)
        return body


def _arm_with_tool(folder: Path) -> str:
    """The URDF of the arm with its own colours, meshes by absolute name, and the rod at its flange."""
    urdf = (folder / "model.urdf").read_text(encoding="utf-8").replace("meshes/", f"{folder}/meshes/")
    reach, tip, rod = _FLANGE + _ROD, _TIP_HIGH - _TIP_LOW, _ROD - _TIP_HIGH
    tool = _TOOL.format(
        at=reach,
        tip=tip,
        tip_middle=(_TIP_HIGH + _TIP_LOW) / 2,
        rod=rod,
        rod_middle=_TIP_HIGH + rod / 2,
        radius=TOOL_RADIUS,
        wide=2 * TOOL_RADIUS,
        thin=1.2 * TOOL_RADIUS,
    )
    return urdf.replace("</robot>", tool)
