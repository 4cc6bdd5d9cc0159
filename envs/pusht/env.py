"""`wm/PushT-v0`: push a T-shaped block with a disc, seen from above."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from wm.envs.arguments import picture_size
from wm.envs.pusht.draw import draw
from wm.envs.pusht.physics import DT, KP, KV, STATE_NAMES, SUBSTEPS, WORLD_SIZE, PushTPhysics
from wm.envs.pusht.success import block_reached, reached
from wm.errors import BadInputError
from wm.kinematics import PointKinematics
from wm.specs import ActionSpec, EnvSpec, ProprioSpec

ACTION_SCALE_PX = 100.0
POSITIONS_PX = (-512.0, 1024.0)
"""What a state's positions may be: the table and as much again around it."""
ANGLES_RAD = (-1e4, 1e4)
"""What a state's angle may be, rad; it is not wrapped."""
ActionMode = Literal["relative", "absolute"]


class PushTEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Push a T-shaped block with a round pusher.

    ## Action space
    `Box(2,)` float32, one control step (0.1 s, 10 physics steps) of a PD-controlled pusher.

    | mode | num | action | low | high | unit |
    |---|---|---|---|---|---|
    | `relative` (default) | 0, 1 | target minus position at the start of the control step, x and y | -1 | 1 | 100 px |
    | `absolute` | 0, 1 | target x and y | 0 | 512 | px |

    An action outside the box is clipped to it; NaN or infinity is refused with `BadInputError`.

    ## Observation space
    | key | shape | type | meaning |
    |---|---|---|---|
    | `image` | (size, size, 3) | uint8 | RGB from above, the world's 512 × 512 px |
    | `proprio` | (4,) | float32 | pusher's x, y [px] and vx, vy [px/s] |

    ## Info
    `state` `(7,)`: agent x, y, block x, y [px], block angle [rad], agent vx, vy [px/s]; `full_state` `(10,)` adds the
    block's vx, vy, angular velocity; with a goal also `is_success` and `is_block_success`.

    ## Reward and end
    With a goal state (`reset(options={"goal_state": …})`): reward 1 and `terminated` when the goal is reached
    (‖Δ(agent xy, block xy)‖ < 20 px and |wrapped Δθ| < π/9), else 0. Without a goal it never terminates.

    ## Start
    Pusher uniform in [50, 450)², block uniform in [100, 400)², angle uniform in [-π, π), at rest, as gym-pusht's; drawn
    again while pusher and block overlap. `reset(options={"state": …})` starts from a given state.

    Args:
        render_mode: `"rgb_array"` or None.
        image_size: Side of the observed picture, pixels.
        action_mode: `"relative"` or `"absolute"`.
        draw_target: Draw gym-pusht's green target as well (only for comparison with its pictures).
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        image_size: int = 96,
        action_mode: ActionMode = "relative",
        draw_target: bool = False,
    ) -> None:
        if action_mode not in ("relative", "absolute"):
            raise BadInputError(f"action_mode: expected 'relative' or 'absolute', came '{action_mode}'.")
        image_size = picture_size(image_size)
        self.render_mode, self.image_size, self.draw_target = render_mode, image_size, draw_target
        self.action_mode = action_mode
        self.spec_ = push_t_spec(action_mode)
        action = self.spec_.action
        self.action_space = spaces.Box(
            np.array(action.low, np.float32), np.array(action.high, np.float32), dtype=np.float32
        )
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            image=spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
            proprio=spaces.Box(-np.inf, np.inf, (4,), np.float32),
        )
        self.physics = PushTPhysics()
        self.goal_state: np.ndarray | None = None

    @property
    def env_spec(self) -> EnvSpec:
        """Names, units and bounds that datasets and models carry."""
        return self.spec_

    @property
    def kinematics(self) -> PointKinematics:
        """The pusher's exact motion: it is kinematic, so contact never moves it."""
        relative = self.action_mode == "relative"
        return PointKinematics(KP, KV, DT, SUBSTEPS, ACTION_SCALE_PX if relative else 1.0, relative)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the start state.
            options: `state` (5, 7 or 10 numbers) to start from; `goal_state` (5 or 7 numbers) to be reached.

        Raises:
            BadInputError: a state has the wrong length, is not finite, or is far from the table.
        """
        super().reset(seed=seed)
        options = options or {}
        goal = options.get("goal_state")
        self.goal_state = None if goal is None else _checked_state("goal_state", goal)
        if options.get("state") is not None:
            self.set_state(options["state"])
        else:
            self.set_state(random_state(self.np_random))
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step; see the class for the action.

        Raises:
            BadInputError: the action is not two finite numbers.
        """
        action = np.asarray(action, np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise BadInputError(f"action: expected 2 finite numbers, came {action.tolist()}.")
        low, high = self.spec_.action.low, self.spec_.action.high
        target = np.clip(action, low, high)
        if self.action_mode == "relative":
            target = target * ACTION_SCALE_PX + np.array(self.physics.agent.position)
        self.physics.step((target[0], target[1]))
        info = self._info()
        success = bool(info.get("is_success", False))
        return self._observation(), float(success), success, False, info

    def get_state(self) -> np.ndarray:
        """The full state ``(10,)``; `set_state` restores it."""
        return self.physics.state()

    def set_state(self, state: Any) -> None:
        """Put the world into a state of 5, 7 or 10 numbers (see `reset`); missing velocities are zero.

        Raises:
            BadInputError: wrong length, not finite, or far from the table.
        """
        self.physics.set_state(_checked_state("state", state))

    def render(self) -> np.ndarray | None:
        """The picture of the present state, ``(size, size, 3)`` uint8, or None without a render mode."""
        return self._picture() if self.render_mode == "rgb_array" else None

    def _picture(self) -> np.ndarray:
        return draw(self.physics.state(), self.image_size, target=self.draw_target)

    def _observation(self) -> dict[str, np.ndarray]:
        agent = self.physics.agent
        return {"image": self._picture(), "proprio": np.array([*agent.position, *agent.velocity], np.float32)}

    def _info(self) -> dict[str, Any]:
        full = self.physics.state()
        info: dict[str, Any] = {"state": full[:7], "full_state": full}
        if self.goal_state is not None:
            info["is_success"] = reached(full, self.goal_state)
            info["is_block_success"] = block_reached(full, self.goal_state)
        return info


def push_t_spec(action_mode: ActionMode = "relative") -> EnvSpec:
    """Push-T's specification for datasets and models."""
    if action_mode == "relative":
        action = ActionSpec(("dx", "dy"), "100 px", (-1.0, -1.0), (1.0, 1.0), 10.0)
    else:
        action = ActionSpec(("x", "y"), "px", (0.0, 0.0), (WORLD_SIZE, WORLD_SIZE), 10.0)
    proprio = ProprioSpec(("x", "y", "vx", "vy"), ("px", "px", "px/s", "px/s"))
    return EnvSpec("pusht", action, proprio, STATE_NAMES)


def random_state(rng: np.random.Generator) -> np.ndarray:
    """A start state ``(5,)`` at rest, pusher and block apart."""
    physics = PushTPhysics()
    while True:
        agent, block = rng.uniform(50, 450, 2), rng.uniform(100, 400, 2)
        state = np.array([*agent, *block, rng.uniform(-np.pi, np.pi)])
        physics.set_state(state)
        nearest = min(shape.point_query(physics.agent.position).distance for shape in physics.block.shapes)
        if nearest > 16.0:
            return state


def _checked_state(name: str, state: Any) -> np.ndarray:
    try:
        array = np.asarray(state, np.float64)
    except (TypeError, ValueError):
        raise BadInputError(f"push-T {name}: expected 5, 7 or 10 numbers, came {state!r}.") from None
    if array.shape not in ((5,), (7,), (10,)) or not np.isfinite(array).all():
        raise BadInputError(f"push-T {name}: expected 5, 7 or 10 finite numbers, came {array.tolist()}.")
    for what, values, (low, high) in (("positions", array[:4], POSITIONS_PX), ("the angle", array[4:5], ANGLES_RAD)):
        if values.min() < low or values.max() > high:
            raise BadInputError(f"push-T {name}: expected {what} from {low:g} to {high:g}, came {values.tolist()}.")
    return array
