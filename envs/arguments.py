"""Arguments that an environment is made with, checked: `gymnasium.make` passes on whatever it is given."""

from __future__ import annotations

import contextlib
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
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        with contextlib.suppress(TypeError):  # an array of NumPy's says that it is one, and is not
            if least <= operator.index(value) <= most:
                return operator.index(value)
    raise BadInputError(f"{name}: expected {least} to {most} {unit}, came {value!r}.")


def picture_size(value: object) -> int:
    """Side of an observed picture, pixels.

    Raises:
        BadInputError: anything but 16 to 1024.
    """
    return whole("image_size", value, 16, 1024, "pixels")
