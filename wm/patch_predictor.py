"""The patch predictor: one latent step ahead on all patch tokens of the frames, with DINO-WM's layers and sizes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.frame_causal import FramePredictor, KeysValues, Observed
from wm.linear import Linear, linear
from wm.patch_attention import Past, attend, project


class PatchPredictor(FramePredictor):
    """DINO-WM's predictor (arXiv 2411.04983): a ViT over the patch tokens of up to `window` frames.

    A patch's token is the frozen encoder's token, an embedding of the frame's proprioception and one of the action
    taken in it, one behind the other; the embeddings are the same for all patches of a frame. It predicts the first two
    of the next frame's; what it says of the action is dropped. A predicted frame is fed back as it came, with its
    proprioception by patch. What candidates can share is said in `FramePredictor`; the defaults are DINO-WM's sizes for
    push-T with DINOv2-S/14 (20.1 M parameters). `wm.foreign_weights.from_dino_wm` brings its weights.

    DINO-WM predicts tokens that are layer-normed, as DINOv2's are, and its last layer norm gives such. Tokens of other
    lengths, many of them near zero, it cannot give; a `residual` predictor has a linear layer behind that norm, which
    says what changes, at first nothing.

    Args:
        patches: N.
        width: D of the encoder's tokens.
        proprio_width: P; normalised numbers. 0: there are none, nor an embedding of them.
        action_width: A; normalised numbers.
        proprio_embedding: Numbers of its embedding.
        action_embedding: Numbers of its embedding.
        window: Frames.
        depth: Layers.
        heads: Attention heads.
        head_width: Numbers per head.
        hidden: Hidden numbers of the feed-forward part.
        chunk: Candidates at a time, see `FramePredictor`.
        residual: See above.
    """

    def __init__(
        self,
        patches: int = 196,
        width: int = 384,
        proprio_width: int = 4,
        action_width: int = 10,
        proprio_embedding: int = 10,
        action_embedding: int = 10,
        window: int = 3,
        depth: int = 6,
        heads: int = 16,
        head_width: int = 64,
        hidden: int = 2048,
        chunk: int = 4,
        residual: bool = False,
    ) -> None:
        super().__init__(window, patches, heads, chunk)
        self.width = width
        kept = width + (proprio_embedding if proprio_width else 0)
        full = kept + action_embedding
        self.embed_proprio = nn.Linear(proprio_width, proprio_embedding) if proprio_width else None
        self.embed_action = nn.Linear(action_width, action_embedding)
        scale = 0.1 if residual else 1.0  # most of such tokens' numbers are small beside 1
        self.positions = nn.Parameter(scale * torch.randn(window, patches, full))
        self.blocks = nn.ModuleList([_Block(full, heads, head_width, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(full)
        self.change = Linear(full, kept) if residual else None
        if self.change is not None:
            nn.init.zeros_(self.change.weight)  # starts as "nothing changes"
            nn.init.zeros_(self.change.bias)

    def frames(self, tokens: Float[Tensor, "B T N D"], proprio: Float[Tensor, "B T P"]) -> Float[Tensor, "B T N X"]:
        """Observed frames as the predictor takes and gives them: tokens, and embedded proprioception behind them."""
        embedded = proprio if self.embed_proprio is None else self.embed_proprio(proprio)
        return torch.cat([tokens, embedded[:, :, None].expand(-1, -1, tokens.shape[2], -1)], dim=-1)

    def split(self, frames: Float[Tensor, "*n N X"]) -> tuple[Float[Tensor, "*n N D"], Float[Tensor, "*n E"]]:
        """Tokens of frames and the embedding of their proprioception, read at the first patch as DINO-WM does."""
        return frames[..., : self.width], frames[..., 0, self.width :]

    def observe_frames(
        self,
        tokens: Float[Tensor, "B T N D"],
        proprio: Float[Tensor, "B T P"],
        past_actions: Float[Tensor, "B K A"],
    ) -> Observed:
        """`observe` from the encoder's tokens and normalised proprioception."""
        return self.observe(self.frames(tokens, proprio), past_actions)

    def condition(self, actions: Float[Tensor, "*n A"]) -> Float[Tensor, "*n E"]:
        """The embedding that a frame's tokens get."""
        return self.embed_action(actions)

    def enter(
        self, frames: Float[Tensor, "M F N X"], conditions: Float[Tensor, "M F E"], place: int
    ) -> Float[Tensor, "M F N D"]:
        """Frames with their actions and positions."""
        behind = conditions[:, :, None].expand(-1, -1, self.tokens, -1)
        return torch.cat([frames, behind], dim=-1) + self.positions[place : place + frames.shape[1]]

    def layers(
        self, x: Float[Tensor, "M F N D"], conditions: Float[Tensor, "M F E"], past: KeysValues
    ) -> tuple[Float[Tensor, "M N D"], KeysValues]:
        """The transformer's layers; the actions are in the tokens. Each layer's keys and values are two tensors."""
        seen = KeysValues()
        for index, block in enumerate(self.blocks):
            before = (past[2 * index], past[2 * index + 1]) if past else None
            x, keys_values = block(x, before, index == len(self.blocks) - 1)
            seen.extend(keys_values)
        return x[:, -1], seen

    def leave(self, x: Float[Tensor, "M N D"]) -> Float[Tensor, "M N X"]:
        """Final norm, without the action's numbers; what changes, in a residual predictor."""
        normed = self.norm(x)
        found: Tensor = normed[..., : -self.embed_action.out_features] if self.change is None else self.change(normed)
        return found

    def advance(
        self, frames: Float[Tensor, "M F N X"], conditions: Float[Tensor, "M F E"], past: KeysValues
    ) -> tuple[Float[Tensor, "M N X"], KeysValues]:
        """The frame after the given ones, whose past is given by its keys and values."""
        following, seen = super().advance(frames, conditions, past)
        return (following if self.change is None else frames[:, -1] + following), seen


class _Block(nn.Module):
    """Pre-norm attention over visible frames, then the feed-forward part; `newest` asks for the newest frame only."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.inner = heads, heads * head_width
        self.norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * self.inner, bias=False)
        self.merge = nn.Linear(self.inner, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: Tensor, past: Past | None, newest: bool) -> tuple[Tensor, Past]:
        # (M, F, N, D)
        queries, keys, values = project(self.norm(x), self.queries_keys_values.weight, newest)
        mixed, seen = attend(queries, keys, values, past, self.heads)
        x = (x[:, -1:] if newest else x) + linear(mixed, self.merge.weight, self.merge.bias)
        wide = linear(self.hidden_norm(x), self.widen.weight, self.widen.bias, gelu=True)
        return x + linear(wide, self.narrow.weight, self.narrow.bias), seen
