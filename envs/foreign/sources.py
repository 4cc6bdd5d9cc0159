"""Where a declaration's numbers come from: ``"observation[0:4]"``, ``"achieved_goal"``, ``"qpos[2]"``.

A source is the key of a Dict observation (a Box observation has the one key ``observation``), or of the simulator's
state (MuJoCo: ``qpos``, ``qvel``, …; else ``state``), and perhaps an index or a slice of its flattened numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wm.errors import BadInputError

_SOURCE = re.compile(r"(?P<key>[^\[\]]+)(?:\[(?P<first>\d+)(?P<colon>:(?P<stop>\d+)?)?\])?")


class Numbers:
    """Reads the same numbers out of every step.

    Args:
        what: The declaration's field, for messages, e.g. ``"world.toml: goal.of"``.
        sources: The sources, in order.
        example: All numbers of one step, as `all_numbers` gives them.

    Raises:
        BadInputError: a source that is not written as one, is not there, or has fewer numbers.
    """

    def __init__(self, what: str, sources: Sequence[str], example: Mapping[str, np.ndarray]) -> None:
        self.parts: list[tuple[str, slice]] = []
        self.names: list[str] = []
        for source in sources:
            key, indices = _parsed(what, source, example)
            self.parts.append((key, slice(indices.start, indices.stop)))
            single = example[key].size == 1
            self.names += [key if single else f"{key}[{index}]" for index in indices]

    def __call__(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
        """The numbers of one step, float64."""
        return np.concatenate([numbers[key][part] for key, part in self.parts] or [np.empty(0)])


def all_numbers(observation: Any, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every source's flattened numbers, float64; where two have one key, the observation's."""
    seen = observation if isinstance(observation, Mapping) else {"observation": observation}
    flat = {key: np.asarray(value, np.float64).ravel() for key, value in seen.items() if _numeric(value)}
    return {**state, **flat}


def _numeric(value: Any) -> bool:
    return not isinstance(value, Mapping | str) and np.asarray(value).dtype.kind in "biuf"


def _parsed(what: str, source: str, example: Mapping[str, np.ndarray]) -> tuple[str, range]:
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise BadInputError(f"{what}: expected 'key', 'key[i]' or 'key[i:j]', came '{source}'.")
    key = match["key"]
    if key not in example:
        known = ", ".join(f"{name} ({numbers.size})" for name, numbers in example.items())
        raise BadInputError(f"{what}: '{source}': no such numbers; there are {known}.")
    size = example[key].size
    first = int(match["first"] or 0)
    if match["first"] is None or (match["colon"] and match["stop"] is None):
        stop = size
    else:
        stop = int(match["stop"]) if match["colon"] else first + 1
    if not first < stop <= size:
        raise BadInputError(f"{what}: '{source}': expected indices in 0 to {size - 1}; '{key}' has {size} numbers.")
    return key, range(first, stop)
