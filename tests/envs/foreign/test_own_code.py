from __future__ import annotations

import pickle
import re

import pytest

from wm.envs.foreign.own_code import own_code
from wm.errors import BadInputError, MismatchError


def said(error: BaseException) -> str:
    with pytest.raises(BadInputError) as caught, own_code("world.py: is_success"):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


def test_an_error_becomes_one_line() -> None:
    assert said(ValueError("boom\n  and\nbust")) == "world.py: is_success: ValueError: boom and bust"
    assert said(StopIteration("over")) == "world.py: is_success: StopIteration: over"


def test_without_a_text_the_line_that_raised_is_said() -> None:
    assert re.fullmatch(r".*: AssertionError: test_own_code\.py, line \d+: raise error", said(AssertionError()))


def test_a_long_text_is_cut() -> None:
    message = said(ValueError("long " * 1000))
    assert len(message) < 350 and message.endswith("long…")


def test_what_is_our_own_or_the_users_wish_passes() -> None:
    for error in (MismatchError("width", 1, 2), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, own_code("world.py: is_success"):
            raise error
        assert caught.value is error


def test_it_comes_out_of_a_worker_process_with_its_text() -> None:
    with pytest.raises(BadInputError) as caught, own_code("X-v0: step"):
        raise OSError(lambda: "what cannot be pickled")
    back = pickle.loads(pickle.dumps(caught.value))
    assert type(back) is BadInputError and str(back) == str(caught.value)
