"""Frame-causal transformers over a sliding window of frames, and their rollout: what candidates share, and the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wm.candidate_threads import pieces_of, spread
from wm.errors import BadInputError

KeysValues = list[Tensor]
"""Keys and values of frames 0 … k-1 of a window, layer by layer, tensors of M rows; the first is ``(M, k * N, …)``."""


@dataclass(frozen=True)
class Observed:
    """What all candidates of B observations share: computed once per observation, at batch B.

    Attributes:
        last: ``(B, N, X)`` the newest observed frame. The action that is taken in it is a candidate's.
        earlier: For each window that starts in an observed frame before the last one (0 … T-2), the keys and values of
            its frames up to the last but one.
    """

    last: Float[Tensor, "B N X"]
    earlier: tuple[KeysValues, ...] = ()

    @property
    def frames(self) -> int:
        """T, observed frames."""
        return len(self.earlier) + 1


class FramePredictor(nn.Module, ABC):
    """The next frame from the last `window` frames and the actions taken in them.

    A frame is N tokens of X numbers. It sees itself and earlier frames, never later ones, and the action taken in it
    acts on its own tokens, as in DINO-WM (arXiv 2411.04983) and LeWM (arXiv 2603.19312). Positions count from the start
    of the window, so what a frame's tokens become depends on where its window starts. With equal answers, therefore:

    * Observed frames before the last one have known actions: all of their layers are the same for every candidate and
      every iteration of a solver (`observe`), once for each window start they occur with.
    * While the window still grows (fewer than `window` frames so far), a frame's keys and values stay: one new frame
      per step.
    * Once it slides, every imagined frame is at another position and has lost a frame it saw. Nothing of its layers
      can be kept: all frames of the window are computed again. (A model whose window is as long as history and
      horizon together never pays this.)
    * The last observed frame carries the candidate's first action: nothing of it is shared but its encoding.
    * Of the last layer only the newest frame's tokens are computed, and the others' keys and values.

    Args:
        window: Longest window, frames.
        tokens: N.
        heads: Attention heads.
        chunk: Candidates that each thread of `rollout` takes through all steps at a time. It bounds memory, and keeps
            what they need near the processor; a measured default.
    """

    def __init__(self, window: int, tokens: int, heads: int, chunk: int) -> None:
        super().__init__()
        self.window, self.tokens, self.heads, self.chunk = window, tokens, heads, chunk

    @abstractmethod
    def condition(self, actions: Float[Tensor, "*n A"]) -> Float[Tensor, "*n E"]:
        """What the layers need to know of actions."""

    @abstractmethod
    def enter(
        self, frames: Float[Tensor, "M F N X"], conditions: Float[Tensor, "M F E"], place: int
    ) -> Float[Tensor, "M F N D"]:
        """Tokens before the first layer, of frames at the positions `place`, `place` + 1, …"""

    @abstractmethod
    def layers(
        self, x: Float[Tensor, "M F N D"], conditions: Float[Tensor, "M F E"], past: KeysValues
    ) -> tuple[Float[Tensor, "M N D"], KeysValues]:
        """The newest frame's tokens after the last layer, and the keys and values of the past and these frames."""

    @abstractmethod
    def leave(self, x: Float[Tensor, "M N D"]) -> Float[Tensor, "M N X"]:
        """The next frame from the newest frame's tokens."""

    def advance(
        self, frames: Float[Tensor, "M F N X"], conditions: Float[Tensor, "M F E"], past: KeysValues
    ) -> tuple[Float[Tensor, "M N X"], KeysValues]:
        """The frame after the given ones, whose past is given by its keys and values."""
        place = past[0].shape[1] // self.tokens if past else 0
        x, seen = self.layers(self.enter(frames, conditions, place), conditions, past)
        return self.leave(x), seen

    def observe(self, frames: Float[Tensor, "B T N X"], past_actions: Float[Tensor, "B K A"]) -> Observed:
        """Everything that all candidates share, from T observed frames and the actions taken between them.

        Raises:
            BadInputError: T is not 1 … `window`, or another number of tokens.
        """
        count = frames.shape[1]
        if not 1 <= count <= self.window:
            raise BadInputError(f"history: expected 1 to {self.window} frames, came {count}.")
        if frames.shape[2] != self.tokens:
            raise BadInputError(f"tokens of a frame: expected {self.tokens}, came {frames.shape[2]}.")
        if past_actions.shape[1] != count - 1:
            raise BadInputError(
                f"past actions: expected {count - 1} between {count} frames, came {past_actions.shape[1]}."
            )
        conditions = self.condition(past_actions)
        earlier = [self.advance(frames[:, s:-1], conditions[:, s:], [])[1] for s in range(count - 1)]
        return Observed(frames[:, -1], tuple(earlier))

    def rollout(
        self, observed: Observed, actions: Float[Tensor, "B S H A"], last_only: bool = False
    ) -> Float[Tensor, "B S K N X"]:
        """Frames after each of the H latent steps, or only after the last one, for S candidates of B observations.

        Raises:
            BadInputError: actions for another number of observations.
        """
        if len(actions) != len(observed.last):
            raise BadInputError(
                f"actions: expected {len(observed.last)} observations' candidates, came {len(actions)}'s."
            )
        candidates = actions.flatten(0, 1)
        owner = torch.arange(len(actions), device=actions.device).repeat_interleave(actions.shape[1])
        count = pieces_of(len(candidates), self.chunk)
        pieces = list(zip(candidates.tensor_split(count), owner.tensor_split(count), strict=True))
        rolled = spread(lambda piece: self._roll(_of_rows(observed, piece[1]), piece[0], last_only), pieces)
        return torch.cat(rolled).unflatten(0, actions.shape[:2])

    def _roll(self, observed: Observed, actions: Float[Tensor, "M H A"], last_only: bool) -> Float[Tensor, "M K N X"]:
        """One chunk through all of its steps. `frames` and `conditions` begin with the last observed frame."""
        first = observed.frames - 1
        conditions = self.condition(actions)
        frames, past, start = [observed.last], KeysValues(), -1
        for step in range(actions.shape[1]):
            moved = max(0, first + step + 1 - self.window)
            if moved == start:
                new = step
            else:
                start, new = moved, max(0, moved - first)
                past = observed.earlier[start] if start < first else []
            window = torch.stack(frames[new:], dim=1)
            following, past = self.advance(window, conditions[:, new : step + 1], past)
            frames.append(following)
        return torch.stack(frames[-1:] if last_only else frames[1:], dim=1)


def attend(
    queries: Float[Tensor, "M F 1 I"], past: Tensor | None, keys_values: Float[Tensor, "M G 1 J"], heads: int
) -> tuple[Float[Tensor, "M F 1 I"], Float[Tensor, "M L J"]]:
    """Attention of the newest F frames of one token over the past and themselves, each over what it may see.

    For more tokens: `wm.patch_attention`.

    Args:
        queries: Of the newest F <= G frames.
        past: ``(M, k, J)`` keys and values of the k frames before the G new ones, or None.
        keys_values: Of the G new frames; J = 2 * I.
        heads: Attention heads.

    Returns:
        Their results, and all keys and values.
    """
    frames = queries.shape[1]
    own = keys_values.flatten(1, 2)
    seen = own if past is None else torch.cat([past, own], dim=1)
    keys, values = seen.unflatten(-1, (2, heads, -1)).unbind(-3)  # (M, L, heads, I / heads)
    asked = queries.unflatten(-1, (heads, -1))
    results = []
    for frame in range(frames):
        length = seen.shape[1] - (frames - 1 - frame)
        results.append(_attend_one_token(asked[:, frame], keys[:, :length], values[:, :length]).flatten(-2))
    return (results[0][:, None] if frames == 1 else torch.stack(results, dim=1)), seen


def _attend_one_token(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """``(M, 1, heads, W)`` queries over ``(M, L, heads, W)`` keys and values: products too small for calls."""
    if keys.shape[1] == 1:
        return values
    scores = (queries * keys).sum(-1) * keys.shape[-1] ** -0.5  # (M, L, heads)
    return (scores.softmax(1)[..., None] * values).sum(1, keepdim=True)


def _of_rows(observed: Observed, owner: Int[Tensor, " M"]) -> Observed:
    """An observation's part for each candidate of a chunk."""

    def rows(x: Tensor) -> Tensor:
        return x.expand(len(owner), *x.shape[1:]) if len(x) == 1 else x[owner]

    return Observed(rows(observed.last), tuple([rows(layer) for layer in each] for each in observed.earlier))
