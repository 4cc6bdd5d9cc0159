from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm.windows import with_observations
from wm.adversarial import deviations, perturbed
from wm.checkpoint import load_tensors
from wm.encoders.tiny import TinyEncoder
from wm.errors import BadInputError, CheckpointError
from wm.fit import FitConfig, fit
from wm.joint import JointModel
from wm.logs import Log, LogWindows, Moments, draw_states, window_states
from wm.losses import rollout_loss
from wm.probe import LinearProbe, error_by_horizon
from wm.rollout import rollout
from wm.state_head import StateHead
from wm.train import TrainConfig, states_of, train_head, train_predictor

QUICK = FitConfig(steps=120, batch=64, learning_rate=5e-3, warmup=10, log_every=5, checkpoint_every=1000)
CONFIG = TrainConfig(
    frameskip=2, history=2, horizon=3, tokens=1, width=8, hidden=32, depth=1, pairs=2000, components=16, predictor=QUICK
)


def log_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tokens_of(windows: LogWindows) -> Tensor:
    return torch.as_tensor(windows.log.observations)


@torch.no_grad()
def state_table(model: JointModel, tokens: Tensor) -> Tensor:
    """States ``(O, X)`` of a table of tokens."""
    return torch.as_tensor(model.head(tokens)).flatten(1)


def dot_places(windows: LogWindows) -> Tensor:
    """Row and column ``(O, 2)`` of the dot, from the logarithms of its bump, up to an affine map."""
    bump = tokens_of(windows)[:, :, 0].abs().log()
    return torch.stack([bump[:, 0] - bump[:, 12], bump[:, 0] - bump[:, 3]], 1)


def with_proprio(windows: LogWindows) -> LogWindows:
    """The same windows of a robot that reports the dot's place and, never to be seen, noise."""
    noise = torch.randn(len(tokens_of(windows)), 1, generator=torch.Generator().manual_seed(0))
    proprio = torch.cat([dot_places(windows), noise], 1).numpy()
    log = Log(windows.log.observations, proprio, windows.log.actions)
    return LogWindows(log, windows.sampler, windows.action_moments, Moments.of(proprio))


def test_the_head_sees_where_the_dot_is(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows, model = drifting_dot(), dot_model()
    found = train_head(model.head, windows, CONFIG, tmp_path)
    states = state_table(model, tokens_of(windows))
    score, _ = LinearProbe(states, dot_places(windows)).score(states, dot_places(windows))
    assert found is not None and len(found.slowness) == 8 and found.visible == [] and min(score) > 0.9


def test_the_heads_last_numbers_are_the_visible_proprioception(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows, model = with_proprio(drifting_dot()), dot_model()
    found = train_head(model.head, windows, CONFIG, tmp_path)
    assert found is not None and len(found.slowness) == 5 and windows.proprio_moments is not None
    assert min(found.visible[:2]) > 0.9 and found.visible[2] < 0.5
    read = state_table(model, tokens_of(windows))[:, -3:]
    known = windows.proprio_moments.normalise(torch.as_tensor(windows.log.proprio))
    assert (read - known)[:, :2].square().mean() < 0.1 and (read[:, 2] == 0).all()


def test_pairs_are_one_latent_step_apart(
    tmp_path: Path,
    drifting_dot: Callable[..., LogWindows],
    dot_model: Callable[[], JointModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[np.ndarray] = []

    def drawn(rows: np.ndarray, *_: object) -> None:
        seen.append(rows)
        raise KeyboardInterrupt

    monkeypatch.setattr("wm.train.draw_pairs", drawn)
    with pytest.raises(KeyboardInterrupt):
        train_head(dot_model().head, drifting_dot(), CONFIG, tmp_path)  # type: ignore[arg-type]
    rows = seen[0]
    assert rows.shape == (CONFIG.pairs, 2) and (rows[:, 1] - rows[:, 0] == CONFIG.frameskip).all()
    assert (rows[:, 0] // 31 == rows[:, 1] // 31).all()  # 31 frames an episode
    assert not (tmp_path / "head.safetensors").exists()


def test_a_head_that_is_there_is_read_back(
    tmp_path: Path,
    drifting_dot: Callable[..., LogWindows],
    dot_model: Callable[[], JointModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows, first, second = drifting_dot(), dot_model().head, dot_model().head
    found = train_head(first, windows, CONFIG, tmp_path)
    header = load_tensors(tmp_path / "head.safetensors")[1]
    assert found is not None and header == {"slowness": found.slowness, "visible": found.visible}
    monkeypatch.setattr("wm.train.fit_state_head", None)
    assert train_head(second, windows, CONFIG, tmp_path) is None
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in second.state_dict().items())
    with pytest.raises(CheckpointError, match="head.safetensors: missing .*misshapen .*places.weight"):
        train_head(StateHead(4, 6, 1, 9), windows, CONFIG, tmp_path)


def test_too_few_pairs_leave_nothing_behind(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    with pytest.raises(BadInputError, match=r"at least 74 pairs .*\(2 for each of 37 features\), came 70"):
        train_head(dot_model().head, drifting_dot(), replace(CONFIG, pairs=70), tmp_path)
    assert not list(tmp_path.iterdir())


def test_predictor_training_leaves_the_head_alone_and_beats_copying(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    windows, model = drifting_dot(), dot_model()
    train_head(model.head, windows, CONFIG, tmp_path)
    head = {k: v.clone() for k, v in model.head.state_dict().items()}
    windows = with_observations(windows, state_table(model, tokens_of(windows)))
    before, copy = error_by_horizon(model, windows, 8)
    train_predictor(model, windows, CONFIG, tmp_path)
    after, copy_after = error_by_horizon(model, windows, 8)
    assert all(torch.equal(v, head[k]) for k, v in model.head.state_dict().items())
    assert copy == copy_after and len(after) == 3
    assert all(a < b for a, b in zip(after, before, strict=True)) and all(np.array(after) < 0.4 * np.array(copy))
    log = log_of(tmp_path / "predictor.jsonl")
    assert log[-1]["share_of_copy"] < log[0]["share_of_copy"]


def test_states_are_the_heads_of_the_encoders_tokens() -> None:
    torch.manual_seed(0)
    encoder, head = TinyEncoder(width=6), StateHead(8, 6, 2, 4)
    frames = torch.randint(0, 256, (3, 96, 96, 3)).to(torch.uint8)
    states = states_of(encoder, head, frames)
    assert states.shape == (3, 8) and not states.requires_grad
    tokens = encoder.encode(frames[None, 1:2])[0]
    torch.testing.assert_close(states[1:2], head(tokens).flatten(1), rtol=1e-4, atol=1e-5)


def test_window_states_put_proprioception_behind(drifting_dot: Callable[..., LogWindows]) -> None:
    windows = drifting_dot()
    rows = len(windows.log.observations)
    other = with_observations(windows, torch.arange(rows).float()[:, None].expand(-1, 8))
    assert other.sampler is windows.sampler and other.log.actions is windows.log.actions
    place = np.array([1]), np.array([3])
    states, actions = window_states(other, *place)
    assert states[0, :, 0].tolist() == other.sampler.observation_index(*place)[0].tolist()
    assert torch.equal(actions, windows.cut(*place).actions)
    proprio = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    moments = Moments.of(proprio)
    full = LogWindows(
        Log(other.log.observations, proprio, other.log.actions), other.sampler, other.action_moments, moments
    )
    both, _ = window_states(full, *place)
    assert torch.equal(both[..., :8], states)
    torch.testing.assert_close(both[0, 1, 8:], moments.normalise(torch.from_numpy(proprio))[int(states[0, 1, 0])])


def plain_error(model: JointModel, states: Tensor, actions: Tensor) -> Tensor:
    imagined = rollout(model.predictor, states[:, :2], actions[:, None, 1:])[:, 0]
    return rollout_loss(imagined, states[:, 2:], torch.ones(8))


def dot_states(windows: LogWindows, model: JointModel, out: Path) -> LogWindows:
    train_head(model.head, windows, CONFIG, out)
    return with_observations(windows, state_table(model, tokens_of(windows)))


def test_without_a_radius_the_predictor_learns_from_the_log_as_it_is(
    tmp_path: Path,
    drifting_dot: Callable[..., LogWindows],
    dot_model: Callable[[], JointModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wm.train.fast_bf16", lambda: False)
    schedule = replace(QUICK, steps=20)
    model, plain = dot_model(), dot_model()
    windows = dot_states(drifting_dot(), model, tmp_path)
    train_predictor(model, windows, replace(CONFIG, predictor=schedule, adversarial=0.0), tmp_path / "one")

    def loss(rng: np.random.Generator, _: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        return plain_error(plain, *draw_states(windows, 2, rng, schedule.batch)), {}

    fit(plain.predictor, loss, schedule, tmp_path / "two", "predictor")
    other = plain.predictor.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in model.predictor.state_dict().items())


def test_adversarial_training_lowers_the_error_of_moved_inputs(
    tmp_path: Path, drifting_dot: Callable[..., LogWindows], dot_model: Callable[[], JointModel]
) -> None:
    found = {}
    for radius in (0.0, 0.1):
        model = dot_model()
        windows = dot_states(drifting_dot(), model, tmp_path)
        train_predictor(model, windows, replace(CONFIG, adversarial=radius), tmp_path / str(radius))
        states, actions = window_states(windows, *windows.sampler.sample(np.random.default_rng(5), 500))

        def error(context: Tensor, ahead: Tensor, model: JointModel = model, states: Tensor = states) -> Tensor:
            imagined = rollout(model.predictor, context, ahead[:, None])[:, 0]
            return rollout_loss(imagined, states[:, 2:], torch.ones(8))

        moved = perturbed(error, states[:, :2], actions[:, 1:], 0.1, deviations(windows))
        found[radius] = [float(error(*inputs).detach()) for inputs in ((states[:, :2], actions[:, 1:]), moved)]
    assert found[0.1][1] < 0.95 * found[0.0][1] and found[0.0][1] > found[0.0][0]
    assert found[0.1][0] < 2 * found[0.0][0]  # of the inputs as they are


def test_an_interrupted_adversarial_training_ends_as_one_that_never_stopped(
    tmp_path: Path,
    drifting_dot: Callable[..., LogWindows],
    dot_model: Callable[[], JointModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(CONFIG, adversarial=0.05, predictor=replace(QUICK, steps=9, checkpoint_every=3, log_every=1))
    windows, taken = dot_states(drifting_dot(), dot_model(), tmp_path), []

    def run(out: Path) -> dict[str, Tensor]:
        model = dot_model()
        train_predictor(model, windows, config, out)
        return dict(model.predictor.state_dict())

    def failing(*arguments: object) -> object:
        taken.append(1)
        if len(taken) == 6:
            raise KeyboardInterrupt
        return perturbed(*arguments)  # type: ignore[arg-type]

    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("wm.train.perturbed", failing)
        run(tmp_path / "halves")
    halves = run(tmp_path / "halves")
    assert all(torch.equal(tensor, halves[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("change", [{"adversarial": -1.0}, {"adversarial": math.nan}, {"form": "strokes"}])
def test_a_radius_that_cannot_be_is_refused(
    change: dict[str, object],
    tmp_path: Path,
    drifting_dot: Callable[..., LogWindows],
    dot_model: Callable[[], JointModel],
) -> None:
    config = replace(CONFIG, **{"adversarial": 0.05} | change)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="^adversarial: expected "):
        train_predictor(dot_model(), drifting_dot(), config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
