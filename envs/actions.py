"""What every robot does with an action before anything moves: check it, and clip it to its own bounds."""

from __future__ import annotations

import numpy as np

from wm.errors import BadInputError
from wm.specs import ActionSpec


def checked_action(action: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """The action as ``(A / F,)`` float64 numbers, a copy.

    Raises:
        BadInputError: another shape, not numbers, NaN or infinity.
    """
    try:
        numbers = np.array(action, np.float64)
    except (TypeError, ValueError):
        raise BadInputError(f"action: expected {spec.width} finite numbers {spec.names}, came {action!r}.") from None
    if numbers.shape != (spec.width,) or not np.isfinite(numbers).all():
        came = f"shape {numbers.shape}" if numbers.shape != (spec.width,) else str(numbers.tolist())
        raise BadInputError(f"action: expected {spec.width} finite numbers {spec.names}, came {came}.")
    return numbers


def clipped_action(action: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """The checked action ``(A / F,)`` float64 inside the bounds, raw units.

    Raises:
        BadInputError: as `checked_action`.
    """
    return np.clip(checked_action(action, spec), spec.low, spec.high)
