"""Joint-embedding prediction: state head and predictor, trained together by a rollout in latent space."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.losses import explained_part, rollout_loss, sigreg
from wm.patch_dynamics import PatchDynamics
from wm.patch_head import PatchHead
from wm.point_head import PointHead
from wm.predictor import Predictor
from wm.rollout import rollout
from wm.state_head import StateHead
from wm.stroke_predictor import StrokePredictor

Head = TypeVar("Head", StateHead, PointHead, PatchHead)

EXPLAINED_WEIGHT = 0.05
"""Of the part of the latent that proprioception explains; small, it only keeps the robot out of the world's numbers."""


class JointModel(nn.Module, Generic[Head]):
    """A state head and the predictor of what it sees.

    Args:
        head: Encoder tokens to state tokens.
        predictor: One latent step ahead.
    """

    head: Head

    def __init__(self, head: Head, predictor: Predictor | StrokePredictor | PatchDynamics) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def state_vectors(
        self, tokens: Float[Tensor, "B T Ne De"], proprio: Float[Tensor, "B T P"] | None
    ) -> Float[Tensor, "B T X"]:
        """State tokens, flattened, with the normalised proprioception behind them."""
        state = self.head(tokens.flatten(0, 1)).flatten(1).unflatten(0, tokens.shape[:2])
        return state if proprio is None else torch.cat([state, proprio], dim=-1)

    def loss(
        self,
        states: Float[Tensor, "B T X"],
        actions: Float[Tensor, "B T-1 A"],
        proprio: Float[Tensor, "B T P"] | None,
        regulariser: float,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Rollout error over all steps after the context, plus what keeps the state informative.

        The targets are not detached: SIGReg, not a stop-gradient, prevents collapse (LeWM, arXiv 2603.19312). Where
        the robot reports proprioception, the last P numbers of the latent are a read-out of it from the picture, and
        SIGReg looks only at what proprioception does not explain of the others. Otherwise the robot, which moves most
        and is the easiest to predict, fills the whole latent, and what it is to move is left out.
        """
        history, latent = self.predictor.history, self.head.tokens * self.head.width
        imagined = rollout(self.predictor, states[:, :history], actions[:, None, history - 1 :])[:, 0]
        target = states[:, history:]
        prediction = rollout_loss(imagined, target, torch.ones(states.shape[-1]))
        embeddings = states[..., :latent].flatten(0, 1)
        read_out = torch.zeros(())
        explained = torch.zeros(1)
        if proprio is not None:
            known = proprio.flatten(0, 1)
            read_out = (embeddings[:, -known.shape[1] :] - known).square().mean()
            world = embeddings[:, : -known.shape[1]]
            explained = explained_part(world, known, generator)
            embeddings = world - explained
        collapse = sigreg(embeddings, generator) if regulariser > 0 else torch.zeros(())
        value = prediction + regulariser * collapse + read_out + EXPLAINED_WEIGHT * explained.square().mean()
        with torch.no_grad():
            world_width = embeddings.shape[1]
            last = states[:, history - 1, :world_width]
            copy = (last - target[:, -1, :world_width]).square().mean()
            error = (imagined - target)[:, -1, :world_width].square().mean()
        figures = {"prediction": prediction, "sigreg": collapse, "read_out": read_out, "std": embeddings.std(0).mean()}
        figures |= {"explained": explained.square().mean(), "share_of_copy": error / copy.clamp_min(1e-9)}
        return value, {name: figure.detach() for name, figure in figures.items()}
