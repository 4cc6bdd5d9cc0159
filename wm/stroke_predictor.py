"""The predictor of worlds at rest that a stroke changes: the field of patch tokens, seen in the stroke's own frame.

What a stroke does to the things before the blade does not depend on where it is made, nor in which direction. So the
field is looked at in a frame that is turned and shifted onto the stroke (Suh & Tedrake 2020, "The surprising
effectiveness of linear models for visual foresight in object pile manipulation", arXiv 2002.09093, where even a linear
map does well in it), what changes is predicted there, and added where it belongs. Everything else stays as it was.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wm.errors import BadInputError
from wm.linear import Linear
from wm.predictor import ResidualBlock

BEHIND, AHEAD, ASIDE = 2.6, 0.6, 0.45
"""How far a stroke's frame reaches from its end: back along it, onwards, and sideways; half sides of the picture."""


class StrokePredictor(nn.Module):
    """Residual MLP on the field around a stroke; one frame of context, for nothing moves between strokes.

    Its frame has a row of places for every distance along the stroke, from `BEHIND` its end to `AHEAD` of it, and
    reaches `ASIDE` on both sides, at the grid's own spacing; it is read and written by bilinear interpolation. How long
    the stroke is, the network is told as the places along it that the blade passes.

    Args:
        grid: Side of the token grid.
        width: D, numbers per token.
        segment: Half sides of the picture per unit of an action (`wm.specs.ActionSpec.segment`).
        hidden: Width of the residual stream.
        depth: Residual blocks.
    """

    history = 1
    along: Tensor
    world: Tensor
    frame: Tensor

    def __init__(self, grid: int, width: int, segment: float, hidden: int, depth: int) -> None:
        super().__init__()
        self.grid, self.width, self.segment, self.spacing = grid, width, segment, 2 / grid
        along = torch.arange(-BEHIND, AHEAD + 1e-6, self.spacing)
        lanes = max(2, round(2 * ASIDE / self.spacing))
        aside = (torch.arange(lanes) - (lanes - 1) / 2) * self.spacing
        self.rows, self.lanes = len(along), lanes
        centres = (torch.arange(grid) + 0.5) * self.spacing - 1
        self.register_buffer("along", along, persistent=False)
        self.register_buffer("world", _pairs(centres, -centres).transpose(0, 1).reshape(-1, 2), persistent=False)
        self.register_buffer("frame", _pairs(along, aside).reshape(-1, 2), persistent=False)
        places = self.rows * self.lanes * width
        self.enter = Linear(places + self.rows, hidden)
        self.blocks = nn.ModuleList([ResidualBlock(hidden) for _ in range(depth)])
        self.leave = Linear(hidden, places)
        nn.init.zeros_(self.leave.weight)  # starts as "nothing changes"
        nn.init.zeros_(self.leave.bias)

    def forward(self, history: Float[Tensor, "... 1 X"], action: Float[Tensor, "... 4"]) -> Float[Tensor, "... X"]:
        """Next state vector, X = N * D; the action in raw units."""
        return self.advance(history[..., -1, :], self.share(history), action)

    def share(self, history: Float[Tensor, "... 1 X"]) -> Float[Tensor, "... 0"]:
        """Nothing of the layers: every stroke sees the field in another frame."""
        return history[..., -1, :0]

    def advance(
        self, last: Float[Tensor, "... X"], shared: Float[Tensor, "... 0"], action: Float[Tensor, "... 4"]
    ) -> Float[Tensor, "... X"]:
        """Next state vector (broadcast over leading dimensions); `shared` is not looked at."""
        lead = torch.broadcast_shapes(last.shape[:-1], action.shape[:-1])
        field = last.expand(*lead, -1).reshape(-1, self.grid * self.grid, self.width)
        start, end = (self.segment * action.expand(*lead, -1).reshape(-1, 4)).split(2, dim=-1)
        length = torch.linalg.vector_norm(end - start, dim=-1, keepdim=True)
        ahead = (end - start) / (length + 1e-6)
        axes = torch.stack([ahead, torch.stack([-ahead[:, 1], ahead[:, 0]], dim=-1)], dim=1)  # (M, 2, 2), rows
        x = self.enter(torch.cat([self._seen(field, end, axes), self._passed(length)], dim=-1))
        for block in self.blocks:
            x = block(x)
        changed = field + self._written(self.leave(x), end, axes)
        return changed.reshape(*lead, -1)

    def _seen(self, field: Tensor, end: Tensor, axes: Tensor) -> Float[Tensor, "M R"]:
        """The field ``(M, N, D)`` at the frame's places."""
        places = end[:, None] + self.frame @ axes  # x, y with y upwards
        planes = field.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return _sampled(planes, places * places.new_tensor([1.0, -1.0]), corners=False).flatten(1)

    def _passed(self, length: Tensor) -> Float[Tensor, "M rows"]:
        """How much of each row of the frame the blade passes, 0 … 1."""
        return torch.sigmoid((self.along + length) / (0.5 * self.spacing)) * torch.sigmoid(
            -self.along / (0.5 * self.spacing)
        )

    def _written(self, change: Float[Tensor, "M R"], end: Tensor, axes: Tensor) -> Float[Tensor, "M N D"]:
        """A change at the frame's places, carried to the grid's."""
        offset = (self.world - end[:, None]) @ axes.transpose(1, 2)  # (M, N, 2): along, aside
        low, high = self.frame[0], self.frame[-1]
        places = (2 * (offset - low) / (high - low) - 1).flip(-1)
        planes = change.unflatten(1, (self.width, self.rows, self.lanes))
        return _sampled(planes, places, corners=True).transpose(1, 2)


def require_segment(segment: float | None) -> float:
    """The action's scale in the picture.

    Raises:
        BadInputError: the world's actions are no segments.
    """
    if segment is None:
        raise BadInputError(
            "form 'strokes': expected a world whose action is a segment of the picture's plane "
            "(ActionSpec.segment), came one whose action is not."
        )
    return segment


def _pairs(first: Tensor, second: Tensor) -> Float[Tensor, "n m 2"]:
    return torch.stack(torch.meshgrid(first, second, indexing="ij"), dim=-1)


def _sampled(planes: Float[Tensor, "M D h w"], places: Float[Tensor, "M K 2"], corners: bool) -> Float[Tensor, "M D K"]:
    """Bilinear interpolation, zero outside; places from -1 to 1, x first."""
    found = functional.grid_sample(planes.float(), places[:, None].float(), align_corners=corners, padding_mode="zeros")
    return found[:, :, 0]
