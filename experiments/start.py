"""Where a planned episode starts, and the goal's state when it is known."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm.errors import BadInputError, MismatchError


@dataclass(frozen=True)
class Start:
    """A start.

    Attributes:
        state: Simulator state.
        goal_state: Simulator state of the goal, for the success test only; None when unknown, and then so is success.
        source: Where they came from, in words.
    """

    state: np.ndarray
    goal_state: np.ndarray | None
    source: str


def find_start(env: Any, env_name: str, goal: Path, start: Path | None, seed: int | None) -> Start:
    """The start that the command line means.

    * `--start FILE`: that file's start and goal states.
    * `--seed N` alone: the environment's own start of that seed; the goal's state is unknown.
    * neither: the JSON file beside the goal picture that `wm goal` writes, when there is one; else `--seed 0`.

    Raises:
        BadInputError: the file is missing or its content is not `env`, `start_state` and perhaps `goal_state`.
        MismatchError: a file of another environment.
    """
    beside = goal.with_suffix(".json")
    if start is None and seed is None and beside.is_file():
        start = beside
    if start is not None:
        return read_start(env, env_name, start)
    return Start(env.reset(seed=seed or 0)[1]["state"], None, f"seed {seed or 0}")


def read_start(env: Any, env_name: str, path: Path) -> Start:
    """States that `wm goal` wrote beside a goal picture.

    Raises:
        BadInputError: missing, not JSON, or a state that the environment refuses.
        MismatchError: a file of another environment.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"start {path}: expected a JSON file, it cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"start {path}: expected JSON, came something else ({error}).") from error
    if not isinstance(data, dict) or not {"env", "start_state"} <= set(data):
        came = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise BadInputError(f"start {path}: expected an object with 'env' and 'start_state', came {came}.")
    if data["env"] != env_name:
        raise MismatchError("start of another environment: env", env_name, data["env"], path)
    state, goal = _state(path, "start_state", data["start_state"]), data.get("goal_state")
    goal_state = None if goal is None else _state(path, "goal_state", goal)
    try:
        env.reset(options={"state": state, "goal_state": goal_state})
    except BadInputError as error:
        raise BadInputError(f"start {path}: {error}") from error
    return Start(state, goal_state, path.name)


def _state(path: Path, key: str, values: object) -> np.ndarray:
    numbers = isinstance(values, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    try:
        state = np.array(values if numbers else [math.nan], np.float64)
    except OverflowError:  # an integer beyond every float
        state = np.array([math.inf])
    if not np.isfinite(state).all():
        raise BadInputError(f"start {path}: expected '{key}' as a list of finite numbers, came {str(values)[:200]}.")
    return state
