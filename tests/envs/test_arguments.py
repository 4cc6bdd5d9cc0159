from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from wm.envs import ENV_IDS
from wm.envs.arguments import picture_size, whole
from wm.errors import BadInputError


@pytest.mark.parametrize("value", ["96", 96.0, None, True, [96], 15, 1025, float("nan"), np.array([96])])
def test_a_picture_size_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(BadInputError, match="image_size: expected 16 to 1024 pixels, came ") as caught:
        picture_size(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("env_id", sorted(ENV_IDS.values()))
def test_every_environment_refuses_it(env_id: str) -> None:
    with pytest.raises(BadInputError, match="image_size: expected 16 to 1024 pixels, came 15"):
        gymnasium.make(env_id, image_size=15)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    found = whole("n", np.int64(3), 3, 5, "of them")
    assert found == 3 and type(found) is int and whole("n", 5, 3, 5, "of them") == 5
