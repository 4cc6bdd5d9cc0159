"""Weights of other projects' predictors, under the names and in the shapes of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from wm.checkpoint import load_weights, require_finite
from wm.errors import CheckpointError
from wm.patch_predictor import PatchPredictor
from wm.token_predictor import TokenPredictor


class _Reader:
    """Takes tensors out of a state dict by name, and remembers which were missing."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state, self.missing, self.taken = state, list[str](), dict[str, Tensor]()

    def __call__(self, ours: str, theirs: str, change: Callable[[Tensor], Tensor] = torch.Tensor.detach) -> None:
        """Our tensor is theirs, changed."""
        tensor = self.need(theirs)
        if tensor is not None:
            self.taken[ours] = change(tensor)

    def layer(self, ours: str, theirs: str, change: Callable[[Tensor], Tensor] = torch.Tensor.detach) -> None:
        """Weight and bias of a linear layer or norm; `change` is the weight's."""
        self(f"{ours}.weight", f"{theirs}.weight", change)
        self(f"{ours}.bias", f"{theirs}.bias")

    def need(self, name: str) -> Tensor | None:
        """A tensor of theirs, or None and a note that it is missing."""
        if name not in self.state:
            self.missing.append(name)
        return self.state.get(name)

    def all_of(self, *names: str) -> list[Tensor] | None:
        """Several of theirs, or None where one is missing."""
        found = [self.need(name) for name in names]
        return None if any(each is None for each in found) else [each for each in found if each is not None]

    def block(self, ours: str, attention: str, feed_forward: str) -> None:
        """What the transformer blocks of both have in common."""
        self.layer(f"{ours}.norm", f"{attention}.norm")
        self(f"{ours}.queries_keys_values.weight", f"{attention}.to_qkv.weight")
        self.layer(f"{ours}.merge", f"{attention}.to_out.0")
        self.layer(f"{ours}.hidden_norm", f"{feed_forward}.net.0")
        self.layer(f"{ours}.widen", f"{feed_forward}.net.1")
        self.layer(f"{ours}.narrow", f"{feed_forward}.net.4")

    def finish(self, predictor: torch.nn.Module, where: str) -> None:
        """Into the predictor."""
        if self.missing:
            raise CheckpointError(f"{where}: expected the weights {', '.join(self.missing)}, they are missing.")
        require_finite(self.taken, where)
        load_weights(predictor, self.taken, where)


def from_dino_wm(predictor: PatchPredictor, state: Mapping[str, Tensor], where: str = "DINO-WM's weights") -> None:
    """Fill a predictor with the weights of DINO-WM's world model, so that both give the same answer.

    Args:
        predictor: Of the same sizes.
        state: State dict of its world model; only the predictor and the encoders of proprioception and action are read.
        where: Their source, for messages.

    Raises:
        CheckpointError: missing names, other sizes, or numbers that are not finite.
    """
    read = _Reader(state)
    for ours, theirs in (("embed_proprio", "proprio_encoder"), ("embed_action", "action_encoder")):
        read.layer(ours, f"{theirs}.patch_embed", lambda weight: weight.squeeze(-1))  # a convolution over one instant
    tokens = predictor.tokens
    read("positions", "predictor.pos_embedding", lambda table: _by_frame(table, tokens))
    for index in range(len(predictor.blocks)):
        theirs = f"predictor.transformer.layers.{index}"
        read.block(f"blocks.{index}", f"{theirs}.0", f"{theirs}.1")
    read.layer("norm", "predictor.transformer.norm")
    read.finish(predictor, where)


def from_lewm(predictor: TokenPredictor, state: Mapping[str, Tensor], where: str = "LeWM's weights") -> None:
    """Fill a predictor with the weights of LeWM's world model, so that both give the same answer.

    Layers that follow each other without anything between them are multiplied out: its one-instant convolution into the
    action's first layer, its batch norm (in evaluation mode) into the layer before.

    Args:
        predictor: Of the same sizes.
        state: State dict of its world model; its picture encoder and that one's projection are not read.
        where: Their source, for messages.

    Raises:
        CheckpointError: missing names, other sizes, a transformer that projects to another width, or numbers that are
            not finite.
    """
    projections = sorted(name for name in state if name.startswith("predictor.transformer.") and "_proj." in name)
    if projections:
        raise CheckpointError(f"{where}: expected a transformer of its tokens' width, it has {', '.join(projections)}.")
    read, norm = _Reader(state), "predictor.transformer"
    read("positions", "predictor.pos_embedding", lambda table: table.transpose(0, 1))
    for index in range(len(predictor.blocks)):
        theirs = f"{norm}.layers.{index}"
        read.block(f"blocks.{index}", f"{theirs}.attn", f"{theirs}.mlp")
    for part in ("weight", "bias"):
        modulations = [f"{norm}.layers.{i}.adaLN_modulation.1.{part}" for i in range(len(predictor.blocks))]
        found = read.all_of(*modulations)
        if found is not None:
            read.taken[f"modulate.{part}"] = torch.cat(found).detach()
    read.layer("norm", f"{norm}.norm")
    _read_action_embedding(read)
    _read_projection(read)
    read.finish(predictor, where)


def _by_frame(table: Tensor, tokens: int) -> Tensor:
    """``(1, W * N, D)`` positions to ``(W, N, D)``; a table of another N stays, and is refused for its shape."""
    return table[0].unflatten(0, (-1, tokens)) if table.shape[1] % tokens == 0 else table


def _read_action_embedding(read: _Reader) -> None:
    names = ("patch_embed.weight", "patch_embed.bias", "embed.0.weight", "embed.0.bias")
    found = read.all_of(*(f"action_encoder.{name}" for name in names))
    if found is not None:
        weight, bias, next_weight, next_bias = (each.detach().double() for each in found)
        read.taken["embed_action.0.weight"] = (next_weight @ weight.squeeze(-1)).float()
        read.taken["embed_action.0.bias"] = (next_weight @ bias + next_bias).float()
    read.layer("embed_action.2", "action_encoder.embed.2")


def _read_projection(read: _Reader) -> None:
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    found = read.all_of(*(f"pred_proj.net.{name}" for name in names))
    if found is not None:
        weight, bias, scale, shift, mean, variance = (each.detach().double() for each in found)
        factor = scale / torch.sqrt(variance + 1e-5)
        read.taken["widen.weight"] = (factor[:, None] * weight).float()
        read.taken["widen.bias"] = (factor * (bias - mean) + shift).float()
    read.layer("narrow", "pred_proj.net.3")
