"""The token predictor: one latent step ahead on one token per frame, with LeWM's layers and sizes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wm.frame_causal import FramePredictor, KeysValues, attend
from wm.linear import linear


class TokenPredictor(FramePredictor):
    """LeWM's predictor (arXiv 2603.19312): a causal transformer over the one token of each of up to `window` frames.

    The action taken in a frame does not enter its token: it shifts, scales and gates every layer (adaptive layer norm,
    Peebles & Xie 2023, arXiv 2212.09748). Those numbers depend on the action alone, so they are made once for each
    action of a candidate, for all layers together, and serve every window that the frame is in. What else can be shared
    is said in `FramePredictor`; the defaults are LeWM's sizes for push-T. `wm.foreign_weights.from_lewm` brings its
    weights.

    Args:
        width: D of the token.
        action_width: A; normalised numbers.
        action_hidden: Hidden numbers of the action's embedding.
        window: Frames.
        depth: Layers.
        heads: Attention heads.
        head_width: Numbers per head.
        hidden: Hidden numbers of the feed-forward part.
        out_hidden: Hidden numbers of the projection behind the last layer.
        chunk: Candidates at a time, see `FramePredictor`.
    """

    def __init__(
        self,
        width: int = 192,
        action_width: int = 10,
        action_hidden: int = 768,
        window: int = 3,
        depth: int = 6,
        heads: int = 16,
        head_width: int = 64,
        hidden: int = 2048,
        out_hidden: int = 2048,
        chunk: int = 150,
    ) -> None:
        super().__init__(window, 1, heads, chunk)
        self.embed_action = nn.Sequential(
            nn.Linear(action_width, action_hidden), nn.SiLU(), nn.Linear(action_hidden, width), nn.SiLU()
        )
        self.modulate = nn.Linear(width, depth * 6 * width)
        self.positions = nn.Parameter(torch.randn(window, 1, width))
        self.blocks = nn.ModuleList([_Block(width, heads, head_width, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, out_hidden)
        self.narrow = nn.Linear(out_hidden, width)

    def condition(self, actions: Float[Tensor, "*n A"]) -> Float[Tensor, "*n E"]:
        """Shifts, scales and gates of all layers."""
        return linear(self.embed_action(actions), self.modulate.weight, self.modulate.bias)

    def enter(
        self, frames: Float[Tensor, "M F N X"], conditions: Float[Tensor, "M F E"], place: int
    ) -> Float[Tensor, "M F N D"]:
        """Frames with their positions."""
        return frames + self.positions[place : place + frames.shape[1]]

    def layers(
        self, x: Float[Tensor, "M F N D"], conditions: Float[Tensor, "M F E"], past: KeysValues
    ) -> tuple[Float[Tensor, "M N D"], KeysValues]:
        """The transformer's layers, each with its part of the conditions."""
        seen = KeysValues()
        by_layer = conditions[:, :, None].chunk(len(self.blocks), dim=-1)  # (M, F, 1, 6 * D) each
        for index, (block, condition) in enumerate(zip(self.blocks, by_layer, strict=True)):
            x, keys_values = block(x, condition, past[index] if past else None, index == len(self.blocks) - 1)
            seen.append(keys_values)
        return x[:, -1], seen

    def leave(self, x: Float[Tensor, "M N D"]) -> Float[Tensor, "M N X"]:
        """Final norm and projection."""
        wide = linear(self.norm(x), self.widen.weight, self.widen.bias, gelu=True)
        return linear(wide, self.narrow.weight, self.narrow.bias)


class _Block(nn.Module):
    """Attention over visible frames, then the feed-forward part, modulated; `newest` asks for the newest frame only.

    Each part norms twice: without weights before the modulation, with weights after it, as LeWM's does.
    """

    def __init__(self, width: int, heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.inner = heads, heads * head_width
        self.norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * self.inner, bias=False)
        self.merge = nn.Linear(self.inner, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: Tensor, condition: Tensor, past: Tensor | None, newest: bool) -> tuple[Tensor, Tensor]:
        # (M, F, 1, D)
        shift, scale, gate, hidden_shift, hidden_scale, hidden_gate = condition.chunk(6, dim=-1)
        normed, weight = self.norm(_modulated(x, shift, scale)), self.queries_keys_values.weight
        if newest and x.shape[1] > 1:
            x, gate = x[:, -1:], gate[:, -1:]
            hidden_shift, hidden_scale, hidden_gate = (
                each[:, -1:] for each in (hidden_shift, hidden_scale, hidden_gate)
            )
            queries = linear(normed[:, -1:], weight[: self.inner])
            keys_values = linear(normed, weight[self.inner :])
        else:
            queries, keys_values = linear(normed, weight).split([self.inner, 2 * self.inner], dim=-1)
        mixed, seen = attend(queries, past, keys_values, self.heads)
        x = torch.addcmul(x, gate, linear(mixed, self.merge.weight, self.merge.bias))
        normed = self.hidden_norm(_modulated(x, hidden_shift, hidden_scale))
        wide = linear(normed, self.widen.weight, self.widen.bias, gelu=True)
        return torch.addcmul(x, hidden_gate, linear(wide, self.narrow.weight, self.narrow.bias)), seen


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)
