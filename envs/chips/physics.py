"""Chips on a table: dozens of small discs and boxes pushed by a blade, simulated by MuJoCo.

Seen from above everything is planar, so that a chip has two slides and a hinge instead of a free joint, discs collide
as spheres, and friction with the table is a damping that brings a chip to rest within about 0.1 s (the pushing is
quasi-static). Contacts have no friction. That leaves few constraints: a stroke takes milliseconds.

The task is the granular one of DINO-WM (Zhou et al. 2024, arXiv 2411.04983), whose simulator is another.

Length unit: m, x to the right and y upwards in the picture, origin in the table's middle. Angles in rad,
counter-clockwise.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from wm.envs.arguments import whole

TABLE_HALF = 0.25
"""Half the side of the square that the rim encloses, m."""
RIM = 0.02
"""Width of the rim, m."""
DISC_RADIUS, BOX_HALF = 0.009, 0.008
BLADE_HALF_WIDTH, BLADE_HALF_THICKNESS = 0.05, 0.004
BLADE_SPEED = 0.4
"""Of a stroke, m/s."""
DT = 0.01
MIN_CHIPS, MAX_CHIPS = 20, 100
APART = 0.024
"""Centres this far apart never touch, however two chips are turned, m."""
PARKED = (-0.24, 0.0, 0.0)
"""The blade's pose along the left rim, where it touches no chip of a start or of a goal; m, rad."""

TABLE_RGB, RIM_RGB, CHIP_RGB, BLADE_RGB = (236, 233, 226), (116, 108, 100), (190, 66, 44), (65, 105, 225)
"""Colours of the pictures; discs and boxes have one colour, so that a goal picture asks for no chip in particular."""

_CHIP_MASS, _BLADE_MASS = 0.01, 0.5  # kg
_SLIDING_S = 0.03  # a chip's speed falls to 1/e in this time
_BLADE_FORCE = 8.0  # N along each axis: enough for all chips, too little to press them into each other
_BLADE_GAIN = 50.0  # N s/m: the blade takes up its speed within one step
_AT_REST, _SETTLE_STEPS = 0.002, 60  # m/s; simulation steps at most
_HEIGHT = 0.012  # half the blade's height, m; nothing that happens depends on it
BLADE_GROUP = 1  # MuJoCo's group of the blade, that pictures leave out where it is lifted


class ChipsPhysics:
    """The simulation. Its state is MuJoCo's positions and velocities alone; no contact of before is remembered.

    Args:
        chips: Number of chips n.
        boxes: How many of them are boxes, the last ones of the state; the others are discs. None: half.

    Raises:
        BadInputError: 20 to 100 chips are possible, and no more boxes than chips.
    """

    def __init__(self, chips: int, boxes: int | None = None) -> None:
        chips = whole("chips", chips, MIN_CHIPS, MAX_CHIPS, "chips")
        boxes = chips // 2 if boxes is None else whole("boxes", boxes, 0, chips, f"of the {chips} chips")
        self.chips, self.boxes, self.width = chips, boxes, 3 + 3 * chips
        self.model = mujoco.MjModel.from_xml_string(_mjcf(chips, boxes))
        self.data = mujoco.MjData(self.model)

    def stroke(self, start: np.ndarray, end: np.ndarray) -> None:
        """Lower the blade at `start`, push to `end` at 0.4 m/s, wait until all is at rest, lift.

        The blade stands across its way. Where it meets more than it can push it stays behind.

        Args:
            start: ``(2,)`` m, on the table.
            end: ``(2,)`` m, on the table.
        """
        way = np.asarray(end, np.float64) - start
        length = float(np.linalg.norm(way))
        steps = max(1, math.ceil(length / (BLADE_SPEED * DT)))
        velocity = way / (steps * DT)
        data = self.data
        data.qpos[:3] = *start, math.atan2(way[1], way[0])
        data.qvel[:3] = *velocity, 0.0
        data.ctrl[:] = velocity
        mujoco.mj_step(self.model, data, steps)
        self.settle()

    def settle(self) -> None:
        """Hold the blade and wait until no chip moves, at most 0.6 s; then all is at rest."""
        self.data.ctrl[:] = 0.0
        for _ in range(_SETTLE_STEPS // 5):
            mujoco.mj_step(self.model, self.data, 5)
            if np.abs(self.data.qvel.reshape(-1, 3)[:, :2]).max() < _AT_REST:
                break
        self.data.qvel[:] = 0.0

    def drive(self, velocity: np.ndarray, turn: float, steps: int) -> None:
        """Move the lowered blade for some simulation steps of 0.01 s.

        Args:
            velocity: ``(2,)`` m/s in the world's axes.
            turn: rad/s.
            steps: Simulation steps.
        """
        self.data.ctrl[:] = velocity
        self.data.qvel[2] = turn
        mujoco.mj_step(self.model, self.data, steps)

    def state(self) -> np.ndarray:
        """Blade x, y, angle, then x, y, angle of each chip; then their velocities: ``(2 * (3 + 3 n),)`` float64."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def set_state(self, state: np.ndarray) -> None:
        """Put the simulation into a state; nothing is stepped.

        Args:
            state: ``(3 + 3 n,)`` poses, all at rest, or twice as many numbers, with the velocities.
        """
        self.data.qpos[:] = state[: self.width]
        self.data.qvel[:] = state[self.width :] if len(state) > self.width else 0.0
        self.data.ctrl[:] = 0.0


def chip_places(state: np.ndarray) -> np.ndarray:
    """``(n, 2)`` m, the chips' centres out of a state of poses ``(3 + 3 n,)`` alone."""
    return np.asarray(state)[3:].reshape(-1, 3)[:, :2]


def scattered(chips: int, rng: np.random.Generator, half: float = 0.2) -> np.ndarray:
    """A state ``(3 + 3 n,)`` of chips that lie apart, uniform in a square of this half side [m], at random angles."""
    places = np.empty((0, 2))
    while len(places) < chips:
        place = rng.uniform(-half, half, 2)
        if len(places) == 0 or np.linalg.norm(places - place, axis=1).min() > APART:
            places = np.vstack([places, place])
    poses = np.column_stack([places, rng.uniform(-np.pi, np.pi, chips)])
    return np.concatenate([PARKED, poses.ravel()])


def _mjcf(chips: int, boxes: int) -> str:
    """The MJCF model: the order of the bodies is the order of the state.

    Warm starts are off: a step depends on positions, velocities and controls alone.
    """
    return f"""
<mujoco>
  <option timestep="{DT}" gravity="0 0 0" solver="Newton" iterations="20">
    <flag warmstart="disable" autoreset="disable"/>
  </option>
  <visual>
    <headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/>
    <quality offsamples="0" shadowsize="0"/>
    <global offwidth="1024" offheight="1024" orthographic="true" fovy="{2 * (TABLE_HALF + RIM)}"/>
  </visual>
  <default>
    <geom condim="1" mass="{_CHIP_MASS}" solref="0.02 1" solimp="0.95 0.99 0.001" rgba="{_rgba(CHIP_RGB)}"/>
    <default class="wall"><geom type="plane" size="1 1 1" group="4" contype="2" conaffinity="1"/></default>
    <default class="seen"><geom type="box" contype="0" conaffinity="0" rgba="{_rgba(RIM_RGB)}"/></default>
  </default>
  <worldbody>
    {_table()}
    <body>
      <joint name="x" type="slide" axis="1 0 0" limited="true" range="{-TABLE_HALF} {TABLE_HALF}"/>
      <joint name="y" type="slide" axis="0 1 0" limited="true" range="{-TABLE_HALF} {TABLE_HALF}"/>
      <joint type="hinge" axis="0 0 1" armature="100"/>
      <geom type="box" size="{BLADE_HALF_THICKNESS} {BLADE_HALF_WIDTH} {_HEIGHT}" mass="{_BLADE_MASS}"
        contype="4" conaffinity="1" group="{BLADE_GROUP}" rgba="{_rgba(BLADE_RGB)}"/>
    </body>
    {_chip("sphere", f"{DISC_RADIUS}") * (chips - boxes)}
    {_chip("box", f"{BOX_HALF} {BOX_HALF} {BOX_HALF}") * boxes}
  </worldbody>
  <actuator>
    <velocity joint="x" kv="{_BLADE_GAIN}" forcelimited="true" forcerange="{-_BLADE_FORCE} {_BLADE_FORCE}"/>
    <velocity joint="y" kv="{_BLADE_GAIN}" forcelimited="true" forcerange="{-_BLADE_FORCE} {_BLADE_FORCE}"/>
  </actuator>
</mujoco>"""


def _table() -> str:
    """The rim's four inner faces as half-spaces, through which nothing can slip; table and rim only to be seen."""
    half, outer, under = TABLE_HALF, TABLE_HALF + RIM / 2, -0.05
    parts = [f'<geom class="seen" size="1 1 0.01" pos="0 0 {under}" rgba="{_rgba(TABLE_RGB)}"/>']
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        parts.append(f'<geom class="wall" pos="{half * x} {half * y} 0" zaxis="{-x} {-y} 0"/>')
        size = f"{RIM / 2} {half + RIM} 0.01" if x else f"{half + RIM} {RIM / 2} 0.01"
        parts.append(f'<geom class="seen" size="{size}" pos="{outer * x} {outer * y} -0.02"/>')
    return "\n    ".join(parts)


def _chip(kind: str, size: str) -> str:
    damping = _CHIP_MASS / _SLIDING_S
    turning = damping * DISC_RADIUS**2 / 2
    slides = "".join(f'<joint type="slide" axis="{axis}" damping="{damping}"/>' for axis in ("1 0 0", "0 1 0"))
    return f'<body>{slides}<joint axis="0 0 1" damping="{turning}"/><geom type="{kind}" size="{size}"/></body>\n    '


def _rgba(colour: tuple[int, int, int]) -> str:
    return " ".join(f"{value / 255:.4f}" for value in colour) + " 1"
