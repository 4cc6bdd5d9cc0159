from __future__ import annotations

import numpy as np
import pytest

from wm.planners.control.verdict import amount


@pytest.mark.parametrize(
    ("value", "told"), [(12.34, "12.3"), (5.0, "5.0"), (0.00412, "0.00412"), (0.5, "0.5"), (0.0, "0"), (np.inf, "inf")]
)
def test_a_small_amount_is_not_told_as_none(value: float, told: str) -> None:
    assert amount(value) == told
