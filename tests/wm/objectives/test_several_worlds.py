"""One encoder for several worlds: a batch is of all of them, and each has a head and a predictor of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wm.encoders.base import fingerprint
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError
from wm.fit import FitConfig
from wm.logs import Log, LogWindows, Moments
from wm.objectives import OBJECTIVES
from wm.objectives.acjepa import AcjepaConfig, WorldsConfig
from wm.objectives.base import Mixture, Moment, Pictures
from wm.objectives.monitors import Watched, least_of, measure
from wm.pretrain import pretrain

CONFIG = WorldsConfig((AcjepaConfig(width=8, hidden=32, depth=1), AcjepaConfig(width=6, hidden=16, depth=1)))


@pytest.fixture
def logs(pushed_square: Callable[..., LogWindows]) -> Mixture:
    """Of a world of two actions and of one of three, whose robot does not say where it is."""
    first, second = pushed_square(proprio=True), pushed_square(proprio=False)
    log = second.log
    actions = np.concatenate([log.actions, log.actions[:, :1]], axis=1)
    frames = 255 - np.asarray(log.observations)
    return Mixture((first, LogWindows(Log(frames, None, actions), second.sampler, Moments.of(actions), None)))


def test_a_batch_has_as_many_samples_of_each(logs: Mixture) -> None:
    batch = logs.draw(np.random.default_rng(0), 7)
    first, second = batch.parts
    assert batch.observations.shape == (7, 4, 24, 24, 3) and batch.proprio is None and batch.actions.shape == (7, 3, 0)
    assert (len(first.actions), len(second.actions)) == (4, 3)
    assert first.actions.shape[-1] == 4 and second.actions.shape[-1] == 6  # of two control steps
    assert first.proprio is not None and second.proprio is None
    assert torch.equal(batch.observations, torch.cat([first.observations, second.observations]))
    again = logs.draw(np.random.default_rng(0), 7)
    assert torch.equal(again.observations, batch.observations)


def test_the_loss_is_the_mean_of_the_worlds_own(logs: Mixture, square_encoder: Callable[[], TinyEncoder]) -> None:
    bare = CONFIG.unregulated()
    torch.manual_seed(0)
    objective, batch = bare.build(square_encoder(), logs), logs.draw(np.random.default_rng(0), 8)
    objective.eval()  # so that a picture's tokens are the same whatever else is in the batch
    both, _ = objective.loss(batch, Moment(0, 9, torch.Generator().manual_seed(0)))
    alone, generator = [], torch.Generator().manual_seed(0)
    for source, (log, config, part) in enumerate(zip(logs.sources, bare.worlds, batch.parts, strict=True)):
        single = config.build(square_encoder(), log)
        single.worlds[0].load_state_dict(objective.worlds[source].state_dict())
        alone.append(single.eval().loss(part, Moment(0, 9, generator))[0].item())
        tokens = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(1))
        assert torch.equal(single.embed(tokens), objective.embed(tokens, source))
        assert single.embed(tokens).shape[-1] == config.width
    assert both.item() == pytest.approx(sum(alone) / 2, rel=1e-5) and alone[0] != pytest.approx(alone[1], rel=1e-3)


def test_every_world_teaches_the_encoder(logs: Mixture, square_encoder: Callable[[], TinyEncoder]) -> None:
    torch.manual_seed(0)
    objective = CONFIG.unregulated().build(square_encoder(), logs).eval()
    batch, weight = logs.draw(np.random.default_rng(0), 8), objective.encoder.project.weight
    for silent in (0, 1):
        for parameter in objective.worlds[silent].parameters():  # it now says the same of every picture
            parameter.detach().zero_()
        value, _ = objective.loss(batch, Moment(0, 9, torch.Generator().manual_seed(0)))
        (gradient,) = torch.autograd.grad(value, weight, allow_unused=True)
        assert (gradient is not None and bool(gradient.abs().max() > 1e-6)) == (silent == 0)  # first one, then both


def test_anything_but_as_many_logs_with_actions_is_refused(
    logs: Mixture, square_encoder: Callable[[], TinyEncoder]
) -> None:
    with pytest.raises(BadInputError, match="expected logs of 2 worlds, came 0"):
        CONFIG.build(square_encoder(), logs.sources[0])
    pictures = Pictures(np.zeros((1, 24, 24, 3), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(BadInputError, match="expected windows of a log with actions, came pictures"):
        CONFIG.build(square_encoder(), Mixture((logs.sources[0], pictures)))
    with pytest.raises(BadInputError, match="batch: expected a sample of each of 2 sources, came 1"):
        logs.draw(np.random.default_rng(0), 1)


def test_a_collapse_on_one_world_alone_is_seen(
    tmp_path: Path, logs: Mixture, square_encoder: Callable[[], TinyEncoder], capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = FitConfig(steps=60, batch=32, learning_rate=5e-3, warmup=40, log_every=60)
    frames = [torch.from_numpy(np.asarray(log.log.observations)[:64]) for log in logs.sources]
    figures = []
    for name, second in {"other": frames[1], "same": frames[1][:1].expand(9, -1, -1, -1)}.items():
        torch.manual_seed(1)
        shown = [Watched(frames[0]), Watched(second)]
        figures.append(pretrain(square_encoder(), logs, CONFIG, schedule, tmp_path / name, shown))
    assert [each["collapsed"] for each in figures] == [0, 1] and figures[1]["embedding_std"] < 1e-4
    assert "COLLAPSE seen at step 60 (source 2): rank of the features" in capsys.readouterr().err


def test_light_is_for_the_frames_of_all_worlds(logs: Mixture, square_encoder: Callable[[], TinyEncoder]) -> None:
    batch, values = logs.draw(np.random.default_rng(0), 8), []
    for light in (False, True):
        torch.manual_seed(0)
        objective = replace(CONFIG.unregulated(), light=light).build(square_encoder(), logs)
        values.append(objective.loss(batch, Moment(0, 9, torch.Generator().manual_seed(0)))[0].item())
    assert values[0] != pytest.approx(values[1], rel=1e-3)


@pytest.mark.parametrize("light", [False, True])
def test_a_run_of_several_worlds_learns_and_is_resumed_exactly(
    light: bool,
    tmp_path: Path,
    logs: Mixture,
    square_encoder: Callable[[], TinyEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule = FitConfig(steps=60, batch=32, learning_rate=5e-3, warmup=30, log_every=20, checkpoint_every=10)
    shown = [Watched(torch.from_numpy(np.asarray(log.log.observations)[:64])) for log in logs.sources]

    def train(encoder: TinyEncoder, out: Path) -> dict[str, float]:
        torch.manual_seed(1)
        return pretrain(encoder, logs, replace(CONFIG, light=light), schedule, out, shown)

    whole, resumed = square_encoder(), square_encoder()
    figures = train(whole, tmp_path / "whole")
    assert figures["collapsed"] == 0 and figures["embedding_std"] > 0.3
    draw, drawn = Mixture.draw, []

    def failing(self: Mixture, rng: np.random.Generator, n: int) -> object:
        drawn.append(n)
        if len(drawn) == 27:
            raise KeyboardInterrupt
        return draw(self, rng, n)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Mixture, "draw", failing)
        train(square_encoder(), tmp_path / "halves")
    assert train(resumed, tmp_path / "halves") == figures
    assert fingerprint(resumed) == fingerprint(whole)


def test_what_is_told_is_the_least_of_all_sources(
    logs: Mixture, square_encoder: Callable[[], TinyEncoder], rng: np.random.Generator
) -> None:
    assert least_of([{"a": 1.0, "b": 2.0}, {"a": 0.5}]) == {"a": 0.5, "b": 2.0}
    assert np.isnan(least_of([{"a": float("nan")}, {"a": 0.5}])["a"])
    assert np.isnan(least_of([{"a": 0.5}, {"a": float("nan")}])["a"])
    torch.manual_seed(0)
    objective = CONFIG.build(square_encoder(), logs)
    with torch.no_grad():  # the second world's embedding dies
        for parameter in objective.worlds[1].parameters():
            parameter.zero_()
    shown = Watched(torch.from_numpy(rng.integers(0, 255, (40, 24, 24, 3)).astype(np.uint8)))
    alive, dead = (measure(objective, shown, False, source) for source in (0, 1))
    assert alive["embedding_std"] > 1e-3 > 1e-6 > dead["embedding_std"] == least_of([alive, dead])["embedding_std"]


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"acjepa", "vjepa"}))
def test_objectives_on_pictures_see_those_of_all_sources(
    name: str, tmp_path: Path, square_encoder: Callable[[], TinyEncoder], rng: np.random.Generator
) -> None:
    rows = np.arange(30)
    sources = Mixture(tuple(Pictures(rng.integers(0, 255, (30, 24, 24, 3)).astype(np.uint8), rows) for _ in range(3)))
    encoder, schedule = square_encoder(), FitConfig(steps=2, batch=8, warmup=1, log_every=1)
    before = fingerprint(encoder)
    shown = [Watched(torch.from_numpy(source.frames)) for source in sources.sources if isinstance(source, Pictures)]
    figures = pretrain(encoder, sources, OBJECTIVES[name](), schedule, tmp_path, shown)
    assert fingerprint(encoder) != before and figures["feature_rank"] > 0
