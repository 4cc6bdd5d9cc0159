"""What an episode is, and what a dataset says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm.errors import BadInputError
from wm.specs import EnvSpec, _Spec

FORMAT = 1


@dataclass(frozen=True)
class Episode:
    """T actions and the T + 1 observations around them.

    Attributes:
        frames: ``(T+1, H, W, 3)`` uint8 RGB.
        proprio: ``(T+1, P)`` float32, the robot's raw units, or None when it reports nothing.
        state: ``(T+1, S)`` float64, the simulator's true state (a diagnostic; never an input of a model).
        actions: ``(T, A)`` float32, raw units; T >= 1.
        seed: The episode's seed, 0 to 2^63 - 1.

    Raises:
        BadInputError: an array of another dtype, rank or length, NaN or infinity, or a seed out of range.
    """

    frames: np.ndarray
    proprio: np.ndarray | None
    state: np.ndarray
    actions: np.ndarray
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise BadInputError(f"episode: expected a seed in 0 … 2^63 - 1, came {self.seed}.")
        self._check_array("actions", self.actions, "float32", "(T, A)")
        if len(self.actions) < 1:
            raise self._refusal("actions", "at least one action", f"shape {self.actions.shape}")
        self._check_array("frames", self.frames, "uint8", "(T+1, H, W, 3)")
        self._check_array("state", self.state, "float64", "(T+1, S)")
        if self.proprio is not None:
            self._check_array("proprio", self.proprio, "float32", "(T+1, P)")
        for name, array in self.arrays().items():
            expected = len(self) + (name != "actions")
            if len(array) != expected:
                raise self._refusal(name, f"{expected} rows for {len(self)} actions", f"{len(array)} rows")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                row, column = np.argwhere(~np.isfinite(array))[0]
                came = f"{array[row, column]} in row {row}, column {column}"
                raise self._refusal(name, "finite numbers", came)

    def __len__(self) -> int:
        """T, the number of actions."""
        return len(self.actions)

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name, in the store's order; no ``proprio`` when there is none."""
        arrays = {"frames": self.frames, "proprio": self.proprio, "state": self.state, "actions": self.actions}
        return {name: array for name, array in arrays.items() if array is not None}

    def check(self, spec: DatasetSpec) -> None:
        """Refuse an episode that does not fit a dataset.

        Raises:
            BadInputError: another picture size, action, proprioception or state width than the spec's.
        """
        size, env = spec.image_size, spec.env
        if self.frames.shape[1:] != (size, size, 3):
            came = f"(T+1, {', '.join(map(str, self.frames.shape[1:]))})"
            raise self._refusal("frames", f"shape (T+1, {size}, {size}, 3)", f"shape {came}")
        if (self.proprio is None) != (env.proprio is None):
            words = ["no proprioception", f"readings of {env.proprio.names}" if env.proprio else "an array"]
            raise self._refusal("proprio", words[env.proprio is not None], words[self.proprio is not None])
        widths = {"actions": env.action.width, "state": len(env.state_names)}
        if env.proprio is not None:
            widths["proprio"] = env.proprio.width
        for name, width in widths.items():
            came_width = self.arrays()[name].shape[1]
            if came_width != width:
                raise self._refusal(name, f"{width} numbers a row", f"{came_width}")

    def _check_array(self, name: str, array: np.ndarray, dtype: str, shape: str) -> None:
        rank_fits = array.ndim == shape.count(",") + 1
        if array.dtype != np.dtype(dtype) or not rank_fits or (name == "frames" and array.shape[-1] != 3):
            raise self._refusal(name, f"{dtype} {shape}", f"{array.dtype} {array.shape}")

    def _refusal(self, name: str, expected: str, came: str) -> BadInputError:
        return BadInputError(f"episode with seed {self.seed}: {name}: expected {expected}, came {came}.")


@dataclass(frozen=True)
class DatasetSpec(_Spec):
    """What a dataset holds and how it was made; JSON in the store's attributes.

    Attributes:
        env: The world that was recorded.
        image_size: Side of the square frames, pixels.
        format: Version of the store's layout.
        recipe: How it was made, free JSON: command, policy, seed, package versions.

    Raises:
        BadInputError: a picture size below 1, or a recipe that is not JSON.
    """

    env: EnvSpec
    image_size: int
    format: int = FORMAT
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or self.image_size < 1:
            raise BadInputError(f"dataset spec: expected image_size >= 1 px, came {self.image_size}.")
        try:
            plain = json.loads(json.dumps(self.recipe, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise BadInputError(f"dataset spec: expected a recipe of JSON values, came one where {error}.") from error
        object.__setattr__(self, "recipe", plain)  # tuples are lists now, as they will be when read back

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DatasetSpec:
        """Build from `to_json`'s output."""
        return super().from_json({**data, "env": EnvSpec.from_json(data["env"])})
