"""The patch form's predictor on state vectors: frames of patch tokens and the proprioception that goes with them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.errors import BadInputError
from wm.linear import Linear
from wm.patch_predictor import PatchPredictor
from wm.rollout import Rollout
from wm.specs import PatchSizes

CHUNK = 8
"""Candidates at a time (`wm.frame_causal.FramePredictor`); measured at the default sizes."""


class PatchDynamics(nn.Module):
    """DINO-WM's predictor (`wm.patch_predictor`) for state vectors: N * D numbers of tokens, then P of proprioception.

    Proprioception is a condition, embedded beside every patch's token, and is predicted along with it; what the robot
    will report is read out of the predicted embeddings, averaged over the patches, by a linear map.

    Actions that led to the last observed frame are not asked for, neither in training nor in planning: what they did is
    seen in the frames. Earlier observed frames carry "no action", normalised zeros.

    Args:
        patches: N.
        width: D.
        proprio_width: P, or 0.
        action_width: A, numbers in one latent step's action.
        history: Context frames.
        reach: Latent steps that the window holds beyond them where `sizes` name none.
        hidden: Hidden numbers of the feed-forward parts.
        depth: Layers.
        sizes: More sizes.

    Raises:
        BadInputError: a size below 1, or a window shorter than the history.
    """

    def __init__(
        self,
        patches: int,
        width: int,
        proprio_width: int,
        action_width: int,
        history: int,
        reach: int,
        hidden: int,
        depth: int,
        sizes: PatchSizes,
    ) -> None:
        super().__init__()
        window = sizes.window or history + reach - 1  # the last predicted frame is not looked at again
        _require_sizes(window, sizes, width=width, history=history, reach=reach, hidden=hidden, depth=depth)
        self.history, self.action_width, self.latent_shape = history, action_width, (patches, width)
        self.predictor = PatchPredictor(
            patches, width, proprio_width, action_width, sizes.proprio_embedding, sizes.action_embedding, window,
            depth, sizes.heads, sizes.head_width, hidden, CHUNK, sizes.residual,
        )  # fmt: skip
        self.read = Linear(sizes.proprio_embedding, proprio_width) if proprio_width else None

    def prepare(self, context: Float[Tensor, "B T X"]) -> Rollout:
        """The rollout from observed state vectors; their keys and values are computed here, once for each."""
        latent = context[..., : self.latent_shape[0] * self.latent_shape[1]]
        tokens, proprio = latent.unflatten(-1, self.latent_shape), context[..., latent.shape[-1] :]
        nothing = context.new_zeros(len(context), context.shape[1] - 1, self.action_width)
        observed = self.predictor.observe_frames(tokens, proprio, nothing)
        return lambda actions: self._vectors(self.predictor.rollout(observed, actions))

    def _vectors(self, frames: Float[Tensor, "B S H N E"]) -> Float[Tensor, "B S H X"]:
        """Predicted frames as state vectors."""
        tokens = frames[..., : self.latent_shape[1]].flatten(-2)
        if self.read is None:
            return tokens
        embedded = frames[..., self.latent_shape[1] :].mean(-2)
        return torch.cat([tokens, self.read(embedded)], dim=-1)


def _require_sizes(window: int, sizes: PatchSizes, **more: int) -> None:
    for name, value in (sizes.to_json() | more | {"window": window}).items():
        if value < 1 and name not in ("residual", "read_out"):
            raise BadInputError(f"form 'patch': expected {name} >= 1, came {value}.")
    if window < more["history"]:
        raise BadInputError(f"form 'patch': expected a window of {more['history']} frames or more, came {window}.")
