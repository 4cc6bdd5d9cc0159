"""A world that is none of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

PENDULUM = """
id = "Pendulum-v1"
frameskip = 2

[proprio]
keys = ["observation"]

[goal]
of = ["state"]
tolerance = 0.5
angles = [0]
"""


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The declaration of a foreign world that needs no further package."""
    path = tmp_path_factory.mktemp("declared") / "pendulum.toml"
    path.write_text(PENDULUM)
    return path
