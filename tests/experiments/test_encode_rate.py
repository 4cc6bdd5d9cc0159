"""The study of encoding rates, at small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from wm.errors import BadInputError
from wm.experiments.studies import encode_rate

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 224}


def test_plain_calls_and_ours_give_the_same_tokens_in_turn(tmp_path: Path) -> None:
    found = encode_rate.run(2, 3, 1, tmp_path / "rate.json", SMALL)
    assert json.loads((tmp_path / "rate.json").read_text()) == found
    assert found["largest_difference"] <= encode_rate.PARITY
    plain = ["plain, 1 frame a call", "plain, 2 frames a call"]
    assert list(found["against"]) == plain and all(rate > 0 for rate in found["frames_per_s"].values())
    ratios = [found["frames_per_s"]["ours"] / found["frames_per_s"][name] for name in plain]
    assert [each["ratio"] for each in found["against"].values()] == pytest.approx(ratios)
    assert found["ratio"] == pytest.approx(min(ratios)) and found["passed"] == (found["ratio"] >= encode_rate.BAR)


def test_the_arithmetic_is_counted_as_torch_counts_it() -> None:
    torch.manual_seed(0)
    config = transformers.Dinov2Config(**SMALL, attn_implementation="eager")  # whose products can be counted
    network = transformers.Dinov2Model(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    assert encode_rate.gigaflop(network.config, 257) == pytest.approx(1e-9 * counter.get_total_flops(), rel=0.02)
    full = transformers.Dinov2Config(**encode_rate.SIZES)
    assert encode_rate.gigaflop(full, 257) == pytest.approx(12.2, abs=0.1)


def test_bad_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--frames: expected >= 1, came 0"):
        encode_rate.run(0, 1, 1, tmp_path / "rate.json", SMALL)
    with pytest.raises(BadInputError, match="--runs: expected >= 1, came 0"):
        encode_rate.run(1, 0, 1, tmp_path / "rate.json", SMALL)
    assert not (tmp_path / "rate.json").exists()
