"""The patch predictor once more, written down plainly: every frame of the window anew in each step, under a mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wm.patch_dynamics import PatchDynamics


def dense_rollout(dynamics: PatchDynamics, context: Tensor, actions: Tensor) -> Tensor:
    """One problem's one candidate: ``(T, X)`` state vectors and ``(H, A)`` normalised actions to ``(H, X)``."""
    predictor = dynamics.predictor
    n, d = dynamics.latent_shape
    frames = [_frame(dynamics, vector) for vector in context]
    taken = [torch.zeros_like(actions[0])] * (len(context) - 1)
    states = []
    for action in actions:
        taken.append(action)
        seen, past = frames[-predictor.window :], taken[-predictor.window :]
        conditions = torch.stack(past) @ predictor.embed_action.weight.T + predictor.embed_action.bias
        tokens = torch.cat([torch.stack(seen), conditions[:, None].expand(-1, n, -1)], dim=-1)
        x = (tokens + predictor.positions[: len(seen)]).flatten(0, 1)
        for block in predictor.blocks:
            x = _block(block, x, n)
        following = predictor.norm(x[-n:])[:, : frames[-1].shape[1]]
        if predictor.change is not None:
            change = predictor.change
            following = frames[-1] + predictor.norm(x[-n:]) @ change.weight.T + change.bias
        frames.append(following)
        state = following[:, :d].flatten()
        if dynamics.read is not None:
            state = torch.cat([state, following[:, d:].mean(0) @ dynamics.read.weight.T + dynamics.read.bias])
        states.append(state)
    return torch.stack(states)


def _frame(dynamics: PatchDynamics, vector: Tensor) -> Tensor:
    n, d = dynamics.latent_shape
    tokens, embed = vector[: n * d].unflatten(0, (n, d)), dynamics.predictor.embed_proprio
    if embed is None:
        return tokens
    return torch.cat([tokens, (vector[n * d :] @ embed.weight.T + embed.bias).expand(n, -1)], dim=-1)


def _block(block: torch.nn.Module, x: Tensor, tokens: int) -> Tensor:
    frame = torch.arange(len(x)) // tokens
    hidden = (frame[:, None] < frame[None]).to(x) * -torch.inf
    mask = torch.nan_to_num(hidden, nan=0.0, neginf=-torch.inf)
    projected = functional.linear(block.norm(x), block.queries_keys_values.weight)
    queries, keys, values = projected.unflatten(-1, (3, block.heads, -1)).permute(1, 2, 0, 3)  # (heads, L, W)
    scores = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5 + mask
    mixed = (scores.softmax(-1) @ values).transpose(0, 1).flatten(1)
    x = x + block.merge(mixed)
    return x + block.narrow(functional.gelu(block.widen(block.hidden_norm(x))))
