"""Every registered environment keeps the contract."""

from __future__ import annotations

import pytest

from tests.contracts.env_suite import EnvContract
from wm.envs import ENV_IDS


@pytest.mark.parametrize("env_id", sorted(ENV_IDS.values()))
class TestEveryEnvironment(EnvContract):
    pass
