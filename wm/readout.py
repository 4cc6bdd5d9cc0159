"""A linear read-out of true-state numbers from state tokens, with a calibrated error: for soft guardrails only.

It is never an energy, nor any part of the planner's goal distance: a plan is searched in the latent, and the truth that
a simulator or a motion-capture system once logged only serves to draw a line ("do not move this object there").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.checkpoint import load_tensors, load_weights, save_tensors
from wm.conformal import imagine_windows, one_window_per_episode, split_conformal
from wm.encoders.base import fingerprint
from wm.errors import BadInputError, CheckpointError
from wm.joint import JointModel
from wm.logs import LogWindows
from wm.model import WorldModel
from wm.specs import require_equal

_SETTINGS = ("names", "unit", "tokens", "width", "products", "alpha", "horizon")


class StateReadout(nn.Module):
    """Named numbers of the true state, linear in the state tokens (and, if asked for, in their products of pairs).

    ``y = W [s, s_i s_j (i <= j)] + b`` with s the standardised tokens. The numbers of one read-out have one unit, and
    their error is one length, the Euclidean norm: of (block_x, block_y), the distance between read and true place.

    Args:
        names: K names, e.g. ``("block_x", "block_y")``.
        unit: Their unit, e.g. ``"px"``.
        tokens: N, state tokens per frame.
        width: D, numbers per state token.
        products: Whether products of pairs are features too.
        alpha: Miscoverage of ``radii``, 0 … 1.
        horizon: H, latent steps that ``radii`` covers.

    Attributes:
        radii: ``(H + 1,)`` [unit], never falling: bound on the error of the observed state and of the state imagined
            1 … H latent steps ahead, with the coverage that `wm.conformal` states. Infinite until calibrated, so that
            no rule holds on a read-out that is not.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    offset: Tensor
    radii: Tensor
    pairs: Tensor

    def __init__(
        self, names: tuple[str, ...], unit: str, tokens: int, width: int, products: bool, alpha: float, horizon: int
    ) -> None:
        super().__init__()
        self.names, self.unit, self.tokens, self.width = names, unit, tokens, width
        self.products, self.alpha, self.horizon = products, alpha, horizon
        numbers = tokens * width
        features = numbers + (numbers * (numbers + 1) // 2 if products else 0)
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("std", torch.ones(numbers))
        self.register_buffer("weight", torch.zeros(features, len(names)))
        self.register_buffer("offset", torch.zeros(len(names)))
        self.register_buffer("radii", torch.full((horizon + 1,), torch.inf))
        if products:
            self.register_buffer("pairs", torch.triu_indices(numbers, numbers), persistent=False)

    def forward(self, tokens: Float[Tensor, "*n N D"]) -> Float[Tensor, "*n K"]:
        """Read the numbers [unit].

        Raises:
            BadInputError: tokens of other sizes.
        """
        if tokens.shape[-2:] != (self.tokens, self.width):
            raise BadInputError(
                f"read-out of {self.names}: expected {self.tokens} tokens of {self.width} numbers, "
                f"came {tuple(tokens.shape[-2:])}."
            )
        return self.features(tokens.flatten(-2)).to(self.weight) @ self.weight + self.offset

    def features(self, states: Float[Tensor, "*n X"]) -> Float[Tensor, "*n F"]:
        """What the linear map sees, from flattened tokens; precision as given."""
        standard = (states - self.mean.to(states)) / self.std.to(states)
        if not self.products:
            return standard
        first, second = self.pairs
        return torch.cat([standard, standard[..., first] * standard[..., second]], dim=-1)


def train_readout(
    joint: JointModel,
    train: LogWindows,
    held_out: LogWindows,
    truth: Float[np.ndarray, "O K"],
    names: tuple[str, ...],
    unit: str,
    *,
    products: bool = False,
    alpha: float = 0.1,
    frames: int = 20_000,
    penalty: float = 1e-4,
    seed: int = 0,
) -> StateReadout:
    """Fit a read-out to observed states of training episodes and calibrate it on imagined states of held-out ones.

    Args:
        joint: The model whose states are read.
        train: Windows of a table of states ``(O, N * D)``.
        held_out: Windows of the same table, of other episodes, H latent steps long, H the longest horizon to cover.
        truth: Of every row of the table; give an angle as its cosine and sine.
        names: Of the K numbers.
        unit: Of all of them.
        products: Whether products of pairs of numbers are features too: more exact, and more to compute.
        alpha: Miscoverage of the calibrated error.
        frames: Training frames to fit to.
        penalty: Ridge penalty on standardised features, per frame.
        seed: Of the draws.

    Raises:
        BadInputError: the truth is misshapen or not finite, the windows share an episode, there are no more frames than
            features, or too few held-out episodes for alpha.
    """
    if truth.shape != (len(train.log.observations), len(names)) or not np.isfinite(truth).all():
        raise BadInputError(
            f"read-out of {names}: expected finite truth of the shape {(len(train.log.observations), len(names))}, "
            f"came {truth.shape}."
        )
    episodes, starts = train.sampler.sample(np.random.default_rng(seed), frames)
    held = one_window_per_episode(held_out, seed)
    shared = np.intersect1d(episodes, held[0])
    if len(shared):
        raise BadInputError(
            f"read-out of {names}: expected other episodes held out than trained on, "
            f"came {len(shared)} in both, e.g. {shared[0]}."
        )
    horizon = held_out.sampler.observation_index(*held).shape[1] - joint.predictor.history
    readout = StateReadout(names, unit, joint.head.tokens, joint.head.width, products, alpha, horizon)
    if frames <= len(readout.weight):
        raise BadInputError(f"read-out of {names}: {len(readout.weight)} features need more frames, came {frames}.")
    rows = train.sampler.observation_index(episodes, starts)[:, 0]
    states = torch.as_tensor(train.log.observations[rows])
    _fit(readout, states.double(), torch.from_numpy(truth[rows]).double(), penalty)
    errors = readout_errors(readout, joint, held_out, truth, seed)
    readout.radii.copy_(split_conformal(errors, alpha).cummax(0).values)
    return readout.requires_grad_(False).eval()


def readout_errors(
    readout: StateReadout, joint: JointModel, windows: LogWindows, truth: Float[np.ndarray, "O K"], seed: int = 0
) -> Float[Tensor, "n H1"]:
    """Distance of read and true numbers [unit], one window of each episode.

    Args:
        readout: Fitted.
        joint: The model.
        windows: Windows of a table of states.
        truth: Of every row of the table.
        seed: Of the draw.

    Returns:
        Of the observed state and after 1 … H latent steps (H1 = H + 1).
    """
    vectors, rows = imagine_windows(joint, windows, *one_window_per_episode(windows, seed))
    tokens = vectors[..., : readout.tokens * readout.width].unflatten(-1, (readout.tokens, readout.width))
    true = torch.from_numpy(truth)[rows].to(readout.offset)
    return torch.linalg.vector_norm(readout(tokens) - true, dim=-1)


def save_readout(readout: StateReadout, path: Path, model: WorldModel, provenance: dict[str, object]) -> None:
    """Write the read-out.

    Args:
        readout: Trained.
        path: The file.
        model: Whose states it reads.
        provenance: Command, seed, versions.

    Raises:
        StoreError: the disk refuses.
    """
    header = {
        "kind": "state-readout",
        "env": model.spec.env.env,
        "model": fingerprint(model),
        "settings": {name: getattr(readout, name) for name in _SETTINGS},
        "provenance": provenance,
    }
    save_tensors(path, dict(readout.state_dict()), header)


def load_readout(path: Path, model: WorldModel) -> StateReadout:
    """A read-out that `save_readout` wrote, frozen.

    Args:
        path: The file.
        model: Whose states are to be read. All its weights count: encoder and state head make the states, the predictor
            the errors that were calibrated.

    Raises:
        CheckpointError: missing, truncated, not a read-out, misshapen, or with radii that are no bounds.
        MismatchError: the read-out of another environment or model.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != "state-readout":
        raise CheckpointError(f"{path}: expected a state read-out, came '{header.get('kind')}'.")
    require_equal("read-out of another environment: env", model.spec.env.env, header.get("env"), path)
    require_equal("read-out of another model: model fingerprint", fingerprint(model), header.get("model"), path)
    settings = dict(header.get("settings") or {})
    if set(settings) != set(_SETTINGS):
        raise CheckpointError(f"{path}: expected a read-out with the settings {_SETTINGS}, came {sorted(settings)}.")
    readout = StateReadout(**settings | {"names": tuple(settings["names"])})
    load_weights(readout, tensors, path)
    if not bool((torch.isfinite(readout.radii) & (readout.radii >= 0)).all() and (readout.radii.diff() >= 0).all()):
        raise CheckpointError(f"{path}: expected radii >= 0 that never fall, came {readout.radii.tolist()}.")
    return readout.requires_grad_(False).eval()


def _fit(readout: StateReadout, states: Tensor, targets: Tensor, penalty: float) -> None:
    """Ridge regression on standardised features, in float64; a constant feature is left out by its zero deviation."""
    std = states.std(0, correction=0)
    readout.mean.copy_(states.mean(0))
    readout.std.copy_(torch.where(std < 1e-8, 1.0, std))
    features, offset = readout.features(states), targets.mean(0)
    mean, std = features.mean(0), features.std(0, correction=0) + 1e-9
    features = (features - mean) / std
    gram = features.T @ features + penalty * len(features) * torch.eye(features.shape[1], dtype=features.dtype)
    weight = torch.linalg.solve(gram, features.T @ (targets - offset)) / std[:, None]
    readout.weight.copy_(weight)
    readout.offset.copy_(offset - mean @ weight)
