"""The only place where strings become parts: environments, models, planners, guardrails by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium

import wm.envs
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.rules import on_states
from wm.model import WorldModel, load_model
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
    if name not in wm.envs.ENV_IDS:
        raise UnknownNameError("environment", name, wm.envs.ENV_IDS)
    options = {} if image_size is None else {"image_size": image_size}
    return gymnasium.make(wm.envs.ENV_IDS[name], disable_env_checker=True, **options).unwrapped


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


PLANNERS: dict[str, Callable[[int], Solver[Any]]] = {
    "icem": lambda frameskip: ICEM(frameskip, population=128, iterations=6, init_std=0.15),
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


def make_mpc(planner: str, frameskip: int, horizon: int = HORIZON, execute: int = EXECUTE) -> MPC:
    """Solver and receding horizon.

    Raises:
        UnknownNameError: no such planner.
    """
    if planner not in PLANNERS:
        raise UnknownNameError("planner", planner, PLANNERS)
    return MPC(PLANNERS[planner](frameskip), horizon, execute, frameskip)


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
