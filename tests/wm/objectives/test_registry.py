from __future__ import annotations

import json

import pytest

from wm.errors import BadInputError, UnknownNameError
from wm.objectives import OBJECTIVES, find_objective
from wm.objectives.acjepa import AcjepaConfig, config_for
from wm.objectives.base import Pictures

NAMES = {"acjepa", "barlow", "dino", "ijepa", "mcr2", "mmcr", "sigreg", "simclr", "vicreg", "vjepa"}


def test_ten_objectives_are_found_by_name() -> None:
    assert set(OBJECTIVES) == NAMES
    assert all(find_objective(name).name == name for name in NAMES)
    with pytest.raises(UnknownNameError, match=r"unknown objective 'vicrag'\. Did you mean 'vicreg'\?"):
        find_objective("vicrag")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_run_without_regulariser_is_known_as_another_one(name: str) -> None:
    config = OBJECTIVES[name]()
    whole, bare = config.identity(), config.unregulated().identity()
    assert whole == json.loads(json.dumps(whole)) and bare != whole and bare.keys() == whole.keys()
    assert config.unregulated().frames == config.frames and 0 < config.rate < 0.1


def test_only_acjepa_takes_actions_and_its_runs_keep_their_keys() -> None:
    assert [config.name for config in OBJECTIVES.values() if config.actions] == ["acjepa"]
    keys = {"form", "history", "width", "hidden", "depth", "regulariser", "segment"}
    assert AcjepaConfig().identity().keys() == keys and AcjepaConfig().rate == 2e-3
    assert AcjepaConfig(light=True).identity() == AcjepaConfig().identity() | {"light": True}
    assert config_for(None) == AcjepaConfig() and config_for(10.0).form == "strokes"


def test_acjepa_refuses_pictures(square_encoder, rng) -> None:  # type: ignore[no-untyped-def]
    frames = rng.integers(0, 255, (4, 24, 24, 3)).astype("uint8")
    with pytest.raises(BadInputError, match="'acjepa': expected windows of a log with actions, came pictures"):
        AcjepaConfig().build(square_encoder(), Pictures(frames, rng.permutation(4)))
