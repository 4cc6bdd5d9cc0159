"""What DINO-WM and LeWM compute when they plan, done as they do it, in plain operations on their state dicts' names.

Nothing is kept from one call to the next, whole windows are computed in every step, attention is dense under a mask.
The weights are random: their values do not change the time, and all of them are in the costs that are compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wm.experiments.studies.rival_weights import Sizes, State


class PictureEncoder(nn.Module):
    """A ViT of the encoder's sizes (DINOv2-S/14 for DINO-WM, ViT-Ti/14 for LeWM): what encoding a picture costs."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.name, self.emb_dim, self.patch_size = "dino stand-in", sizes.width, sizes.patch
        self.patches = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch)
        self.first = nn.Parameter(torch.randn(1, 1, sizes.width))
        self.positions = nn.Parameter(torch.randn(1, sizes.patches + 1, sizes.width))
        layer = nn.TransformerEncoderLayer(
            sizes.width, sizes.encoder_heads, 4 * sizes.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, sizes.encoder_depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(sizes.width)
        self.eval().requires_grad_(False)

    def tokens(self, pictures: Tensor) -> Tensor:
        """``(M, 3, H, W)`` pictures to ``(M, 1 + N, D)`` tokens, the picture's own first."""
        x = self.patches(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.norm(self.layers(x))

    def forward(self, pictures: Tensor) -> Tensor:
        """``(M, 3, H, W)`` pictures to ``(M, N, D)`` patch tokens."""
        return self.tokens(pictures)[:, 1:]


class DinoWM:
    """DINO-WM's world model in planning: `rollout` and `cost` of S copies of one problem."""

    def __init__(self, state: State, sizes: Sizes, encoder: nn.Module) -> None:
        self.state, self.sizes, self.encoder = state, sizes, encoder
        self.mask = _frame_mask(sizes.patches, sizes.window)

    def encode(self, pictures: Tensor, proprio: Tensor) -> Tensor:
        """``(S, T, 3, H, W)`` pictures and ``(S, T, P)`` numbers to ``(S, T, N, D + E)`` frames."""
        tokens = self.encoder(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
        return torch.cat([tokens, self._tiled("proprio_encoder", proprio)], dim=-1)

    def rollout(self, pictures: Tensor, proprio: Tensor, actions: Tensor) -> Tensor:
        """Frames from T observed ones on, ``(S, T + H, N, D + E)``, actions ``(S, T - 1 + H, A)``."""
        return self.imagine(self.encode(pictures, proprio), actions)

    def imagine(self, frames: Tensor, actions: Tensor) -> Tensor:
        """The same from encoded frames."""
        embedded = self._tiled("action_encoder", actions)
        for step in range(frames.shape[1], actions.shape[1] + 1):
            first = max(0, step - self.sizes.window)
            window = torch.cat([frames[:, first:], embedded[:, first:step]], dim=-1)
            following = self._predict(window.flatten(1, 2))[:, -self.sizes.patches :, : frames.shape[-1]]
            frames = torch.cat([frames, following[:, None]], dim=1)
        return frames

    def cost(self, frames: Tensor, goal: Tensor) -> Tensor:
        """Mean squared distance of the last frame to the goal's: patches, plus embedding of the proprioception."""
        width, last = self.sizes.width, frames[:, -1]
        squared = (last - goal).square()
        return squared[..., :width].mean((1, 2)) + squared[:, 0, width:].mean(1)

    def _tiled(self, encoder: str, numbers: Tensor) -> Tensor:
        weight, bias = (self.state[f"{encoder}.patch_embed.{part}"] for part in ("weight", "bias"))
        embedded = functional.linear(numbers, weight[..., 0], bias)
        return embedded[:, :, None].expand(-1, -1, self.sizes.patches, -1)

    def _predict(self, x: Tensor) -> Tensor:
        x = x + self.state["predictor.pos_embedding"][:, : x.shape[1]]
        for index in range(self.sizes.depth):
            layer = f"predictor.transformer.layers.{index}"
            x = x + self._attention(f"{layer}.0", x)
            x = x + _feed_forward(self.state, f"{layer}.1", x)
        return _norm(self.state, "predictor.transformer.norm", x)

    def _attention(self, name: str, x: Tensor) -> Tensor:
        queries, keys, values = _heads(self.state, name, x, self.sizes.heads)
        scores = queries @ keys.transpose(-1, -2) * self.sizes.head_width**-0.5
        scores = scores.masked_fill(self.mask[: x.shape[1], : x.shape[1]], -torch.inf)
        mixed = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
        return _linear(self.state, f"{name}.to_out.0", mixed)


class LeWM:
    """LeWM's world model in planning: one token per frame; picture and goal are encoded again for every costing."""

    def __init__(self, state: State, sizes: Sizes, encoder: PictureEncoder) -> None:
        self.state, self.sizes, self.encoder = state, sizes, encoder

    def encode(self, pictures: Tensor) -> Tensor:
        """``(B, T, 3, H, W)`` pictures to ``(B, T, D)`` latents."""
        tokens = self.encoder.tokens(pictures.flatten(0, 1))[:, 0]
        return self._projection("projector", tokens).unflatten(0, pictures.shape[:2])

    def imagine(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents from T observed ones on, ``(M, T + H, D)``, actions ``(M, T - 1 + H, A)``."""
        for step in range(latents.shape[1], actions.shape[1] + 1):
            embedded = self._embed_action(actions[:, :step])  # all so far, anew in each step
            first = max(0, step - self.sizes.window)
            following = self._predict(latents[:, first:], embedded[:, first:])[:, -1:]
            latents = torch.cat([latents, following], dim=1)
        return latents

    def cost(self, pictures: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """``(B, S)`` summed squared distance of the last latent to the goal's, from ``(B, T, 3, H, W)`` pictures."""
        problems, samples = actions.shape[:2]
        wanted, latents = self.encode(goal), self.encode(pictures)
        repeated = latents[:, None].expand(-1, samples, -1, -1).flatten(0, 1).clone()
        last = self.imagine(repeated, actions.flatten(0, 1))[:, -1].unflatten(0, (problems, samples))
        return (last - wanted[:, -1:]).square().sum(-1)

    def _embed_action(self, actions: Tensor) -> Tensor:
        weight, bias = (self.state[f"action_encoder.patch_embed.{part}"] for part in ("weight", "bias"))
        smooth = functional.conv1d(actions.transpose(1, 2), weight, bias).transpose(1, 2)
        hidden = functional.silu(_linear(self.state, "action_encoder.embed.0", smooth))
        return _linear(self.state, "action_encoder.embed.2", hidden)

    def _predict(self, x: Tensor, condition: Tensor) -> Tensor:
        x = x + self.state["predictor.pos_embedding"][:, : x.shape[1]]
        for index in range(self.sizes.depth):
            layer = f"predictor.transformer.layers.{index}"
            modulation = _linear(self.state, f"{layer}.adaLN_modulation.1", functional.silu(condition))
            shift, scale, gate, late_shift, late_scale, late_gate = modulation.chunk(6, dim=-1)
            x = x + gate * self._attention(f"{layer}.attn", _plain_norm(x) * (1 + scale) + shift)
            x = x + late_gate * _feed_forward(
                self.state, f"{layer}.mlp", _plain_norm(x) * (1 + late_scale) + late_shift
            )
        return self._projection("pred_proj", _norm(self.state, "predictor.transformer.norm", x))

    def _attention(self, name: str, x: Tensor) -> Tensor:
        parts = _heads(self.state, name, x, self.sizes.heads)
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        return _linear(self.state, f"{name}.to_out.0", mixed.transpose(1, 2).flatten(2))

    def _projection(self, name: str, x: Tensor) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (self.state[f"{name}.net.1.{part}"] for part in parts)
        wide = _linear(self.state, f"{name}.net.0", x.flatten(0, -2))
        wide = functional.gelu(functional.batch_norm(wide, mean, variance, scale, shift))
        return _linear(self.state, f"{name}.net.3", wide).unflatten(0, x.shape[:-1])


def _frame_mask(tokens: int, frames: int) -> Tensor:
    """True where a token must not look: at tokens of later frames."""
    frame = torch.arange(frames).repeat_interleave(tokens)
    return frame[:, None] < frame


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _plain_norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def _feed_forward(state: State, name: str, x: Tensor) -> Tensor:
    wide = functional.gelu(_linear(state, f"{name}.net.1", _norm(state, f"{name}.net.0", x)))
    return _linear(state, f"{name}.net.4", wide)


def _heads(state: State, name: str, x: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    mixed = functional.linear(_norm(state, f"{name}.norm", x), state[f"{name}.to_qkv.weight"])
    queries, keys, values = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in mixed.chunk(3, dim=-1))
    return queries, keys, values
