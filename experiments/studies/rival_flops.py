"""How much arithmetic a rollout needs: theirs, which computes whole windows, and ours."""

from __future__ import annotations

from dataclasses import dataclass

from wm.experiments.studies.rival_weights import Sizes


@dataclass(frozen=True)
class Layer:
    """Multiplications and additions in a layer of a frame-causal transformer.

    Attributes:
        sizes: The model's.
        tokens: N.
        width: D of the tokens.
        modulated: Shifts, scales and gates are computed from the action, LeWM's way.
    """

    sizes: Sizes
    tokens: int
    width: int
    modulated: bool

    @property
    def inner(self) -> int:
        """Width of queries, of keys and of values."""
        return self.sizes.heads * self.sizes.head_width

    @property
    def keys_values(self) -> int:
        """Of a frame of which nothing else is needed."""
        return self.tokens * 4 * self.width * self.inner

    @property
    def frame(self) -> int:
        """Of a frame, attention and modulation aside."""
        queries_and_merge, feed_forward = 4 * self.width * self.inner, 4 * self.width * self.sizes.hidden
        return self.keys_values + self.tokens * (queries_and_merge + feed_forward)

    @property
    def modulation(self) -> int:
        """Of a frame's action."""
        return 12 * self.width**2 if self.modulated else 0

    def attention(self, pairs: int) -> int:
        """Of so many pairs of a frame that looks and one that is looked at."""
        return 4 * self.inner * pairs * self.tokens**2


def theirs(layer: Layer, horizon: int) -> float:
    """GFLOP of one candidate's rollout from one observed frame: whole windows, every pair of frames."""
    total, sizes = 0, layer.sizes
    for step in range(1, horizon + 1):
        frames = min(step, sizes.window)
        one = frames * (layer.frame + layer.modulation) + layer.attention(frames**2)
        total += sizes.depth * one + _around(layer, step, frames)
    return total * 1e-9


def ours(layer: Layer, horizon: int) -> float:
    """GFLOP of the same: new frames and visible pairs only, of the last layer only what is needed."""
    total, sizes = 0, layer.sizes
    for step in range(1, horizon + 1):
        window = min(step, sizes.window)
        new = 1 if step <= sizes.window else window
        pairs = sum(range(window - new + 1, window + 1))
        inner = new * layer.frame + layer.attention(pairs)
        last = layer.frame + (new - 1) * layer.keys_values + layer.attention(window)
        total += (sizes.depth - 1) * inner + last + sizes.depth * layer.modulation + _around(layer, 1, 1)
    return total * 1e-9


def _around(layer: Layer, actions: int, frames: int) -> int:
    """LeWM's embedding of actions and its projection of frames."""
    if not layer.modulated:
        return 0
    width = layer.width
    return actions * 2 * (4 * width) * (layer.sizes.action_width + width) + frames * 4 * width * layer.sizes.hidden


def encoder(sizes: Sizes) -> float:
    """GFLOP of encoding one picture."""
    tokens, width = sizes.patches + 1, sizes.width
    return 1e-9 * sizes.encoder_depth * (tokens * 24 * width**2 + 4 * width * tokens**2)
