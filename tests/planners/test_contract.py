"""Every solver keeps the contract: CEM and iCEM here, each other one in its own file."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wm.planners
from tests.contracts.planner_suite import FRAMESKIP, PlannerContract
from wm.planners import CEM, ICEM, Solver


class TestCEM(PlannerContract):
    def make(self, **settings: Any) -> CEM:
        return CEM(**settings)


class TestICEM(PlannerContract):
    def make(self, **settings: Any) -> ICEM:
        return ICEM(FRAMESKIP, **settings)


def test_every_solver_has_a_contract_class() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.planners.{path.stem}")
    tried = {type(contract().make()) for contract in derived(PlannerContract)}
    solvers = {kind for kind in derived(Solver) if kind.__module__.startswith("wm.") and not inspect.isabstract(kind)}
    assert solvers == {kind for kind in tried if kind.__module__.startswith("wm.")}
    assert solvers <= {getattr(wm.planners, name) for name in wm.planners.__all__}


def derived(base: type[Any]) -> Iterator[type[Any]]:
    for kind in base.__subclasses__():
        yield kind
        yield from derived(kind)
