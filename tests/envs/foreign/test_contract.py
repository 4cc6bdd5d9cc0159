"""Foreign environments keep the contract of our own, pictures included."""

from __future__ import annotations

import pytest

from tests.contracts.env_suite import EnvContract
from tests.envs.foreign.worlds import IDS


@pytest.mark.parametrize("env_id", IDS.values(), ids=IDS.keys())
class TestForeignEnvironments(EnvContract):
    # Their pictures are their packages' own, and change with them.
    test_pictures_are_the_recorded_ones = None  # type: ignore[assignment]
