"""A foreign Gymnasium environment that keeps our convention."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from wm.envs.actions import clipped_action
from wm.envs.arguments import picture_size
from wm.envs.foreign.make import make_foreign
from wm.envs.foreign.own_code import own_code
from wm.envs.foreign.simulators import simulator_of
from wm.envs.foreign.sources import Numbers, all_numbers
from wm.envs.foreign.view import square, view_of
from wm.envs.foreign.world import ForeignWorld
from wm.errors import BadInputError
from wm.specs import ActionSpec, EnvSpec, ProprioSpec

_DEFAULT_FPS = 10.0


class ForeignEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Any environment that draws itself, has a Box of actions, and whose state can be restored.

    ## Action space
    The environment's own Box. An action outside it is clipped to it; NaN or infinity is refused with `BadInputError`.
    One control step is `world.repeat` steps of the environment with one action.

    ## Observation space
    | key | shape | type | meaning |
    |---|---|---|---|
    | `image` | (size, size, 3) | uint8 | RGB: the middle square of `render()`, resized; MuJoCo's without shadows |
    | `proprio` (when declared) | (P,) | float32 | the declared numbers |

    ## Info
    `state`, float64: first the G numbers that the goal test compares, then what the robot feels, then all that the
    simulator needs to go on from here; given back as `reset(options={"state": …})` it is restored to the last bit,
    pictures included. `full_state` is the same. With a goal also `distance` and `is_success`.

    ## Reward and end
    With a goal state (`reset(options={"goal_state": …})`): reward 1 and `terminated` when the goal is reached, else 0.
    Without a goal it never terminates. The environment's own reward, goal, time limit and end are ignored.

    ## Start
    The environment's own, or a given state. Its random numbers are not part of a state.

    Args:
        world: The declaration.
        image_size: Side of the observed picture, pixels.
        render_mode: `"rgb_array"` or None.

    Raises:
        BadInputError: it cannot be made or drawn here, has no Box of finite actions, its state cannot be restored, or
            the declaration names what is not there. This and every method: the environment's or the declaration's
            own code raised.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, world: ForeignWorld, image_size: int = 96, render_mode: str | None = "rgb_array") -> None:
        image_size = picture_size(image_size)
        self.world, self.image_size, self.render_mode = world, image_size, render_mode
        self.env = make_foreign(world)
        observation = self._restarted(None)
        self.simulator = simulator_of(self.env.unwrapped, world)
        state = self.simulator.get()
        example = all_numbers(observation, state)
        self._goal_of = Numbers(world.at("goal.of"), world.goal.of if world.goal else (), example)
        self._feels = Numbers(world.at("proprio.keys"), world.proprio.keys, example)
        self._compared, self._felt = self._goal_of(example), self._feels(example)
        self.spec_ = self._spec({name: numbers.size for name, numbers in state.items()})
        self.goal_state: np.ndarray | None = None
        self.action_space = spaces.Box(
            np.array(self.spec_.action.low, np.float32), np.array(self.spec_.action.high, np.float32), dtype=np.float32
        )
        seen: dict[str, spaces.Space[Any]] = {"image": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)}
        if self.spec_.proprio is not None:
            seen["proprio"] = spaces.Box(-np.inf, np.inf, (self.spec_.proprio.width,), np.float32)
        self.observation_space = spaces.Dict(seen)  # type: ignore[assignment]
        self._view = view_of(self.env, world, self.simulator, image_size)
        self._picture()

    @property
    def env_spec(self) -> EnvSpec:
        """Names, units and bounds that datasets and models carry."""
        return self.spec_

    @property
    def kinematics(self) -> None:
        """None: nothing is known of its motion."""
        return None

    @property
    def goal_width(self) -> int:
        """G: how many numbers, the first of a state, the goal test compares."""
        return len(self._compared)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the start state.
            options: `state` to start from, as `info["state"]`; `goal_state` to be reached, as that or only its first G
                numbers.

        Raises:
            BadInputError: a state has the wrong length or is not finite, or a goal is given and none is declared.
        """
        super().reset(seed=seed)
        options = options or {}
        goal = options.get("goal_state")
        self.goal_state = None if goal is None else self._checked_goal(goal)
        observation = self._restarted(_short(seed))
        if options.get("state") is None:
            self._read(observation)
        else:
            self.set_state(options["state"])
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step; see the class for the action.

        Raises:
            BadInputError: the action is not as many finite numbers as it should be.
        """
        action = clipped_action(action, self.spec_.action).astype(self.env.action_space.dtype)
        for _ in range(self.world.repeat):
            with own_code(f"{self.world.id}: step"):
                observation, *_ = self.env.step(action.copy())
            self.simulator.after_step()
        self._read(observation)
        info = self._info()
        success = bool(info.get("is_success", False))
        return self._observation(), float(success), success, False, info

    def get_state(self) -> np.ndarray:
        """The full state; `set_state` restores it."""
        return np.concatenate([self._compared, self._felt, *self.simulator.get().values()])

    def set_state(self, state: Any) -> None:
        """Put the environment into a state that `get_state` or `info["state"]` gave.

        Raises:
            BadInputError: wrong length or not finite.
        """
        state = self._checked("state", state, (len(self.spec_.state_names),))
        self._compared, self._felt, rest = np.split(state, np.cumsum([len(self._compared), len(self._felt)]))
        self.simulator.set(rest)

    def render(self) -> np.ndarray | None:
        """The picture of the present state, ``(size, size, 3)`` uint8, or None without a render mode."""
        return self._picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Give back what the environment holds."""
        self._view.close()
        with own_code(f"{self.world.id}: close"):
            self.env.close()

    def _restarted(self, seed: int | None) -> Any:
        """The observation that the environment's own episode begins with."""
        with own_code(f"{self.world.id}: reset"):
            observation, _ = self.env.reset(seed=seed)
        return observation

    def _picture(self) -> np.ndarray:
        return square(self._view.frame(), self.image_size, self.world.id)

    def _read(self, observation: Any) -> None:
        """Keep the numbers of an observation that are compared and felt: they cannot be asked for again later."""
        numbers = all_numbers(observation, self.simulator.get())
        self._compared, self._felt = self._goal_of(numbers), self._feels(numbers)

    def _observation(self) -> dict[str, np.ndarray]:
        seen = {"image": self._picture()}
        if self.spec_.proprio is not None:
            seen["proprio"] = self._felt.astype(np.float32)
        return seen

    def _info(self) -> dict[str, Any]:
        state = self.get_state()
        info: dict[str, Any] = {"state": state, "full_state": state.copy()}
        if self.goal_state is not None:
            assert self.world.goal is not None
            info["distance"] = self.world.goal.distance(self._compared, self.goal_state)
            info["is_success"] = self.world.reached(self._compared, self.goal_state)
        return info

    def _spec(self, sizes: dict[str, int]) -> EnvSpec:
        world, box = self.world, self.env.action_space
        assert isinstance(box, spaces.Box)
        fps = float(self.env.metadata.get("render_fps") or _DEFAULT_FPS)
        names = tuple(f"a{index}" for index in range(box.shape[0]))
        low, high = (tuple(map(float, bound.astype(np.float32))) for bound in (box.low, box.high))
        action = ActionSpec(names, "1", low, high, world.control_hz or fps / world.repeat)
        felt, angles = tuple(world.proprio.names) or tuple(self._feels.names), world.goal.angles if world.goal else ()
        if len(felt) != len(self._felt):
            raise BadInputError(f"{world.at('proprio.names')}: expected {len(self._felt)} names, came {len(felt)}.")
        if any(not 0 <= angle < len(self._compared) for angle in angles):
            raise BadInputError(
                f"{world.at('goal.angles')}: expected indices in 0 to {len(self._compared) - 1}, came {list(angles)}."
            )
        compared = [f"goal {name}" + " angle" * (index in angles) for index, name in enumerate(self._goal_of.names)]
        rest = [name if size == 1 else f"{name}[{at}]" for name, size in sizes.items() for at in range(size)]
        proprio = ProprioSpec(felt, ("1",) * len(felt)) if felt else None
        return EnvSpec(world.name, action, proprio, (*compared, *(f"felt {name}" for name in felt), *rest))

    def _checked_goal(self, goal: Any) -> np.ndarray:
        if self.world.goal is None:
            raise BadInputError(
                f"{self.world.id}: a goal came, but the declaration has no [goal] that tells when it is reached."
            )
        count = len(self._compared)
        return self._checked("goal_state", goal, (count, len(self.spec_.state_names)))[:count]

    def _checked(self, name: str, state: Any, widths: tuple[int, ...]) -> np.ndarray:
        expected = f"{self.world.name} {name}: expected {' or '.join(map(str, widths))} finite numbers"
        try:
            array = np.array(state, np.float64)
        except (TypeError, ValueError):
            raise BadInputError(f"{expected}, came {state!r}.") from None
        if array.shape not in [(width,) for width in widths]:
            raise BadInputError(f"{expected}, came shape {array.shape}.")
        if not np.isfinite(array).all():
            raise BadInputError(f"{expected}, came NaN or infinity.")
        return array


def _short(seed: int | None) -> int | None:
    """A seed that every environment takes: one of more than 32 bits is mixed into as many (some take no more)."""
    if seed is None or seed < 2**32:
        return seed
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
