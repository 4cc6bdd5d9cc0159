"""Joint-embedding prediction: state head and predictor, trained together by a rollout in latent space."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.losses import rollout_loss, sigreg
from wm.predictor import Predictor
from wm.rollout import rollout
from wm.state_head import StateHead


class JointModel(nn.Module):
    """A state head and the predictor of what it sees.

    Args:
        head: Encoder tokens to state tokens.
        predictor: One latent step ahead.
    """

    def __init__(self, head: StateHead, predictor: Predictor) -> None:
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
        regulariser: float,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Rollout error over all steps after the context, plus the regulariser against collapse.

        The targets are not detached: SIGReg, not a stop-gradient, keeps the state informative (LeWM, arXiv 2603.19312).
        """
        history, width = self.predictor.history, self.head.tokens * self.head.width
        imagined = rollout(self.predictor, states[:, :history], actions[:, None, history - 1 :])[:, 0]
        target = states[:, history:]
        prediction = rollout_loss(imagined, target, torch.ones(states.shape[-1]))
        embeddings = states[..., :width].flatten(0, 1)
        collapse = sigreg(embeddings, generator) if regulariser > 0 else torch.zeros(())
        with torch.no_grad():
            last = states[:, history - 1 : history, :width].expand_as(target[..., :width])
            copy = (last - target[..., :width])[:, -1].square().mean()
            error = (imagined - target)[:, -1, :width].square().mean()
            std = embeddings.std(0).mean()
        figures = {"prediction": prediction.detach(), "sigreg": collapse.detach(), "std": std}
        return prediction + regulariser * collapse, figures | {"share_of_copy": error / copy.clamp_min(1e-9)}
