"""Candidates scored piece by piece, so that a deadline can fall in the midst of an iteration."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wm.planners.candidates import Scored, score
from wm.planners.problem import Problem
from wm.planners.stopping import SOUNDING, Clock


def score_in_time(
    problem: Problem, actions: Float[Tensor, "B S H A"], penalty: float | int | None, clock: Clock
) -> Scored:
    """The first of the candidates, as many as fit before the deadline, `SOUNDING` at any rate.

    Without a deadline, and where all are expected to fit, they are rolled out together; otherwise each piece is as
    large as is expected to fit when it begins. Arguments as in `score`.
    """
    count, done, pieces = actions.shape[1], 0, list[Scored]()
    while done < count:
        size = clock.room(count - done)
        if size == 0:
            if pieces:
                break
            size = min(count, SOUNDING)
        pieces.append(score(problem, actions[:, done : done + size], penalty))
        clock.lap(size)
        done += size
    return pieces[0] if len(pieces) == 1 else _joined(pieces)


def _joined(pieces: list[Scored]) -> Scored:
    def join(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=1)

    gradients = [piece.gradient for piece in pieces if piece.gradient is not None]
    return Scored(
        actions=join([piece.actions for piece in pieces]),
        tokens=join([piece.tokens for piece in pieces]),
        energy=join([piece.energy for piece in pieces]),
        terms={name: join([piece.terms[name] for piece in pieces]) for name in pieces[0].terms},
        margins={name: join([piece.margins[name] for piece in pieces]) for name in pieces[0].margins},
        violation=join([piece.violation for piece in pieces]),
        gradient=join(gradients) if gradients else None,
    )
