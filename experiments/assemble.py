"""The only place where strings become parts: environments, models, planners, guardrails by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

import wm.envs
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.rules import on_states
from wm.model import WorldModel, load_model
from wm.planners.adaptive_icem import AdaptiveICEM
from wm.planners.base import Solver
from wm.planners.cem import CEM
from wm.planners.cma_es import CMAES
from wm.planners.gradient import Gradient
from wm.planners.gradient_cem import GradientCEM
from wm.planners.guardrails import Guardrail
from wm.planners.icem import ICEM
from wm.planners.lbfgs import LBFGS
from wm.planners.mpc import MPC
from wm.planners.mppi import MPPI
from wm.planners.predictive_sampling import PredictiveSampling
from wm.specs import require_equal

ASSETS = Path(wm.__file__).parent / "assets"
MODELS = {"pusht": ASSETS / "pusht" / "model.safetensors"}
"""Shipped models by name."""

HORIZON = 5
EXECUTE = 1


def make_env(name: str, image_size: int | None = None) -> Any:
    """An environment by its short name.

    Raises:
        UnknownNameError: no such environment.
    """
    if name not in wm.envs.COMMANDED:
        raise UnknownNameError("environment", name, wm.envs.COMMANDED)
    options = {} if image_size is None else {"image_size": image_size}
    return gymnasium.make(wm.envs.COMMANDED[name], disable_env_checker=True, **options).unwrapped


def find_model(name: str) -> tuple[WorldModel, Path]:
    """A model by shipped name or path, and its file; nothing is known yet of where it is to be used.

    Raises:
        UnknownNameError: neither a shipped name nor a file.
        CheckpointError: an unreadable file.
    """
    path = MODELS.get(name, Path(name))
    if name not in MODELS and not path.exists():
        raise UnknownNameError("model (a shipped name or a path)", name, MODELS)
    return load_model(path)[0], path


def make_model(name: str, env: str) -> WorldModel:
    """A model by shipped name or path, checked against the environment's specification.

    Raises:
        UnknownNameError: neither a shipped name nor a file.
        MismatchError: a model of another environment or robot.
        CheckpointError: an unreadable file.
    """
    model, path = find_model(name)
    require_equal("model of another environment: env", env, model.spec.env.env, path)
    require_equal("model of another robot: specification", make_env(env).env_spec, model.spec.env, path)
    return model


INIT_STD = 0.15
"""Standard deviation that the default planner's samples begin with, as a share of half the bounds' range."""

PLANNERS: dict[str, Callable[[int], Solver[Any]]] = {
    "icem": lambda frameskip: ICEM(frameskip, population=128, iterations=6, init_std=INIT_STD),
    "cem": lambda frameskip: CEM(),
    "mppi": lambda frameskip: MPPI(frameskip, population=128, iterations=6, std=0.15, beta=2.0),
    "log-mppi": lambda frameskip: MPPI(frameskip, population=128, iterations=6, std=0.15, beta=2.0, log_noise=0.5),
    "predictive-sampling": lambda frameskip: PredictiveSampling(frameskip, population=128, iterations=6, std=0.1),
    "gradient": lambda frameskip: Gradient(frameskip, starts=8, iterations=15, rate=0.03, std=0.15),
    "gradient+cem": lambda frameskip: GradientCEM(
        ICEM(frameskip, population=128, iterations=3, init_std=0.15),
        Gradient(frameskip, starts=4, iterations=8, rate=0.03, std=0.15),
    ),
    "lbfgs": lambda frameskip: LBFGS(frameskip, starts=4, iterations=12, first_step=0.05, std=0.15),
    "cma-es": lambda frameskip: CMAES(population=64, iterations=10, std=0.15, diagonal=True),
}
"""Name to a constructor that takes the frameskip; the first is the default."""

THINKERS = ("icem",)
"""Planners that can be told how much to think."""

MOST_ITERATIONS = 1000

PROPOSED = 48
"""Proposals that are scored where thinking is to be quick: those of the shipped model, without their noisy copies."""


@dataclass(frozen=True)
class Thinking:
    """How much the default planner thinks for a plan.

    Attributes:
        iterations: Of the search: exactly so many (a deadline may end it before), or at most where it is adaptive.
        population: Samples of the first iteration; they shrink from one to the next, or follow the disagreement.
        elites: Best candidates of an iteration, which the next one's samples are drawn around.
        adaptive: Effort follows difficulty: see `AdaptiveICEM`.
        most_proposals: Of the model's proposals, the first ones, that are scored; None: all of them.
    """

    iterations: int
    population: int = 128
    elites: int = 20
    adaptive: bool = False
    most_proposals: int | None = None

    @classmethod
    def parse(cls, text: str) -> Thinking:
        """``fast`` (system 1: the proposals and a few samples, scored once), ``auto``, or a number of iterations.

        Raises:
            BadInputError: anything else.
        """
        if text == "fast":
            return cls(1, population=16, elites=8, most_proposals=PROPOSED)
        if text == "auto":
            return cls(10, population=32, elites=8, adaptive=True, most_proposals=PROPOSED)
        short = text.isascii() and text.isdigit() and len(text) <= len(str(MOST_ITERATIONS))
        if short and 1 <= int(text) <= MOST_ITERATIONS:
            return cls(int(text))
        raise BadInputError(
            f"think: expected 'auto', 'fast' or a number of iterations from 1 to {MOST_ITERATIONS}, came '{text}'."
        )

    def solver(self, frameskip: int) -> ICEM:
        """The default planner that thinks so much."""
        count, elites, iterations = self.population, self.elites, self.iterations
        if self.adaptive:
            most, gamma = 16 * count, 1.5
            return AdaptiveICEM(
                frameskip, count, most, gamma=gamma, elites=elites, iterations=iterations, init_std=INIT_STD
            )
        # No energy that falls too little ends it.
        return ICEM(frameskip, count, elites, iterations, init_std=INIT_STD, rtol=0.0, patience=iterations)


def make_mpc(
    planner: str, frameskip: int, horizon: int = HORIZON, execute: int = EXECUTE, think: str | None = None
) -> MPC:
    """Solver and receding horizon.

    Args:
        planner: Name.
        frameskip: Control steps per latent step.
        horizon: Latent steps of a plan.
        execute: Latent steps until the next one.
        think: As `Thinking.parse`; None: as the planner is by itself.

    Raises:
        UnknownNameError: no such planner.
        BadInputError: ``think`` cannot be understood, or the planner cannot be told so.
    """
    if planner not in PLANNERS:
        raise UnknownNameError("planner", planner, PLANNERS)
    if think is None:
        return MPC(PLANNERS[planner](frameskip), horizon, execute, frameskip)
    thinking = Thinking.parse(think)
    if planner not in THINKERS:
        raise BadInputError(f"think: expected the planner to be {' or '.join(THINKERS)}, came '{planner}'.")
    solver, most = thinking.solver(frameskip), thinking.most_proposals
    return MPC(solver, horizon, execute, frameskip, most_proposals=most)


def require_clear_start(rules: Sequence[Guardrail], start: Any) -> None:
    """Refuse a start that already breaks a guardrail.

    Args:
        rules: Guardrails.
        start: ``(4,)`` tensor, the robot's x, y, vx, vy.

    Raises:
        BadInputError: names the rule and by how much it is broken.
    """
    for rule in on_states(rules):
        margin = float(rule.margin_of(start))
        if margin < 0:
            place = [round(float(v), 1) for v in start[:2]]
            raise BadInputError(f"guardrail '{rule.name}': the start {place} breaks it by {-margin:.1f} {rule.unit}.")
