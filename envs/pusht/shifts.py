"""Push-T in pictures that no log shows: other colours, a textured table, or a thing that moves and is of no concern.

The physics, the success test and everything else are `PushTEnv`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from wm.envs.pusht.draw import FINER, USUAL, Colour, Palette, draw, empty_table
from wm.envs.pusht.env import PushTEnv
from wm.envs.pusht.physics import WORLD_SIZE
from wm.errors import BadInputError, UnknownNameError

OTHER_COLOURS = Palette(
    table=(250, 236, 205), wall=(196, 170, 130), target=(205, 170, 240),
    block_edge=(128, 84, 66), block=(178, 122, 98), agent_edge=(24, 118, 70), agent=(40, 160, 92),
)  # fmt: skip

TEXTURE_SEED, TEXTURE_CELLS, TEXTURE_DEPTH = 0, 9, (60.0, 20.0)
"""The texture is noise on so many cells a side, smoothly enlarged: it darkens all colours alike by 0 to the first
number, of 255, and each on its own by 0 to the second."""

DISC_COLOUR, DISC_RADIUS = (214, 62, 62), 22.0
"""Of the moving disc; its radius [px of the 512 px world] is half as much again as the pusher's."""

_REACH = 190.0  # px from the middle of the table, in x and in y
_RATES = (0.08, 0.13)  # rad per control step: at most 25 px a step


def _towards(usual: Colour, other: Colour, strength: float) -> Colour:
    red, green, blue = (round(a + strength * (b - a)) for a, b in zip(usual, other, strict=True))
    return red, green, blue


@lru_cache(maxsize=8)
def shifted_palette(strength: float) -> Palette:
    """Colours on the way from `USUAL` to `OTHER_COLOURS`."""
    usual, other = asdict(USUAL), asdict(OTHER_COLOURS)
    return Palette(**{part: _towards(usual[part], other[part], strength) for part in usual})


@lru_cache(maxsize=4)
def textured_table(size: int, target: bool, strength: float) -> np.ndarray:
    """The table under a fixed smooth noise, ``(size, size, 3)`` uint8, read-only."""
    noise = np.random.default_rng(TEXTURE_SEED).random((TEXTURE_CELLS, TEXTURE_CELLS, 4)).astype(np.float32)
    smooth = np.clip(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
    darker = TEXTURE_DEPTH[0] * smooth[..., :1] + TEXTURE_DEPTH[1] * smooth[..., 1:]
    table = (empty_table(size, target) - strength * darker).astype(np.uint8)
    table.setflags(write=False)
    return table


def disc_place(seed: int, steps: int) -> np.ndarray:
    """Centre of the moving disc, ``(2,)`` px of the world, so many control steps into the path of a seed."""
    rng = np.random.default_rng(seed)
    rates, phases = rng.uniform(*_RATES, 2), rng.uniform(0, 2 * np.pi, 2)
    return WORLD_SIZE / 2 + _REACH * np.sin(rates * steps + phases)


def _disc_table(size: int, target: bool, strength: float, seed: int, steps: int) -> np.ndarray:
    table, scale, bits = empty_table(size, target).copy(), size / WORLD_SIZE, 6
    x, y = np.rint((disc_place(seed, steps) * scale - 0.5) * (1 << bits)).astype(int).tolist()
    radius = round(DISC_RADIUS * scale * (1 << bits))
    colour = _towards(USUAL.table, DISC_COLOUR, strength)
    return cv2.circle(table, (x, y), radius, colour, -1, cv2.LINE_8, bits)


SHIFTS: Mapping[str, Callable[[int, bool, float, int, int], dict[str, Any]]] = {
    "colour": lambda size, target, strength, seed, steps: {"palette": shifted_palette(strength)},
    "texture": lambda size, target, strength, seed, steps: {"table": textured_table(size, target, strength)},
    "distractor": lambda *arguments: {"table": _disc_table(*arguments)},
}
"""What `draw` is told otherwise, from the size it draws in, whether the target is drawn, the shift's strength, the
episode's seed, and the control steps since its start."""


class ShiftedPushTEnv(PushTEnv):
    """`PushTEnv` with other pictures.

    | shift | pictures |
    |---|---|
    | `colour` | table, wall, target, block and pusher have other colours (`OTHER_COLOURS`) |
    | `texture` | the table is under a smooth coloured noise, the same in every episode |
    | `distractor` | a red disc moves under block and pusher, on a path of the seed of `reset`; it touches nothing |

    Args:
        shift: One of `SHIFTS`.
        strength: 0 (the usual picture, or in `distractor` a disc that cannot be seen) … 1 (as in the table).
        options: As `PushTEnv`'s.

    Raises:
        UnknownNameError: no such shift.
        BadInputError: a strength out of its range.
    """

    def __init__(self, shift: str, strength: float = 1.0, **options: Any) -> None:
        if shift not in SHIFTS:
            raise UnknownNameError("shift of push-T's pictures", shift, SHIFTS)
        if not 0 <= strength <= 1:
            raise BadInputError(f"shift '{shift}': expected a strength from 0 to 1, came {strength}.")
        super().__init__(**options)
        self.shift, self.strength, self._seed, self._steps = shift, strength, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """As `PushTEnv.reset`; without a seed the disc's path is that of seed 0."""
        self._seed, self._steps = seed or 0, 0
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """As `PushTEnv.step`."""
        self._steps += 1
        return super().step(action)

    def _picture(self) -> np.ndarray:
        size, target = self.image_size, self.draw_target
        changed = SHIFTS[self.shift](size * FINER, target, self.strength, self._seed, self._steps)
        return draw(self.physics.state(), size, target=target, **changed)
