"""The only place where strings become parts: environments, models, planners, guardrails by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wm
from wm.compiled import use_compiled
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.rules import on_states
from wm.experiments.worlds import WORLDS, find_world
from wm.experiments.worlds.base import Planning
from wm.int8 import use_int8
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
MODELS = {name: ASSETS / name / "model.safetensors" for name in (*WORLDS, "pusht-patch")}
"""Shipped models by name: one for each world, and push-T's of the patch form."""

PLANNING = Planning()
"""How a world is planned in that says nothing else."""


def make_env(name: str, image_size: int | None = None) -> Any:
    """An environment by its short name.

    Raises:
        UnknownNameError: no such environment.
    """
    return find_world(name).make_env(image_size)


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


PLAIN = "plain"

ROLLOUTS: dict[str, Callable[[WorldModel], None]] = {
    PLAIN: lambda model: None,
    "int8": use_int8,
    "compiled": use_compiled,
}
"""How a model's rollouts are computed, by name; the first is the default."""


def make_model(name: str, env: str, rollout: str = PLAIN) -> WorldModel:
    """A model by shipped name or path, checked against the environment's specification.

    Args:
        name: Shipped name or path.
        env: Environment's short name.
        rollout: One of `ROLLOUTS`.

    Raises:
        UnknownNameError: neither a shipped name nor a file, or no such way to roll out.
        MismatchError: a model of another environment or robot.
        CheckpointError: an unreadable file.
        BadInputError: the model cannot be rolled out so, or not on this machine.
    """
    if rollout not in ROLLOUTS:
        raise UnknownNameError("rollout", rollout, ROLLOUTS)
    (model, path), world = find_model(name), find_world(env)
    require_equal("model of another environment: env", world.name, model.spec.env.env, path)
    require_equal("model of another robot: specification", world.make_env().env_spec, model.spec.env, path)
    ROLLOUTS[rollout](model)
    return model


PLANNERS: dict[str, Callable[[int, Planning], Solver[Any]]] = {
    "icem": lambda f, p: ICEM(f, population=p.population, iterations=p.iterations, init_std=p.init_std),
    "cem": lambda f, p: CEM(init_std=max(0.5, p.init_std)),
    "mppi": lambda f, p: MPPI(f, population=p.population, iterations=p.iterations, std=p.init_std, beta=2.0),
    "log-mppi": lambda f, p: MPPI(f, p.population, p.iterations, std=p.init_std, beta=2.0, log_noise=0.5),
    "predictive-sampling": lambda f, p: PredictiveSampling(f, p.population, p.iterations, std=p.init_std / 1.5),
    "gradient": lambda f, p: Gradient(f, starts=8, iterations=15, rate=0.03, std=p.init_std),
    "gradient+cem": lambda f, p: GradientCEM(
        ICEM(f, population=p.population, iterations=3, init_std=p.init_std),
        Gradient(f, starts=4, iterations=8, rate=0.03, std=p.init_std),
    ),
    "lbfgs": lambda f, p: LBFGS(f, starts=4, iterations=12, first_step=0.05, std=p.init_std),
    "cma-es": lambda f, p: CMAES(population=64, iterations=10, std=p.init_std, diagonal=True),
}
"""Name to a constructor that takes the frameskip and how the world is planned in; the first is the default."""

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
        population: Samples of the first iteration (or the one after the look); they shrink from one to the next, or
            follow the disagreement.
        elites: Best candidates of an iteration, which the next one's samples are drawn around.
        look: Samples of a first look, after which effort follows difficulty: see `AdaptiveICEM`; None: no such look.
        most_proposals: Of the model's proposals, the first ones, that are scored; None: all of them.
    """

    iterations: int
    population: int = 128
    elites: int = 20
    look: int | None = None
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
            return cls(7, look=16, most_proposals=PROPOSED)
        short = text.isascii() and text.isdigit() and len(text) <= len(str(MOST_ITERATIONS))
        if short and 1 <= int(text) <= MOST_ITERATIONS:
            return cls(int(text))
        raise BadInputError(
            f"think: expected 'auto', 'fast' or a number of iterations from 1 to {MOST_ITERATIONS}, came '{text}'."
        )

    def solver(self, frameskip: int, init_std: float) -> ICEM:
        """The default planner that thinks so much; ``init_std`` as in `Planning`."""
        count, elites, iterations = self.population, self.elites, self.iterations
        if self.look is not None:
            most, look = 4 * count, self.look
            return AdaptiveICEM(
                frameskip, count, most, elites=elites, iterations=iterations, look=look, init_std=init_std
            )
        # No energy that falls too little ends it.
        return ICEM(frameskip, count, elites, iterations, init_std=init_std, rtol=0.0, patience=iterations)


def make_screening(frameskip: int, planning: Planning) -> MPC:
    """The default planner as a model searches that screens for another one.

    Where the world leaves it to the difficulty how much to think, it searches a little in any case, and never until all
    that is left is like sequences: what it is asked for is a list of good ones that differ.
    """
    if planning.think != "auto":
        return make_mpc("icem", frameskip, planning)
    return make_search_without_look(frameskip, planning)


def make_search_without_look(frameskip: int, planning: Planning = PLANNING) -> MPC:
    """The default planner whose effort only its progress and its elites' disagreement guide (`AdaptiveICEM`)."""
    solver = AdaptiveICEM(frameskip, 32, 512, gamma=1.5, elites=8, iterations=10, init_std=planning.init_std)
    return MPC(solver, planning.horizon, planning.execute, frameskip, most_proposals=PROPOSED)


def make_mpc(planner: str, frameskip: int, planning: Planning = PLANNING, think: str | None = None) -> MPC:
    """Solver and receding horizon.

    Args:
        planner: Name.
        frameskip: Control steps per latent step.
        planning: How the world is planned in.
        think: As `Thinking.parse`; None: as it suits the world, or as the planner is by itself.

    Raises:
        UnknownNameError: no such planner.
        BadInputError: ``think`` cannot be understood, or the planner cannot be told so.
    """
    if planner not in PLANNERS:
        raise UnknownNameError("planner", planner, PLANNERS)
    if think is None and planner in THINKERS:
        think = planning.think
    if think is None:
        return MPC(PLANNERS[planner](frameskip, planning), planning.horizon, planning.execute, frameskip)
    thinking = Thinking.parse(think)
    if planner not in THINKERS:
        raise BadInputError(f"think: expected the planner to be {' or '.join(THINKERS)}, came '{planner}'.")
    solver, most = thinking.solver(frameskip, planning.init_std), thinking.most_proposals
    return MPC(solver, planning.horizon, planning.execute, frameskip, most_proposals=most)


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
            place = [float(f"{float(v):.4g}") for v in start[:2]]
            by = f"{-margin:.1f}" if margin <= -1 else f"{-margin:.3g}"  # px, or fractions of a metre
            raise BadInputError(f"guardrail '{rule.name}': the start {place} breaks it by {by} {rule.unit}.")
