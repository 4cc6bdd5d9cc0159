"""Work on candidates of which none waits for another: each of torch's threads takes its own through all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def pieces_of(candidates: int, most: int) -> int:
    """Into how many pieces of at most `most` to split candidates; where `spread` spreads, as many for every thread."""
    threads, pieces = torch.get_num_threads(), max(1, -(-candidates // most))
    return -(-pieces // threads) * threads if _spreads(candidates) else pieces


def spread(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """``[work(piece) for piece in pieces]``, on as many threads as torch has.

    torch itself shares each operation among its threads, who wait for each other at the end of each. A rollout has
    thousands of operations of a fraction of a millisecond, and on two cores a tenth of its time was waiting. Here every
    thread works alone. With one thread, fewer pieces than threads, gradients to record, or autocast, it is the plain
    loop. A Python thread that uses torch for the first time meanwhile begins with one thread of torch.

    An error of a piece is raised as it came.
    """
    threads = torch.get_num_threads()
    if not _spreads(len(pieces)):
        return [work(piece) for piece in pieces]
    inference = torch.is_inference_mode_enabled()

    def alone(piece: T) -> R:  # what kind of gradients are recorded is each thread's own
        with torch.inference_mode(inference), torch.no_grad():
            return work(piece)

    try:
        with ThreadPoolExecutor(threads, "candidates", torch.set_num_threads, (1,)) as pool:
            return list(pool.map(alone, pieces))
    finally:
        torch.set_num_threads(threads)  # a thread's own number is also what later threads would begin with


def _spreads(pieces: int) -> bool:
    """Whether so many are spread over threads, of which each has modes of its own."""
    alone = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    return 1 < torch.get_num_threads() <= pieces and not alone
