"""What holds for every objective: it trains, is resumed exactly, and its collapse is seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wm.fit
from wm.checkpoint import load_tensors
from wm.datasets.windows import WindowIndex
from wm.encoders.base import fingerprint, normalise
from wm.encoders.tiny import TinyEncoder
from wm.fit import FitConfig
from wm.logs import LogWindows
from wm.objectives import OBJECTIVES
from wm.objectives.acjepa import AcjepaConfig
from wm.objectives.base import Moment, ObjectiveConfig, Pictures, Source
from wm.objectives.monitors import Watched
from wm.objectives.vicreg import VicregConfig
from wm.objectives.views import ViewConfig, relit
from wm.pretrain import pretrain

SCHEDULE = FitConfig(steps=20, batch=8, learning_rate=1e-3, warmup=3, log_every=2, checkpoint_every=6)


@pytest.fixture
def windows(pushed_square: Callable[..., LogWindows]) -> LogWindows:
    return pushed_square(proprio=False)


def source_for(config: ObjectiveConfig, windows: LogWindows) -> Source:
    if config.actions:
        return windows
    if config.frames == 1:
        frames = np.asarray(windows.log.observations)
        return Pictures(frames, np.arange(150))
    return replace(windows, sampler=WindowIndex(np.full(10, 20), 1, config.frames - 1, 2))


def watched(windows: LogWindows) -> Watched:
    frames = torch.from_numpy(np.asarray(windows.log.observations))
    bright = (frames[..., 0] > 100).float()  # the square's middle
    axis = torch.arange(24.0)
    places = torch.stack([(bright.sum(2) * axis).sum(1), (bright.sum(1) * axis).sum(1)], 1) / 25
    return Watched(frames[150:], frames[:150], places[150:], places[:150])


def train(
    config: ObjectiveConfig, windows: LogWindows, encoder: TinyEncoder, out: Path, schedule: FitConfig = SCHEDULE
) -> dict[str, float]:
    torch.manual_seed(1)
    return pretrain(encoder, source_for(config, windows), config, schedule, out, [watched(windows)], probe_every=4)


def log_of(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "pretrain.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_interrupted_run_ends_as_one_that_never_stopped(
    name: str,
    tmp_path: Path,
    windows: LogWindows,
    square_encoder: Callable[[], TinyEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, fresh = square_encoder(), fingerprint(square_encoder())
    figures = train(OBJECTIVES[name](), windows, whole, tmp_path / "whole")
    step, taken = wm.fit._step, []

    def failing(*arguments: Any) -> dict[str, float]:
        taken.append(1)
        if len(taken) == 16:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(wm.fit, "_step", failing)
        train(OBJECTIVES[name](), windows, square_encoder(), tmp_path / "halves")
    resumed = square_encoder()
    again = train(OBJECTIVES[name](), windows, resumed, tmp_path / "halves")
    assert fingerprint(resumed) == fingerprint(whole) != fresh and not resumed.training and again == figures
    one, other = (load_tensors(tmp_path / run / "pretrain.ckpt.safetensors")[0] for run in ("whole", "halves"))
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    log = log_of(tmp_path / "whole")
    assert log == log_of(tmp_path / "halves") and [line["step"] for line in log] == list(range(2, 21, 2))
    assert all(math.isfinite(value) for line in log for value in line.values())
    assert {line["step"] for line in log if "probe_r2" in line} == {4, 8, 12, 16, 20}
    assert all(line.keys() >= {"feature_rank", "feature_std", "embedding_rank", "embedding_std"} for line in log)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_watching_changes_nothing_of_what_is_learned(
    name: str, tmp_path: Path, windows: LogWindows, square_encoder: Callable[[], TinyEncoder]
) -> None:
    config, schedule = OBJECTIVES[name](), replace(SCHEDULE, steps=6)
    seen, unseen = square_encoder(), square_encoder()
    train(config, windows, seen, tmp_path / "seen", schedule)
    torch.manual_seed(1)
    assert pretrain(unseen, source_for(config, windows), config, schedule, tmp_path / "unseen") == {}
    assert fingerprint(seen) == fingerprint(unseen)


@pytest.mark.parametrize("name", ["vicreg", "sigreg", "barlow", "acjepa", "ijepa"])
def test_a_collapse_is_seen_where_the_regulariser_is_off_and_only_there(
    name: str,
    tmp_path: Path,
    pushed_square: Callable[..., LogWindows],
    square_encoder: Callable[[], TinyEncoder],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, windows = OBJECTIVES[name](), pushed_square(proprio=name == "acjepa")
    schedule = FitConfig(steps=150, batch=16, learning_rate=config.rate, warmup=20, log_every=50)
    figures = train(config, windows, square_encoder(), tmp_path / "on", schedule)
    assert figures["collapsed"] == 0 and "COLLAPSE" not in capsys.readouterr().err
    assert [line["collapsed"] for line in log_of(tmp_path / "on")] == [0, 0, 0]
    bare = train(config.unregulated(), windows, square_encoder(), tmp_path / "off", schedule)
    assert bare["collapsed"] == 1 and bare["embedding_std"] < 0.3 * figures["embedding_std"]
    assert "wm: COLLAPSE seen at step " in (said := capsys.readouterr().err) and said.count("COLLAPSE") == 1


def test_nothing_is_judged_before_the_warm_up_is_over(
    tmp_path: Path, windows: LogWindows, square_encoder: Callable[[], TinyEncoder]
) -> None:
    schedule = replace(SCHEDULE, steps=12, warmup=6)
    train(OBJECTIVES["vicreg"](), windows, square_encoder(), tmp_path, schedule)
    assert [line["step"] for line in log_of(tmp_path) if "collapsed" in line] == [8, 10, 12]


def test_temporal_positives_are_of_two_frames(windows: LogWindows, square_encoder: Callable[[], TinyEncoder]) -> None:
    still = ViewConfig(1.0, 1.0, 1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur=0.0, noise=0.0)
    config = VicregConfig(view=still).unregulated()
    assert config.frames == 1 and replace(config, positive=3).frames == 2
    source = source_for(replace(config, positive=3), windows)
    batch = source.draw(np.random.default_rng(0), 5)
    first = replace(batch, observations=batch.observations[:, :1])
    torch.manual_seed(0)
    objective = config.build(square_encoder(), source)
    same, neighbours = (
        objective.loss(of, Moment(0, 9, torch.Generator().manual_seed(0)))[0].item() for of in (first, batch)
    )
    assert same < 1e-6 < 1e-4 < neighbours


def test_in_light_of_their_own_frames_are_known_by_what_is_in_them(
    tmp_path: Path, pushed_square: Callable[..., LogWindows], square_encoder: Callable[[], TinyEncoder]
) -> None:
    windows = pushed_square(proprio=True)
    frames = normalise(windows.draw(np.random.default_rng(1), 32).observations[:, 0])
    schedule, told = FitConfig(steps=250, batch=16, learning_rate=2e-3, warmup=20, log_every=50), dict[bool, float]()
    for light in (False, True):
        config = AcjepaConfig(light=light)
        torch.manual_seed(0)
        objective = config.build(square_encoder(), windows)
        wm.fit.fit(
            objective,
            lambda rng, generator, of=objective: of.loss(windows.draw(rng, 16), Moment(0, 250, generator)),
            schedule,
            tmp_path / str(light),
            "pretrain",
        )
        with torch.no_grad():
            usual, other = (
                objective.embed(objective.tokens(seen))
                for seen in (frames, relit(frames, ViewConfig(noise=0.0, blur=0.0), torch.Generator().manual_seed(2)))
            )
        told[light] = ((usual - other).square().mean() / usual.var(0).mean()).item()
    assert told[True] < 0.5 * told[False]
