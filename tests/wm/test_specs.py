from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from wm.errors import CheckpointError, MismatchError
from wm.specs import ActionSpec, EncoderSpec, EnvSpec, ModelSpec, ProprioSpec, require_equal

ENCODER = EncoderSpec("wm-tiny", 96, 8, 64, "0123456789abcdef")


def specs(env: EnvSpec) -> list[Any]:
    model = ModelSpec(env, ENCODER, 5, 2, 1, 64, 384, 3)
    return [env.action, env.proprio, ENCODER, env, replace(env, proprio=None), model]


def test_json_and_back_is_the_identity(toy_env: EnvSpec) -> None:
    for spec in specs(toy_env):
        again = type(spec).from_json(json.loads(json.dumps(spec.to_json())))
        assert again == spec and hash(again) == hash(spec)


def test_missing_and_unknown_fields_are_named(toy_env: EnvSpec) -> None:
    for spec in specs(toy_env):
        data = spec.to_json()
        for name in (field.name for field in fields(spec) if field.default is MISSING):
            less = {k: v for k, v in data.items() if k != name}
            with pytest.raises(CheckpointError, match=f"{type(spec).__name__}: expected the fields .*'{name}'.*, came"):
                type(spec).from_json(less)
        with pytest.raises(CheckpointError, match="came .*'colour'"):
            type(spec).from_json(data | {"colour": 1})


def test_a_field_with_a_default_may_be_missing_as_in_older_files(toy_env: EnvSpec) -> None:
    data = ModelSpec(toy_env, ENCODER, 5, 2, 1, 64, 384, 3).to_json()
    del data["form"], data["env"]["action"]["segment"]
    assert ModelSpec.from_json(data) == ModelSpec(toy_env, ENCODER, 5, 2, 1, 64, 384, 3)


def test_a_wrong_nested_field_is_named(toy_env: EnvSpec) -> None:
    data = toy_env.to_json()
    del data["action"]["unit"]
    with pytest.raises(CheckpointError, match="ActionSpec: expected the fields .*'unit'"):
        EnvSpec.from_json(data)


def test_widths_count_the_names() -> None:
    assert ActionSpec(("a", "b", "c"), "m", (0.0,) * 3, (1.0,) * 3, 20.0).width == 3
    assert ProprioSpec(("q",), ("rad",)).width == 1


def test_a_mismatch_is_refused_with_both_values() -> None:
    require_equal("width", ENCODER, replace(ENCODER))
    with pytest.raises(MismatchError, match=r"^token width in features: expected 64, came 32\.$"):
        require_equal("token width", 64, 32, "features")
