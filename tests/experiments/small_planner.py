"""A default planner that is quick, for tests of what is around it."""

from __future__ import annotations

import pytest

from wm.experiments import assemble
from wm.experiments.worlds.base import Planning
from wm.experiments.worlds.pusht import PushT
from wm.planners.icem import ICEM


def plan_little(patch: pytest.MonkeyPatch) -> None:
    """Twelve samples and two iterations in every world, whatever it thinks by itself."""
    patch.setitem(assemble.PLANNERS, "icem", lambda f, _: ICEM(f, population=12, elites=3, iterations=2))
    patch.setattr(PushT, "planning", Planning())
