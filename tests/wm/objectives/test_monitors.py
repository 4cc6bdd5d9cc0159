from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from wm.encoders.tiny import TinyEncoder
from wm.losses import effective_rank
from wm.objectives import OBJECTIVES
from wm.objectives.base import Objective, Pictures
from wm.objectives.monitors import Watched, collapse, evaluating, measure, probe_scores, rank_of

HEALTHY = {"feature_rank": 9.0, "spread": 0.5, "embedding_rank": 9.0, "embedding_std": 0.8}


def normal(m: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed))


def squares(count: int) -> tuple[Tensor, Tensor]:
    """Pictures of a square and its places."""
    places = torch.randint(0, 19, (count, 2), generator=torch.Generator().manual_seed(0))
    frames = torch.full((count, 24, 24, 3), 30, dtype=torch.uint8)
    for frame, (row, column) in zip(frames, places.tolist(), strict=True):
        frame[row : row + 5, column : column + 5] = 220
    return frames, places.float()


@pytest.fixture
def objective(square_encoder: Callable[[], TinyEncoder]) -> Objective:
    source = Pictures(np.zeros((1, 24, 24, 3), np.uint8), np.zeros(1, np.int64))
    return OBJECTIVES["vicreg"]().build(square_encoder(), source)


def test_rank_agrees_with_rankme_of_the_singular_values() -> None:
    for x in (normal(40, 6), normal(6, 40), normal(40, 2) @ normal(2, 30, 1), normal(40, 6) + 100):
        assert rank_of(x) == pytest.approx(effective_rank(x), rel=1e-3)


def test_a_collapse_is_seen_by_each_figure_and_health_is_none() -> None:
    assert collapse(HEALTHY) == []
    bad = {"feature_rank": 1.2, "spread": 0.01, "embedding_rank": 1.9, "embedding_std": 0.05}
    for name, value in bad.items():
        assert len(collapse(HEALTHY | {name: value})) == 1
    assert collapse(HEALTHY | {"embedding_std": 0.05}) == ["std of the embedding 0.05 < 0.1"]
    assert len(collapse(bad)) == 4 and len(collapse(HEALTHY | {"spread": float("nan")})) == 1


def test_probes_read_what_is_there_and_nothing_else() -> None:
    x, test = normal(300, 8), normal(100, 8, 1)
    mix = normal(8, 2, 2)
    scores = probe_scores(x, x @ mix, test, test @ mix)
    assert scores["probe_r2"] > 0.98 and 0.4 < scores["knn_r2"] < scores["probe_r2"]
    nothing = probe_scores(x, normal(300, 2, 3), test, normal(100, 2, 4))
    assert nothing["probe_r2"] < 0.1 and nothing["knn_r2"] < 0.1
    bent = probe_scores(x[:, :1], x[:, :1].square(), test[:, :1], test[:, :1].square())
    assert bent["probe_r2"] < 0.2 and bent["knn_r2"] > 0.8
    far = probe_scores(x, x @ mix + 1000, test, test @ mix + 1000)
    assert far["probe_r2"] == pytest.approx(scores["probe_r2"], abs=1e-3)


def test_watching_changes_nothing(objective: Objective) -> None:
    objective.train()
    objective.encoder.mix.eval()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    modes = [part.training for part in objective.modules()]
    frames, places = squares(40)
    state = torch.get_rng_state()
    figures = measure(objective, Watched(frames[:15], frames[15:], places[:15], places[15:]), probe=True)
    assert torch.equal(state, torch.get_rng_state()) and modes == [part.training for part in objective.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())
    names = {"feature_rank", "feature_std", "spread", "embedding_rank", "embedding_std", "probe_r2", "knn_r2"}
    assert set(figures) == names and all(isinstance(value, float) for value in figures.values())


def test_without_a_truth_nothing_is_probed(objective: Objective) -> None:
    frames, places = squares(40)
    assert "probe_r2" not in measure(objective, Watched(frames), probe=True)
    watched = Watched(frames[:15], frames[15:], places[:15], places[15:])
    assert "probe_r2" not in measure(objective, watched, probe=False)


def test_evaluation_mode_ends_with_an_error_too(objective: Objective) -> None:
    objective.train()
    with pytest.raises(ValueError, match="x"), evaluating(objective):
        assert not any(part.training for part in objective.modules())
        raise ValueError("x")
    assert all(part.training for part in objective.modules())


def test_constant_features_are_seen(objective: Objective) -> None:
    with torch.no_grad():
        objective.encoder.project.weight.zero_()  # type: ignore[operator]
    said = collapse(measure(objective, Watched(squares(40)[0]), probe=False))
    assert any("spread" in why for why in said) and any("std" in why for why in said)
