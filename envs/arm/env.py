"""`wm/ArmReach-v0` and `wm/ArmPush-v0`: a KUKA iiwa that reaches, or pushes a cube about a table, seen by a camera."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import gymnasium
import numpy as np
from gymnasium import spaces

from wm.envs.actions import clipped_action
from wm.envs.arguments import picture_size
from wm.envs.arm.goals import FULL, STATE_NAMES, SUCCESS_M, distance, random_state
from wm.envs.arm.physics import ANGLES, DT, KP, KV, SCALE, SPEEDS, SUBSTEPS, ArmPhysics, setpoint_path
from wm.envs.arm.scene import PUSH_HEIGHT, Task
from wm.errors import BadInputError, UnknownNameError
from wm.kinematics import PointKinematics
from wm.specs import ActionSpec, EnvSpec, ProprioSpec

ActionMode = Literal["ee", "joint"]
_HZ = 10.0
_SLACK = 0.05
"""How far outside of its workspace the tip of a given state may be, m."""
_FAR = 2.0
"""Where a given state's cube may be at most, m from the origin along each axis."""
_JOINT_SPEED = 10.0
"""What the URDF allows each joint, rad/s."""


class ArmEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Move the red tip of an arm's tool to a place, or push a blue cube to a place with it.

    x points away from the arm, y to its left, z up; the origin is on the table below the arm. The tip's workspace is x
    0.22 to 0.66 m, y -0.25 to 0.25 m; z 0.05 to 0.45 m when reaching, and 0.025 m (joint mode: to 0.2 m) when pushing.
    The cube is 70 mm wide and 50 mm high and slides with a friction of 0.25 (0.5 for each surface).

    ## Action space
    One control step takes 0.1 s, 24 substeps of 1/240 s.

    | mode | num | action | low | high | unit |
    |---|---|---|---|---|---|
    | `ee` (default), push | 0, 1 | target minus set-point at the start of the control step, x and y | -1 | 1 | 0.1 m |
    | `ee`, reach | 0, 1, 2 | the same, x, y and z | -1 | 1 | 0.1 m |
    | `joint` | 0 … 6 | velocity of each joint, as far as its limits allow | -10 | 10 | rad/s |

    In `ee` mode the target pulls a set-point, a point under PD control that stays in the workspace and that nothing
    holds back (at full speed 4 cm per control step and axis); the arm follows it by inverse kinematics, its rod upright
    when pushing. In `joint` mode the arm stops where its tip would leave the workspace; at full speed that can come a
    few centimetres too late. An action outside the box is clipped to it; NaN or infinity is refused with
    `BadInputError`.

    ## Observation space
    | key | shape | type | meaning |
    |---|---|---|---|
    | `image` | (size, size, 3) | uint8 | RGB of a fixed camera, from above at 42° (reach: 38°, nearer) |
    | `proprio` (`ee`, push) | (4,) | float32 | set-point's x, y [m] and vx, vy [m/s] |
    | `proprio` (`ee`, reach) | (6,) | float32 | set-point's x, y, z [m] and vx, vy, vz [m/s] |
    | `proprio` (`joint`) | (14,) | float32 | the joints [rad] and their velocities [rad/s] |

    ## Info
    `state`, reach `(6,)`: the tip's x, y, z [m] and velocity [m/s]; push `(7,)`: the tip's x, y, the cube's x, y [m]
    and angle [rad], the tip's vx, vy [m/s]. In `ee` mode the tip is the set-point. `full_state`, `(20,)` and `(32,)`,
    adds the joints, their velocities and the rest of the cube's motion. With a goal also `distance_m` and `is_success`.

    ## Reward and end
    With a goal state (`reset(options={"goal_state": …})`): reward 1 and `terminated` when the tip (reach) or the cube's
    centre (push; x and y) is less than 5 cm from the goal's, else 0. Without a goal it never terminates.

    ## Start
    At rest, the tip anywhere in the workspace, the cube at any angle 7 cm or more inside of it and not touched.
    `reset(options={"state": …})` starts from a given state.

    Args:
        task: `"reach"` or `"push"`.
        action_mode: `"ee"` (end effector) or `"joint"`.
        image_size: Side of the observed picture, pixels.
        render_mode: `"rgb_array"` or None.

    Raises:
        UnknownNameError: no such task or action mode.
        BadInputError: the picture's size is out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        task: str = "reach",
        action_mode: str = "ee",
        image_size: int = 96,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.spec_ = arm_spec(task, action_mode)
        image_size = picture_size(image_size)
        self.task, self.action_mode = cast(Task, task), action_mode
        self.render_mode, self.image_size = render_mode, image_size
        action, proprio = self.spec_.action, self.spec_.proprio
        assert proprio is not None
        self.action_space = spaces.Box(np.array(action.low, np.float32), np.array(action.high, np.float32))
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            image=spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
            proprio=spaces.Box(-np.inf, np.inf, (proprio.width,), np.float32),
        )
        self.physics = ArmPhysics(self.task)
        self.goal_state: np.ndarray | None = None
        self.set_state(random_state(self.task, np.random.default_rng(0)))

    @property
    def env_spec(self) -> EnvSpec:
        """Names, units and bounds that datasets and models carry."""
        return self.spec_

    @property
    def kinematics(self) -> PointKinematics | None:
        """The set-point's motion when pushing, exact until it meets a wall of the workspace.

        None in joint mode, and when reaching: `PointKinematics` is planar.
        """
        if (self.task, self.action_mode) != ("push", "ee"):
            return None
        return PointKinematics(KP, KV, DT, SUBSTEPS, SCALE, relative=True)

    @property
    def joint_limits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lower and upper limits [rad] and greatest velocities [rad/s] of the joints, each ``(7,)``, from the URDF."""
        return self.physics.low.copy(), self.physics.high.copy(), self.physics.speed.copy()

    def guardrail_specs(self) -> dict[str, Any]:
        """The arm's limits as plain numbers, from which guardrails are built.

        Returns:
            `workspace`: x low, y low, x high, y high [m] of the tip, as in a rules file; `readings`: a list of what
            limits numbers of proprioception, each with the arguments of a joint-limits guardrail: `indices`, `low`,
            `high`, `unit`, `name`.
        """
        low, high = (corner.tolist() for corner in self.physics.workspace)
        if self.action_mode == "ee":
            axes = len(self.spec_.action.names)
            readings = [_reading(range(axes), low[:axes], high[:axes], "m", "tip")]
        else:
            lower, upper, speed = (limit.tolist() for limit in self.joint_limits)
            slower = [-limit for limit in speed]
            readings = [
                _reading(range(7), lower, upper, "rad", "joints"),
                _reading(range(7, 14), slower, speed, "rad/s", "joint_velocities"),
            ]
        return {"workspace": [*low[:2], *high[:2]], "readings": readings}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the start state.
            options: `state` to start from and `goal_state` to be reached, each a `state` or a `full_state` (see Info).

        Raises:
            BadInputError: a state has the wrong length, is not finite, or is far from the workspace.
        """
        super().reset(seed=seed)
        options = options or {}
        goal, given = options.get("goal_state"), options.get("state")
        self.goal_state = None if goal is None else self._checked_state("goal_state", goal)
        self.set_state(random_state(self.task, self.np_random) if given is None else given)
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step; see the class for the action.

        Raises:
            BadInputError: the action is not as many finite numbers as it should be.
        """
        numbers = clipped_action(action, self.spec_.action)
        if self.action_mode == "joint":
            self.physics.drive(numbers)
        else:
            self._follow(numbers)
        info = self._info()
        success = bool(info.get("is_success", False))
        return self._observation(), float(success), success, False, info

    def get_state(self) -> np.ndarray:
        """The full state; `set_state` restores it."""
        return self.physics.state[FULL[self.task]]

    def set_state(self, state: Any) -> None:
        """Put the world into a `state` (joints by inverse kinematics, the cube at rest) or a `full_state`.

        Raises:
            BadInputError: wrong length, not finite, or far from the workspace.
        """
        array, order, physics = self._checked_state("state", state), FULL[self.task], self.physics
        if len(array) == len(order):
            physics.state[order] = array
        elif self.task == "reach":
            physics.place_arm(array[:3], array[3:])
        else:
            physics.place_arm(np.array([*array[:2], PUSH_HEIGHT]), np.array([*array[5:], 0.0]))
            physics.place_cube(*array[2:5])

    def render(self) -> np.ndarray | None:
        """The picture of the present state, ``(size, size, 3)`` uint8, or None without a render mode."""
        return self._picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the simulation."""
        self.physics.scene.close()

    def _follow(self, action: np.ndarray) -> None:
        state, axes = self.physics.state[:6], len(action)
        low, high = (corner.copy() for corner in self.physics.workspace)
        if axes == 2:
            low[2] = high[2] = PUSH_HEIGHT
        target = state[:3].copy()
        target[:axes] += SCALE * action
        self.physics.follow(setpoint_path(state, target, low, high))

    def _picture(self) -> np.ndarray:
        self.physics.write()
        return self.physics.scene.picture(self.image_size)

    def _observation(self) -> dict[str, np.ndarray]:
        state = self.physics.state
        if self.action_mode == "joint":
            sensed = [state[ANGLES], state[SPEEDS]]
        else:
            axes = len(self.spec_.action.names)
            sensed = [state[:axes], state[3 : 3 + axes]]
        return {"image": self._picture(), "proprio": np.concatenate(sensed).astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        full = self.get_state()
        info: dict[str, Any] = {"state": full[: len(STATE_NAMES[self.task])], "full_state": full}
        if self.goal_state is not None:
            info["distance_m"] = distance(self.task, full, self.goal_state)
            info["is_success"] = info["distance_m"] < SUCCESS_M
        return info

    def _checked_state(self, name: str, state: Any) -> np.ndarray:
        short, full, what = len(STATE_NAMES[self.task]), len(FULL[self.task]), f"arm {self.task} {name}"
        try:
            array = np.array(state, np.float64)
        except (TypeError, ValueError):
            raise BadInputError(f"{what}: expected {short} or {full} numbers, came {state!r}.") from None
        if array.shape not in ((short,), (full,)) or not np.isfinite(array).all():
            came = f"shape {array.shape}" if array.shape not in ((short,), (full,)) else "NaN or infinity"
            raise BadInputError(f"{what}: expected {short} or {full} finite numbers, came {came}.")
        axes = 3 if self.task == "reach" else 2
        low, high = (corner[:axes] for corner in self.physics.workspace)
        tip = array[:axes]
        if (tip < low - _SLACK).any() or (tip > high + _SLACK).any():
            raise BadInputError(
                f"{what}: expected the tip from {low.tolist()} to {high.tolist()} m, came {tip.tolist()}."
            )
        if self.task == "push" and np.abs(array[2:4]).max() > _FAR:
            raise BadInputError(f"{what}: expected the cube within {_FAR:g} m of the arm, came {array[2:4].tolist()}.")
        return array


def arm_spec(task: str = "reach", action_mode: str = "ee") -> EnvSpec:
    """The specification for datasets and models.

    Raises:
        UnknownNameError: no such task or action mode.
    """
    if task not in get_args(Task):
        raise UnknownNameError("arm task", str(task), get_args(Task))
    if action_mode not in get_args(ActionMode):
        raise UnknownNameError("arm action mode", str(action_mode), get_args(ActionMode))
    names_of_state = STATE_NAMES[cast(Task, task)]
    if action_mode == "joint":
        joints = tuple(f"joint{number}" for number in range(1, 8))
        names = tuple(f"{joint}_velocity" for joint in joints)
        action = ActionSpec(names, "rad/s", (-_JOINT_SPEED,) * 7, (_JOINT_SPEED,) * 7, _HZ)
        return EnvSpec(
            f"arm-{task}", action, ProprioSpec((*joints, *names), ("rad",) * 7 + ("rad/s",) * 7), names_of_state
        )
    axes = ("x", "y", "z") if task == "reach" else ("x", "y")
    count = len(axes)
    action = ActionSpec(tuple(f"d{axis}" for axis in axes), "0.1 m", (-1.0,) * count, (1.0,) * count, _HZ)
    sensed = (*axes, *(f"v{axis}" for axis in axes))
    return EnvSpec(f"arm-{task}", action, ProprioSpec(sensed, ("m",) * count + ("m/s",) * count), names_of_state)


def _reading(indices: range, low: list[float], high: list[float], unit: str, name: str) -> dict[str, Any]:
    return {"indices": list(indices), "low": low, "high": high, "unit": unit, "name": name}
