"""`wm correct`: what a model played is in a store, and its predictor alone has learned from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.experiments.place import refused, runner, tiny_model
from tests.experiments.small_planner import plan_little
from wm.checkpoint import load_tensors
from wm.correct import CorrectConfig
from wm.datasets.reader import EpisodeStore
from wm.datasets.schema import Episode
from wm.encoders.tiny import TinyEncoder
from wm.envs.chips.env import ChipsEnv
from wm.envs.pusht.env import push_t_spec
from wm.errors import BadInputError
from wm.experiments import collect, correct
from wm.experiments.episode import Task
from wm.experiments.play import MODEL, Setting
from wm.experiments.recorder import Noisy, Play, Recorder, record_play
from wm.experiments.worlds import find_world
from wm.experiments.worlds.chips import Chips
from wm.experiments.worlds.pusht import PushT
from wm.fit import FitConfig
from wm.logs import Moments
from wm.model import WorldModel, build_model, load_model
from wm.planners.guardrails import Guardrail
from wm.specs import ModelSpec, PatchSizes

BUDGET, EPISODES = 36, 3
CONFIG = CorrectConfig(0.5, FitConfig(4, 8, learning_rate=1e-2, warmup=1, checkpoint_every=2, log_every=1))


@pytest.fixture(autouse=True)
def little_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_little(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("log") / "data"
    collect.collect("pusht", 4, out, steps=40, seed=0, workers=0, image_size=96)
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_model().save(path, {"command": "test"})
    return path


def setting(model: Path, **changes: Any) -> Setting:
    return replace(Setting("pusht", str(model), "icem", BUDGET, None, 1), **changes)


def correction(data: Path, model: Path, out: Path, **changes: Any) -> Path:
    return correct.run(data, setting(model), out, Play(EPISODES, seed=5), CONFIG, **changes)


@pytest.fixture(scope="module")
def corrected(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        plan_little(patch)
        return correction(data, model, tmp_path_factory.mktemp("run") / "new" / "run")


def test_the_store_holds_what_was_executed_on_tasks_of_its_own(corrected: Path) -> None:
    store, world = EpisodeStore(corrected.parent / "data"), find_world("pusht")
    store.verify()
    assert (store.lengths == BUDGET).all() and len(store) == EPISODES
    tasks, env = world.sample_tasks(1_000_005, EPISODES, image_size=16), world.make_env(96)
    for e, task in enumerate(tasks):
        observation, info = env.reset(seed=task.seed, options={"state": task.start_state})
        for t, action in enumerate([*store.actions(e), None]):
            np.testing.assert_array_equal(store.state(e)[t], info["state"])
            np.testing.assert_array_equal(store.frames(e)[t], observation["image"])
            if action is not None:
                observation, _, _, _, info = env.step(action)
    evaluated = [task.start_state.tolist() for seed in (5, 1005) for task in world.sample_tasks(seed, EPISODES)]
    assert all(store.state(e)[0].tolist() not in evaluated for e in range(EPISODES))
    recipe = store.spec.recipe
    assert (recipe["command"], recipe["seed"], recipe["steps"]) == ("wm correct", 1_000_005, BUDGET)


def test_only_the_predictor_is_another(corrected: Path, model: Path, data: Path) -> None:
    before, after = load_tensors(model)[0], load_tensors(corrected)[0]
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all(name.startswith("joint.predictor.") for name in changed)
    found, provenance = load_model(corrected)
    assert found.spec == load_model(model)[0].spec and provenance["base"] == {"command": "test"}
    assert (provenance["command"], provenance["share"], provenance["steps"]) == ("wm correct", 0.5, 4)
    for name, folder in (("data", data), ("played", corrected.parent / "data")):
        assert provenance[name]["fingerprint"] == EpisodeStore(folder).fingerprint()  # type: ignore[index]


def test_an_interrupted_run_ends_in_the_same_weights_and_a_finished_one_does_nothing(
    corrected: Path, data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wm.fit

    played, taken, record, step = [], [], Recorder.record, wm.fit._step

    def failing_record(self: Recorder, task: Task, noise: float | int) -> Episode:
        played.append(task.seed)
        if len(played) == 2:
            raise KeyboardInterrupt
        return record(self, task, noise)

    def failing_step(*arguments: Any) -> dict[str, float]:
        taken.append(1)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(Recorder, "record", failing_record)
    monkeypatch.setattr("wm.fit._step", failing_step)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            correction(data, model, tmp_path)
    path = correction(data, model, tmp_path)
    assert len(played) == EPISODES + 1 and len(taken) == 4 + 2  # from the checkpoint after two steps
    whole, halves = load_tensors(corrected), load_tensors(path)
    assert whole[1] == halves[1] and all(torch.equal(value, halves[0][name]) for name, value in whole[0].items())
    assert correction(data, model, tmp_path) == path and len(played) == EPISODES + 1 and len(taken) == 6


def test_workers_change_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # a spawned process has the planners as they are
    player = Recorder(setting(model, planner="predictive-sampling", budget_steps=10))
    found = [record_play(player, Play(2, noise=0.1), tmp_path / str(n), n).fingerprint() for n in (1, 2)]
    assert found[0] == found[1]


def test_the_callers_threads_stay_as_they_are_and_nothing_is_built_for_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player, threads = Recorder(setting(model, budget_steps=10, threads=3)), torch.get_num_threads()
    record_play(player, Play(1), tmp_path, 1)
    assert torch.get_num_threads() == threads != 3
    monkeypatch.setattr(Recorder, "__init__", lambda *_: pytest.fail("built another player"))
    assert len(record_play(player, Play(1), tmp_path, 1)) == 1


def test_reaching_the_goal_does_not_end_what_is_recorded(model: Path) -> None:
    player = Recorder(setting(model))
    task = player.world.sample_tasks(0, 1, image_size=96)[0]
    task = replace(task, goal_state=task.start_state)
    assert player.run(MODEL, task).steps == 1
    assert len(player.record(task, 0.0)) == BUDGET


class Still:
    """Always plans three steps of the same action."""

    guardrails: list[Guardrail] = []

    def __init__(self, action: tuple[float, float]) -> None:
        self.action, self.seen = np.array([action] * 3, np.float32), []

    def observe(self, observation: dict[str, np.ndarray]) -> None:
        self.seen.append(observation)

    def plan(self) -> tuple[None, np.ndarray]:
        return None, self.action


def test_noise_is_white_of_its_size_and_within_the_bounds() -> None:
    action = push_t_spec().action
    calm, wild = Noisy(Still((0.2, -0.4)), action, 0.0, 0), Noisy(Still((0.0, 1.0)), action, 0.2, 0)
    np.testing.assert_array_equal(calm.plan()[1], Still((0.2, -0.4)).action)
    found = np.concatenate([wild.plan()[1] for _ in range(400)])
    assert found.dtype == np.float32 and found.max() == 1.0 and found.min() > -1.0
    assert (
        found[:, 0].std() == pytest.approx(0.2, rel=0.1) and abs(np.corrcoef(found[1:, 0], found[:-1, 0])[0, 1]) < 0.1
    )
    again = Noisy(Still((0.0, 1.0)), action, 0.2, 0)
    np.testing.assert_array_equal(found[:3], again.plan()[1])


def patch_model() -> WorldModel:
    encoder, proprio = TinyEncoder(width=8), Moments(torch.zeros(4), torch.ones(4))
    sizes = PatchSizes(heads=2, head_width=4, proprio_embedding=2, action_embedding=2)
    spec = ModelSpec(
        push_t_spec(), encoder.spec(), 5, history=3, tokens=64, width=4, hidden=16, depth=1, form="patch", patch=sizes
    )
    return build_model(spec, encoder, Moments(torch.zeros(2), torch.ones(2)), proprio)


def strokes_model() -> WorldModel:
    encoder, env = TinyEncoder(width=8), ChipsEnv(chips=20).env_spec
    spec = ModelSpec(env, encoder.spec(), 1, history=1, tokens=64, width=1, hidden=16, depth=1, reach=2, form="strokes")
    return build_model(spec, encoder, Moments.none(4), None)


@pytest.mark.parametrize(("world", "make", "budget"), [("pusht", patch_model, 36), ("chips", strokes_model, 3)])
def test_every_form_can_be_corrected(
    world: str, make: Callable[[], WorldModel], budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chips, "make_env", lambda self, size=None: ChipsEnv(chips=20, image_size=size or 96))
    monkeypatch.setattr(Chips, "planning", replace(Chips.planning, population=12, iterations=1))
    torch.manual_seed(0)
    made, file = make(), tmp_path / "model.safetensors"
    made.save(file, {})
    collect.collect(world, 2, tmp_path / "data", steps=budget, seed=0, workers=0, image_size=96)
    played = setting(file, env=world, budget_steps=budget)
    path = correct.run(tmp_path / "data", played, tmp_path / "out", Play(1), CONFIG)
    after, before = load_model(path)[0].state_dict(), made.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all(name.startswith("joint.predictor.") for name in changed)


def without_goals(*_: object) -> list[Task]:
    raise BadInputError("goals: there are none.")


def test_what_does_not_fit_is_refused_in_a_line_and_nothing_is_written(
    data: Path,
    model: Path,
    corrected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    usual: dict[str, object] = {"model": model, "out": out, "episodes": 1, "steps": 1}
    attempt = partial(runner(monkeypatch, capsys, "correct", usual), data)
    refused(attempt(episodes=0), "episodes: expected >= 1, came 0")
    refused(attempt(steps=0), "steps: expected >= 1, came 0")
    refused(attempt(share=1), "share: expected more than 0 and less than 1, came 1.0")
    refused(attempt(noise=-0.1), "noise: expected 0 to 1, came -0.1")
    refused(attempt(learning_rate=0), "learning-rate: expected a finite number > 0, came 0.0")
    refused(attempt(seed=-1), "seed: expected >= 0, came -1")
    refused(attempt(workers=0), "workers: expected >= 1, came 0")
    refused(attempt(budget_steps=29), "budget-steps: expected >= 30, came 29")
    refused(attempt(data_episodes=0), "data-episodes: expected >= 1, came 0")
    refused(attempt(model="nothing"), "unknown model .* 'nothing'")
    refused(attempt(env="chips"), "model of another environment: env .*expected chips, came pusht")
    (tmp_path / "broken.safetensors").write_bytes(b"{")
    refused(attempt(model=tmp_path / "broken.safetensors"), "broken.safetensors")
    strokes = tmp_path / "strokes.safetensors"
    strokes_model().save(strokes, {})
    refused(attempt(model=strokes), "model of another environment: env .*expected pusht, came chips")
    collect.collect("pusht", 1, tmp_path / "small", steps=5, seed=0, workers=0, image_size=32)
    capsys.readouterr()
    attempt = partial(runner(monkeypatch, capsys, "correct", usual), tmp_path / "small")
    refused(attempt(), r"pictures of another size than the model's \[px\] .*expected 96, came 32")
    attempt = partial(runner(monkeypatch, capsys, "correct", usual), tmp_path / "nowhere")
    refused(attempt(), "nowhere: expected the folder of an episode store, came nothing")
    attempt = partial(runner(monkeypatch, capsys, "correct", usual), data)
    refused(attempt(out=corrected.parent), "run folder of another run: ")
    monkeypatch.setattr(PushT, "draw_tasks", without_goals)
    refused(attempt(), "goals: there are none")
    assert not out.exists()
