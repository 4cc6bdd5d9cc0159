"""`wm/Chips-v0`: push dozens of small chips about a table with a blade, seen from above."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from wm.envs.actions import clipped_action
from wm.envs.arguments import picture_size
from wm.envs.chips.draw import draw, known_renderer
from wm.envs.chips.gl import GLView
from wm.envs.chips.metrics import SUCCESS_CHAMFER, chamfer, coverage
from wm.envs.chips.physics import RIM, TABLE_HALF, ChipsPhysics, chip_places, scattered
from wm.errors import BadInputError
from wm.specs import ActionSpec, EnvSpec, ProprioSpec

ActionMode = Literal["stroke", "velocity"]
SPEED, TURN = 0.25, np.pi
"""Of one action unit in velocity mode: m/s and rad/s."""
_STROKE_HZ, _VELOCITY_HZ, _SUBSTEPS = 0.5, 10.0, 10
_BLADE_FAR, _FAST = 1.0, 100.0
"""What a given state may hold at most: the blade's distance along an axis, m; any velocity, m/s or rad/s."""


class ChipsEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Push 20 to 100 chips, discs and boxes, on a table with a rim.

    The table is 0.5 m × 0.5 m inside the rim, x to the right, y upwards in the picture, the origin in its middle. A
    disc is 18 mm wide, a box 16 mm, the blade 100 mm × 8 mm.

    ## Action space
    | mode | num | action | low | high | unit |
    |---|---|---|---|---|---|
    | `stroke` (default) | 0, 1 | where the blade is lowered, x0 and y0 | -1 | 1 | 0.25 m |
    | | 2, 3 | where it is lifted again, x1 and y1 | -1 | 1 | 0.25 m |
    | `velocity` | 0, 1 | velocity of the lowered blade, vx and vy | -1 | 1 | 0.25 m/s |
    | | 2 | its turning rate | -1 | 1 | π rad/s |

    A stroke pushes straight at 0.4 m/s with the blade across its way, waits until all is at rest, and lifts the blade;
    it takes at most 2.5 s. In velocity mode a control step takes 0.1 s. The blade pushes with 8 N at most and stays
    behind where it meets more. An action outside the box is clipped to it; NaN or infinity is refused with
    `BadInputError`.

    ## Observation space
    | key | shape | type | meaning |
    |---|---|---|---|
    | `image` | (size, size, 3) | uint8 | RGB from above, 0.54 m × 0.54 m |
    | `proprio` (velocity mode) | (6,) | float32 | blade's x, y [m], angle [rad], vx, vy [m/s], turning rate [rad/s] |

    Between strokes the blade is lifted: it is not in the picture and has no influence, so stroke mode has no
    proprioception.

    ## Info
    `state` `(3 + 3 n,)`: x, y [m], angle [rad] of the blade and of each of the n chips, discs first; `full_state` adds
    as many velocities (zero after a stroke). With a goal also `chamfer_m` (the Chamfer distance to the goal's chips),
    `chamfer_fraction` (of the start's), `coverage` (share of the goal's places with a chip) and `is_success`.

    ## Reward and end
    With a goal state (`reset(options={"goal_state": …})`): reward 1 and `terminated` when the Chamfer distance is below
    12 mm, else 0. Without a goal it never terminates.

    ## Start
    Chips apart, uniform in the inner 0.4 m × 0.4 m, at random angles, at rest; the blade beside them at the rim.
    `reset(options={"state": …})` starts from a given state.

    Args:
        render_mode: `"rgb_array"` or None.
        image_size: Side of the observed picture, pixels.
        chips: Number of chips, 20 to 100.
        boxes: How many of them are boxes; None means half.
        action_mode: `"stroke"` or `"velocity"`.
        renderer: `"raster"`, what learned models are trained on; or MuJoCo's own on `"egl"` or `"osmesa"`; `"auto"`
            takes EGL, OSMesa or the rasteriser, the first that works here.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        image_size: int = 96,
        chips: int = 50,
        boxes: int | None = None,
        action_mode: ActionMode = "stroke",
        renderer: str = "raster",
    ) -> None:
        if action_mode not in ("stroke", "velocity"):
            raise BadInputError(f"action_mode: expected 'stroke' or 'velocity', came '{action_mode}'.")
        image_size = picture_size(image_size)
        self.render_mode, self.image_size, self.action_mode = render_mode, image_size, action_mode
        self.physics = ChipsPhysics(chips, boxes)
        self.spec_ = chips_spec(self.physics.chips, action_mode)
        self.renderer = known_renderer(renderer)
        self._view = None
        if self.renderer != "raster":
            self._view = GLView(self.physics.model, self.renderer, image_size, self._blade_down)
        self.action_space = spaces.Box(-1.0, 1.0, (self.spec_.action.width,), np.float32)
        seen: dict[str, spaces.Space[Any]] = {"image": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)}
        if self.spec_.proprio is not None:
            seen["proprio"] = spaces.Box(-np.inf, np.inf, (self.spec_.proprio.width,), np.float32)
        self.observation_space = spaces.Dict(seen)  # type: ignore[assignment]
        self.goal_state: np.ndarray | None = None
        self.start_chamfer = 0.0

    @property
    def env_spec(self) -> EnvSpec:
        """Names, units and bounds that datasets and models carry."""
        return self.spec_

    @property
    def kinematics(self) -> None:
        """None: chips hold the blade back, so where it goes is not known exactly."""
        return None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the start state.
            options: `state` to start from and `goal_state` to be reached, each ``(3 + 3 n,)`` or twice as many numbers.

        Raises:
            BadInputError: a state has the wrong length, is not finite, or a chip is off the table.
        """
        super().reset(seed=seed)
        options = options or {}
        goal = options.get("goal_state")
        self.goal_state = None if goal is None else self._checked_state("goal_state", goal)
        given = options.get("state")
        self.set_state(scattered(self.physics.chips, self.np_random) if given is None else given)
        if self.goal_state is not None:
            self.start_chamfer = self._chamfer(self.goal_state)
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One stroke, or one control step of 0.1 s; see the class for the action.

        Raises:
            BadInputError: the action is not as many finite numbers as it should be.
        """
        action = clipped_action(action, self.spec_.action)
        if self.action_mode == "stroke":
            self.physics.stroke(TABLE_HALF * action[:2], TABLE_HALF * action[2:])
        else:
            self.physics.drive(SPEED * action[:2], TURN * action[2], _SUBSTEPS)
        info = self._info()
        success = bool(info.get("is_success", False))
        return self._observation(), float(success), success, False, info

    def get_state(self) -> np.ndarray:
        """The full state ``(2 * (3 + 3 n),)``; `set_state` restores it."""
        return self.physics.state()

    def set_state(self, state: Any) -> None:
        """Put the world into a state of poses, at rest, or of poses and velocities (see the class).

        Raises:
            BadInputError: wrong length, not finite, a chip is off the table, the blade far away, or a velocity absurd.
        """
        self.physics.set_state(self._checked_state("state", state))

    def render(self) -> np.ndarray | None:
        """The picture of the present state, ``(size, size, 3)`` uint8, or None without a render mode."""
        return self._picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Give back what the renderer holds."""
        if self._view is not None:
            self._view.close()

    @property
    def _blade_down(self) -> bool:
        return self.action_mode == "velocity"

    def _picture(self) -> np.ndarray:
        if self._view is not None:
            return self._view.picture(self.physics.data)
        return draw(self.physics.data.qpos, self.physics.boxes, self.image_size, blade=self._blade_down)

    def _observation(self) -> dict[str, np.ndarray]:
        seen = {"image": self._picture()}
        if self._blade_down:
            data = self.physics.data
            seen["proprio"] = np.concatenate([data.qpos[:3], data.qvel[:3]]).astype(np.float32)
        return seen

    def _info(self) -> dict[str, Any]:
        full = self.physics.state()
        info: dict[str, Any] = {"state": full[: self.physics.width], "full_state": full}
        if self.goal_state is not None:
            distance = self._chamfer(self.goal_state)
            info["chamfer_m"] = distance
            info["chamfer_fraction"] = distance / self.start_chamfer if self.start_chamfer > 0 else 0.0
            info["coverage"] = coverage(chip_places(info["state"]), chip_places(self.goal_state))
            info["is_success"] = distance < SUCCESS_CHAMFER
        return info

    def _chamfer(self, goal: np.ndarray) -> float:
        return float(chamfer(chip_places(self.physics.data.qpos), chip_places(goal)))

    def _checked_state(self, name: str, state: Any) -> np.ndarray:
        width, what = self.physics.width, f"chips {name}"
        try:
            array = np.asarray(state, np.float64)
        except (TypeError, ValueError):
            raise BadInputError(f"{what}: expected {width} or {2 * width} numbers, came {state!r}.") from None
        if array.shape not in ((width,), (2 * width,)) or not np.isfinite(array).all():
            came = f"shape {array.shape}" if array.shape not in ((width,), (2 * width,)) else "NaN or infinity"
            raise BadInputError(f"{what}: expected {width} or {2 * width} finite numbers, came {came}.")
        far = float(np.abs(chip_places(array[:width])).max())
        if far > TABLE_HALF + RIM:
            raise BadInputError(
                f"{what}: expected chips on the table, |x| and |y| <= {TABLE_HALF} m, came {far:.3f} m."
            )
        if float(np.abs(array[:2]).max()) > _BLADE_FAR or float(np.abs(array[width:]).max(initial=0.0)) > _FAST:
            raise BadInputError(
                f"{what}: expected the blade within {_BLADE_FAR:g} m of the middle and no velocity above {_FAST:g} m/s "
                f"or rad/s, came {array[:2].tolist()} and {float(np.abs(array[width:]).max(initial=0.0)):g}."
            )
        return array


def chips_spec(chips: int = 50, action_mode: ActionMode = "stroke") -> EnvSpec:
    """The specification for datasets and models; strokes are counted as two seconds each."""
    bodies = ("blade", *(f"chip{index}" for index in range(chips)))
    names = tuple(f"{body}_{what}" for body in bodies for what in ("x", "y", "angle"))
    if action_mode == "stroke":
        ends = ("x0", "y0", "x1", "y1")
        stroke = ActionSpec(ends, "0.25 m", (-1.0,) * 4, (1.0,) * 4, _STROKE_HZ, TABLE_HALF / (TABLE_HALF + RIM))
        return EnvSpec("chips", stroke, None, names)
    speeds = ("vx", "vy", "turn")
    action = ActionSpec(speeds, "0.25 m/s, pi rad/s", (-1.0,) * 3, (1.0,) * 3, _VELOCITY_HZ)
    units = ("m", "m", "rad", "m/s", "m/s", "rad/s")
    return EnvSpec("chips", action, ProprioSpec(("x", "y", "angle", "vx", "vy", "turn"), units), names)
