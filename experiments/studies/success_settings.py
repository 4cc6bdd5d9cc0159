"""The searches that the study of success against planning time compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from wm.errors import UnknownNameError
from wm.experiments.assemble import PLANNING, PROPOSED, make_mpc, make_search_without_look
from wm.experiments.evaluate import planner_settings
from wm.experiments.studies.rows import EPISODES, Rows, opened
from wm.planners.adaptive_icem import AdaptiveICEM
from wm.planners.base import Solver
from wm.planners.cem import CEM
from wm.planners.cma_es import CMAES
from wm.planners.gradient import Gradient
from wm.planners.gradient_cem import GradientCEM
from wm.planners.icem import ICEM
from wm.planners.lbfgs import LBFGS
from wm.planners.mpc import MPC
from wm.planners.mppi import MPPI
from wm.planners.predictive_sampling import PredictiveSampling

REFERENCE = "cem-300x30"
"""What the others in the field run: always all of its iterations."""

ORACLE = "oracle"
"""The default planner on the true simulator: how many steps a goal needs. Its time is the simulator's."""

Maker = Callable[[int], MPC]


def _search(make: Callable[[int], Solver[Any]], most_proposals: int | None = None) -> Maker:
    return lambda frameskip: MPC(
        make(frameskip), PLANNING.horizon, PLANNING.execute, frameskip, most_proposals=most_proposals
    )


def _named(planner: str, think: str | None = None) -> Maker:
    return lambda frameskip: make_mpc(planner, frameskip, think=think)


def plain_cem(population: int, iterations: int, init_std: float = 0.5) -> Maker:
    """Plain CEM, without an early stop; a tenth of the population are elites."""
    elites = max(4, population // 10)
    return _search(lambda _: CEM(population, elites, iterations, init_std=init_std, rtol=0.0, patience=iterations))


def _icem(population: int, iterations: int, most_proposals: int | None = None) -> Maker:
    elites = max(4, population // 6)
    return _search(
        lambda f: ICEM(f, population, elites, iterations, init_std=PLANNING.init_std, rtol=0.0, patience=iterations),
        most_proposals,
    )


def _adaptive(**settings: Any) -> Maker:
    return _search(lambda f: AdaptiveICEM(f, most=512, init_std=PLANNING.init_std, **settings), PROPOSED)


def _mppi(population: int, iterations: int, log_noise: float = 0.0) -> Maker:
    return _search(lambda f: MPPI(f, population, iterations, beta=2.0, log_noise=log_noise, std=PLANNING.init_std))


def _descent(starts: int, iterations: int) -> Maker:
    return _search(lambda f: Gradient(f, starts=starts, iterations=iterations, rate=0.03, std=PLANNING.init_std))


def _descent_after(
    population: int, iterations: int, starts: int, steps: int, most_proposals: int | None = None
) -> Maker:
    elites = max(4, population // 6)
    return _search(
        lambda f: GradientCEM(
            ICEM(f, population=population, elites=elites, iterations=iterations, init_std=PLANNING.init_std),
            Gradient(f, starts=starts, iterations=steps, rate=0.03, std=PLANNING.init_std),
        ),
        most_proposals,
    )


def _lbfgs(starts: int, iterations: int, most_proposals: int | None = None) -> Maker:
    return _search(
        lambda f: LBFGS(f, starts=starts, iterations=iterations, first_step=0.05, std=PLANNING.init_std),
        most_proposals,
    )


SETTINGS: dict[str, Maker] = {
    REFERENCE: plain_cem(300, 30),
    "cem-300x30-narrow": plain_cem(300, 30, PLANNING.init_std),
    "cem": _named("cem"),
    "cem-300x10": plain_cem(300, 10),
    "cem-100x10": plain_cem(100, 10),
    "cem-64x5-narrow": plain_cem(64, 5, PLANNING.init_std),
    "icem": _named("icem"),
    "think-fast": _named("icem", "fast"),
    "think-1": _named("icem", "1"),
    "think-2": _named("icem", "2"),
    "think-3": _named("icem", "3"),
    "think-auto": _named("icem", "auto"),
    "auto-without-look": make_search_without_look,
    "auto-64": _adaptive(population=64, elites=10, look=16, iterations=10),
    "icem-64x4": _icem(64, 4),
    "icem-64x2": _icem(64, 2),
    "icem-64x2-p48": _icem(64, 2, 48),
    "icem-32x2-p48": _icem(32, 2, 48),
    "icem-32x3-p48": _icem(32, 3, 48),
    "icem-32x1-p48": _icem(32, 1, 48),
    "icem-16x1-p16": _icem(16, 1, 16),
    "icem-64x2-p0": _icem(64, 2, 0),
    "mppi-128x6": _named("mppi"),
    "mppi-64x2": _mppi(64, 2),
    "log-mppi-128x6": _named("log-mppi"),
    "log-mppi-64x2": _mppi(64, 2, 0.5),
    "predictive-sampling-128x6": _named("predictive-sampling"),
    "predictive-sampling-64x2": _search(lambda f: PredictiveSampling(f, population=64, iterations=2, std=0.1)),
    "gradient-8x15": _named("gradient"),
    "gradient-4x8": _descent(4, 8),
    "gradient-2x5": _descent(2, 5),
    "gradient+cem": _named("gradient+cem"),
    "gradient+cem-64x2-2x4": _descent_after(64, 2, 2, 4),
    "gradient+cem-32x1-p48-2x16": _descent_after(32, 1, 2, 16, 48),
    "lbfgs-4x12": _named("lbfgs"),
    "lbfgs-2x6": _lbfgs(2, 6),
    "lbfgs-2x12-p16": _lbfgs(2, 12, 16),
    "lbfgs-2x30-p16": _lbfgs(2, 30, 16),
    "lbfgs-4x12-p16": _lbfgs(4, 12, 16),
    "cma-es-64x10": _named("cma-es"),
    "cma-es-32x5": _search(lambda _: CMAES(population=32, iterations=5, std=PLANNING.init_std, diagonal=True)),
    ORACLE: _named("icem"),
}
"""Name to a constructor that takes the frameskip. ``-pK``: only the first K of the model's proposals are tried."""


def chosen(text: str | None) -> Sequence[str]:
    """The settings named between commas; None: all but the oracle.

    Raises:
        UnknownNameError: one is unknown.
    """
    if text is None:
        return [name for name in SETTINGS if name != ORACLE]
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in SETTINGS:
            raise UnknownNameError("setting", name, SETTINGS)
    return names


def kept(
    out: Path, makers: Mapping[str, Maker], frameskip: int, names: Collection[str] = (), file: str = EPISODES
) -> dict[str, Rows]:
    """Rows of the searches that are named, and of all others that there are rows of, each in a folder of its name.

    Args:
        out: Of the study.
        makers: The searches, by name.
        frameskip: Control steps per latent step.
        names: Searches whose folders are made where they lack.
        file: Of a search's rows.

    Raises:
        MismatchError, BadInputError: as `wm.experiments.studies.rows.opened`; a search has been defined anew since.
    """
    made = {name: make(frameskip) for name, make in makers.items() if name in names or (out / name).exists()}
    about = {name: {"setting": name, "planner": planner_settings(mpc)} for name, mpc in made.items()}
    return {name: opened(out / name, config, file) for name, config in about.items()}
