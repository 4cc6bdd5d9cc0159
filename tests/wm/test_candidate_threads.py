"""Candidates are spread over torch's threads, and nothing else changes: results, their order, errors, gradients."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from wm.candidate_threads import pieces_of, spread
from wm.patch_predictor import PatchPredictor


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def where(_: int) -> tuple[int, int]:
    """The thread, and how many threads its operations have."""
    time.sleep(0.01)
    return threading.get_ident(), torch.get_num_threads()


@pytest.mark.usefixtures("two_threads")
def test_each_thread_works_alone_and_in_order() -> None:
    with torch.no_grad():
        found = spread(where, range(6))
        squares = spread(lambda x: x * x, range(7))
    assert len({thread for thread, _ in found}) == 2
    assert threading.get_ident() not in {thread for thread, _ in found}
    assert {count for _, count in found} == {1}
    assert squares == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.usefixtures("two_threads")
def test_threads_are_as_many_as_before_here_and_in_threads_that_come_later() -> None:
    with torch.no_grad():
        spread(where, range(4))
        with pytest.raises(ZeroDivisionError):
            spread(lambda x: 1 // x, range(4))
    later = list[int]()
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), later) == (2, [2])


@pytest.mark.usefixtures("two_threads")
def test_what_is_recorded_is_the_callers_choice() -> None:
    weight = torch.ones(2, requires_grad=True)
    with torch.inference_mode():
        assert all(y.is_inference() for y in spread(lambda x: weight * x, range(4)))
    with torch.no_grad():
        plain = spread(lambda x: weight * x, range(4))
    assert not any(y.is_inference() or y.requires_grad for y in plain)
    sum(spread(lambda x: (weight * x).sum(), range(4))).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [6, 6]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("candidates", "most", "pieces"), [(1, 4, 1), (2, 4, 2), (3, 4, 2), (16, 4, 4), (17, 4, 6)])
def test_every_thread_gets_as_many_pieces(candidates: int, most: int, pieces: int) -> None:
    with torch.no_grad():
        assert pieces_of(candidates, most) == pieces
    assert pieces_of(candidates, most) == -(-candidates // most)  # gradients are recorded: in one thread
    assert max(len(piece) for piece in torch.zeros(candidates).tensor_split(pieces)) <= most


def test_one_thread_splits_by_size_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            assert [pieces_of(count, 4) for count in (0, 1, 4, 5, 17)] == [1, 1, 1, 2, 5]
            assert spread(where, range(2)) == [(threading.get_ident(), 1)] * 2
    finally:
        torch.set_num_threads(before)


def test_a_rollout_is_the_same_on_any_number_of_threads() -> None:
    torch.manual_seed(0)
    predictor = PatchPredictor(4, 8, 2, 3, 3, 3, window=3, depth=2, heads=2, head_width=4, hidden=16, chunk=2)
    before, found = torch.get_num_threads(), []
    actions, tokens, proprio = torch.randn(2, 7, 5, 3), torch.randn(2, 2, 4, 8), torch.randn(2, 2, 2)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                observed = predictor.observe_frames(tokens, proprio, actions[:, 0, :1])
                found.append(predictor.rollout(observed, actions))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-6)
