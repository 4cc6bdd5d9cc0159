"""Calibrated bounds on the error of imagined states: split conformal prediction on held-out windows.

Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World"; Lei, G'Sell, Rinaldo, Tibshirani & Wasserman
2018, "Distribution-free predictive inference for regression" (split conformal, theorem 2). The bound at level alpha is
the ceil((n + 1)(1 - alpha))-th smallest of n errors that no training has seen. For one further draw, exchangeable with
those n,

    P(error <= bound) >= 1 - alpha .

What that is: coverage *on average* over draws of the held-out windows and of the new one (marginal), for each latent
step on its own. What it is not: a promise for a given state, for all steps of a horizon at once, or for data of another
kind. Windows of one episode are alike, so one window of each episode is drawn: then windows are as exchangeable as
episodes are. A plan's actions are chosen, and not drawn as the log's were, so for plans the level is an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from wm.errors import BadInputError
from wm.joint import JointModel
from wm.logs import LogWindows, window_states
from wm.rollout import rollout

_DRAWS = 2**15
"""Windows drawn, of which the first of each episode is kept."""


def split_conformal(errors: Float[Tensor, "n K"], alpha: float) -> Float[Tensor, " K"]:
    """Bound that one further error keeps with probability 1 - alpha, for each column on its own.

    Args:
        errors: Of n held-out draws, >= 0.
        alpha: Miscoverage, 0 < alpha < 1.

    Raises:
        BadInputError: alpha is out of its range, an error is not finite, or n is too small for alpha.
    """
    if not 0 < alpha < 1:
        raise BadInputError(f"conformal bound: alpha must be in (0, 1), came {alpha}.")
    if not bool(torch.isfinite(errors).all()):
        raise BadInputError("conformal bound: the held-out errors must be finite, came NaN or infinity.")
    n = len(errors)
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)  # 20 * 0.95 is not 19 in floating point
    if rank > n:
        least = math.ceil(1 / alpha - 1e-9) - 1
        raise BadInputError(f"conformal bound: alpha {alpha} needs at least {least} held-out episodes, came {n}.")
    return errors.sort(dim=0).values[max(rank, 1) - 1]


def one_window_per_episode(windows: LogWindows, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Episodes ``(n,)`` and start steps ``(n,)``: a uniformly drawn window of each episode that the draw has met."""
    episodes, starts = windows.sampler.sample(np.random.default_rng(seed), _DRAWS)
    kept, first = np.unique(episodes, return_index=True)
    return kept, starts[first]


@torch.inference_mode()
def imagine_windows(
    joint: JointModel, windows: LogWindows, episodes: np.ndarray, starts: np.ndarray
) -> tuple[Float[Tensor, "n H1 X"], Int64[Tensor, "n H1"]]:
    """State vectors of windows, observed and then imagined under the logged actions, beside the rows of the truth.

    Args:
        joint: The model.
        windows: Windows of a table of states ``(O, N * D)``.
        episodes: Of the windows.
        starts: Of the windows.

    Returns:
        The last observed state and those after 1 … H latent steps (H1 = H + 1), and the observation row of each.
    """
    history = joint.predictor.history
    states, actions = window_states(windows, episodes, starts)
    imagined = rollout(joint.predictor, states[:, :history], actions[:, None, history - 1 :])[:, 0]
    rows = torch.from_numpy(windows.sampler.observation_index(episodes, starts)[:, history - 1 :])
    return torch.cat([states[:, history - 1 : history], imagined], dim=1), rows


def proprio_bounds(
    joint: JointModel, held_out: LogWindows, indices: Sequence[int], alpha: float = 0.1, seed: int = 0
) -> Float[Tensor, " H"]:
    """Bounds on the largest error of some predicted numbers of proprioception, after 1 … H latent steps.

    Args:
        joint: The model.
        held_out: Windows of a table of states, of episodes that no training has seen.
        indices: Which numbers; they have one unit.
        alpha: Miscoverage.
        seed: Of the draw.

    Returns:
        Raw units, never falling with the horizon: the running maximum of the bounds of the single steps.

    Raises:
        BadInputError: the log has no proprioception or not these numbers, or as in `split_conformal`.
    """
    proprio, moments = held_out.log.proprio, held_out.proprio_moments
    if proprio is None or moments is None:
        raise BadInputError("proprio_bounds: expected a log with proprioception, came one without.")
    width, chosen = proprio.shape[1], list(indices)
    if not chosen or not all(0 <= index < width for index in chosen):
        raise BadInputError(f"proprio_bounds: expected indices in 0 … {width - 1}, came {chosen}.")
    vectors, rows = imagine_windows(joint, held_out, *one_window_per_episode(held_out, seed))
    error = moments.restore(vectors[..., -width:]) - torch.from_numpy(proprio)[rows]
    return split_conformal(error[..., chosen].abs().amax(-1), alpha).cummax(0).values[1:]
