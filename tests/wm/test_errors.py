from __future__ import annotations

import pickle

import pytest

from wm.errors import BadInputError, CheckpointError, MismatchError, StoreError, UnknownNameError, WmError


def test_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    error = UnknownNameError("planner", "icen", ["mppi", "icem", "cem"])
    assert str(error) == "unknown planner 'icen'. Did you mean 'icem'? Known: cem, icem, mppi."


def test_unknown_name_without_anything_near_or_known() -> None:
    assert str(UnknownNameError("env", "xyz", ["pusht"])) == "unknown env 'xyz'. Known: pusht."
    assert str(UnknownNameError("env", "xyz", [])) == "unknown env 'xyz'. Known: none."


def test_mismatch_names_both_values_and_the_place() -> None:
    assert str(MismatchError("frameskip", 5, 4, "model.safetensors")) == (
        "frameskip in model.safetensors: expected 5, came 4."
    )
    assert str(MismatchError("frameskip", 5, 4)) == "frameskip: expected 5, came 4."


@pytest.mark.parametrize("kind", [UnknownNameError, MismatchError, BadInputError, StoreError, CheckpointError])
def test_every_error_of_a_user_is_a_wm_error(kind: type[Exception]) -> None:
    assert issubclass(kind, WmError)


@pytest.mark.parametrize(
    "error", [UnknownNameError("env", "pusth", ["pusht"]), MismatchError("frameskip", 5, 4), BadInputError("seed: -1.")]
)
def test_an_error_comes_out_of_a_worker_process_as_it_was(error: WmError) -> None:
    came = pickle.loads(pickle.dumps(error))
    assert type(came) is type(error) and str(came) == str(error)
