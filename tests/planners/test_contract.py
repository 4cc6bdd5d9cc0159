"""Every solver keeps the contract."""

from __future__ import annotations

from typing import Any

from tests.contracts.planner_suite import FRAMESKIP, PlannerContract
from wm.planners import CEM, ICEM


class TestCEM(PlannerContract):
    def make(self, **settings: Any) -> CEM:
        return CEM(**settings)


class TestICEM(PlannerContract):
    def make(self, **settings: Any) -> ICEM:
        return ICEM(FRAMESKIP, **settings)
