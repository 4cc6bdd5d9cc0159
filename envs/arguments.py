"""Arguments that an environment is made with, checked: `gymnasium.make` passes on whatever it is given."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from wm.errors import BadInputError


def whole(name: str, value: object, least: int, most: int, unit: str) -> int:
    """A whole number within limits.

    Args:
        name: Of the argument.
        value: What came; NumPy's whole numbers are such too, a truth value is none.
        least: The smallest that is possible.
        most: The largest.
        unit: What is counted, with what else there is to say of it.

    Raises:
        BadInputError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or not least <= operator.index(value) <= most:
        raise BadInputError(f"{name}: expected {least} to {most} {unit}, came {value!r}.")
    return operator.index(value)


def picture_size(value: object) -> int:
    """Side of an observed picture, pixels.

    Raises:
        BadInputError: anything but 16 to 1024.
    """
    return whole("image_size", value, 16, 1024, "pixels")
