"""Sizes of the rivals' models, and random weights under their names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a rival's model; the defaults are those of DINO-WM on push-T.

    Attributes:
        image: Side of the square picture that its encoder takes, pixels.
        patch: Side of a patch of it, pixels.
        width: Width of the encoder.
        encoder_depth: Layers of the encoder.
        encoder_heads: Attention heads of the encoder.
        proprio_width: Numbers of proprioception; 0: the model takes none.
        action_width: Numbers in one latent step's action.
        embedding: Numbers of the embedding of either, where they are concatenated to the patches.
        window: Frames.
        depth: Layers of the predictor.
        heads: Its attention heads.
        head_width: Numbers per head.
        hidden: Hidden numbers of its feed-forward part.
    """

    image: int = 196
    patch: int = 14
    width: int = 384
    encoder_depth: int = 12
    encoder_heads: int = 6
    proprio_width: int = 4
    action_width: int = 10
    embedding: int = 10
    window: int = 3
    depth: int = 6
    heads: int = 16
    head_width: int = 64
    hidden: int = 2048

    @property
    def patches(self) -> int:
        """N of a picture."""
        return (self.image // self.patch) ** 2


LEWM = Sizes(image=224, width=192, encoder_heads=3, proprio_width=0)
"""Sizes of LeWM on push-T."""


def dino_wm_state(sizes: Sizes, seed: int) -> State:
    """Random weights of DINO-WM's predictor and small encoders, under its names."""
    draw, state = _Draw(seed), State()
    width = sizes.width + 2 * sizes.embedding
    for name, inputs in (("proprio_encoder", sizes.proprio_width), ("action_encoder", sizes.action_width)):
        state[f"{name}.patch_embed.weight"] = draw.matrix(sizes.embedding, inputs)[..., None]
        state[f"{name}.patch_embed.bias"] = draw.bias(sizes.embedding)
    state["predictor.pos_embedding"] = draw.normal(1, sizes.window * sizes.patches, width)
    for index in range(sizes.depth):
        layer = f"predictor.transformer.layers.{index}"
        state |= draw.block(f"{layer}.0", f"{layer}.1", width, sizes)
    return state | draw.norm("predictor.transformer.norm", width)


def lewm_state(sizes: Sizes, seed: int) -> State:
    """Random weights of LeWM's predictor, action encoder and projections, under its names."""
    draw, state, width = _Draw(seed), State(), sizes.width
    state["predictor.pos_embedding"] = draw.normal(1, sizes.window, width)
    for index in range(sizes.depth):
        layer = f"predictor.transformer.layers.{index}"
        state |= draw.block(f"{layer}.attn", f"{layer}.mlp", width, sizes)
        state |= draw.linear(f"{layer}.adaLN_modulation.1", 6 * width, width)
    state |= draw.norm("predictor.transformer.norm", width)
    state["action_encoder.patch_embed.weight"] = draw.matrix(sizes.action_width, sizes.action_width)[..., None]
    state["action_encoder.patch_embed.bias"] = draw.bias(sizes.action_width)
    state |= draw.linear("action_encoder.embed.0", 4 * width, sizes.action_width)
    state |= draw.linear("action_encoder.embed.2", width, 4 * width)
    for name in ("projector", "pred_proj"):
        state |= draw.linear(f"{name}.net.0", sizes.hidden, width) | draw.norm(f"{name}.net.1", sizes.hidden)
        state[f"{name}.net.1.running_mean"] = draw.bias(sizes.hidden)
        state[f"{name}.net.1.running_var"] = 0.5 + draw.bias(sizes.hidden).square()
        state[f"{name}.net.1.num_batches_tracked"] = torch.tensor(1)
        state |= draw.linear(f"{name}.net.3", width, sizes.hidden)
    return state


class _Draw:
    """Random weights of the usual sizes."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def matrix(self, rows: int, columns: int) -> Tensor:
        return self.normal(rows, columns) * columns**-0.5

    def bias(self, width: int) -> Tensor:
        return 0.1 * self.normal(width)

    def linear(self, name: str, rows: int, columns: int) -> State:
        return {f"{name}.weight": self.matrix(rows, columns), f"{name}.bias": self.bias(rows)}

    def norm(self, name: str, width: int) -> State:
        return {f"{name}.weight": 1 + self.bias(width), f"{name}.bias": self.bias(width)}

    def block(self, attention: str, feed_forward: str, width: int, sizes: Sizes) -> State:
        inner = sizes.heads * sizes.head_width
        state = self.norm(f"{attention}.norm", width)
        state[f"{attention}.to_qkv.weight"] = self.matrix(3 * inner, width)
        state |= self.linear(f"{attention}.to_out.0", width, inner)
        state |= self.norm(f"{feed_forward}.net.0", width)
        state |= self.linear(f"{feed_forward}.net.1", sizes.hidden, width)
        return state | self.linear(f"{feed_forward}.net.4", width, sizes.hidden)
