"""The encoder study's world models: one of each encoder, form, number of logs and seed; and how they do."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wm.datasets.reader import EpisodeStore
from wm.encoders.base import fingerprint
from wm.encoders.efficientnet_lite import NAME as EFFICIENTNET
from wm.encoders.registry import load_encoder
from wm.envs.pusht.shifts import SHIFTS, ShiftedPushTEnv
from wm.errors import UnknownNameError
from wm.experiments import train
from wm.experiments.episode import Task
from wm.experiments.evaluate import planner_settings
from wm.experiments.goals import sample_tasks
from wm.experiments.play import MODEL, Player, Setting
from wm.experiments.run_folder import CONFIG_FILE
from wm.experiments.studies.encoders_candidates import Study, there
from wm.experiments.studies.rows import opened, progress
from wm.specs import require_equal
from wm.train import TrainConfig

POOLED = "pooled"
FORMS = ("compact", POOLED, "patch")
"""Of a model; pooled: the compact form on an encoder whose only token is the mean of the grid."""

USUAL = "usual"
LOOKS = (USUAL, *SHIFTS)
"""Pictures that a model is measured on; it was trained on the usual ones."""

OFFSET, BUDGET = 25, 50
"""Control steps from a start to its goal, and that an episode may take: those of `wm eval`."""

HEAD_EPISODES = 400
"""Of the logs, at most so many are what the state head is fitted to; their tokens are kept while it is trained."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        names: Encoders.
        seeds: Of training, encoder and world model alike.
        episodes: Numbers of logs.
        forms: Of the models.
        middle: The number of logs at which shifts and the forms other than compact are measured.
    """

    names: Sequence[str]
    seeds: Sequence[int]
    episodes: Sequence[int]
    forms: Sequence[str]
    middle: int

    def __post_init__(self) -> None:
        for form in self.forms:
            if form not in FORMS:
                raise UnknownNameError("form of the study", form, FORMS)

    def models(self) -> Iterator[Trained]:
        """One encoder after the other."""
        for seed in self.seeds:
            for name in self.names:
                for form in self.forms:
                    counts = self.episodes if form == FORMS[0] else [n for n in self.episodes if n == self.middle]
                    yield from (Trained(name, seed, form, n) for n in counts if _exists(name, form))

    def looks(self, model: Trained) -> tuple[str, ...]:
        """What a model is measured on."""
        return LOOKS if (model.form, model.episodes) == (FORMS[0], self.middle) else (USUAL,)


def _exists(name: str, form: str) -> bool:
    """A public network's grid is not pooled: its tokens are reduced already."""
    return (name, form) != (EFFICIENTNET, POOLED)


@dataclass(frozen=True)
class Trained:
    """A world model: its encoder's name, the seed of both, its form, and the logs it was trained on."""

    name: str
    seed: int
    form: str
    episodes: int

    def folder(self, study: Study) -> Path:
        """Its run folder."""
        return study.out / "models" / f"{self.name}-{self.seed}" / f"{self.form}-{self.episodes}"

    def done(self, study: Study) -> bool:
        """Whether it is there.

        Raises:
            MismatchError: as `require_encoder`.
        """
        self.require_encoder(study)
        return (self.folder(study) / "report.png").exists()

    def require_encoder(self, study: Study) -> None:
        """Refuse a model whose encoder has been made anew since; a public one is the same for ever.

        Raises:
            MismatchError: its encoder is not the present one of that name and seed.
        """
        config = self.folder(study) / CONFIG_FILE
        encoder = Path(study.encoder(self.name, self.seed, self.form == POOLED))
        if config.exists() and encoder.is_file():
            came = json.loads(config.read_text())["encoder"]["fingerprint"]
            what = f"model on another encoder than the present {self.name} of seed {self.seed}"
            require_equal(what, load_encoder(encoder).spec().fingerprint, came, config)


@dataclass(frozen=True)
class Goals:
    """Held-out goals: their seed and number, and the strength of the shifts they are also shown under."""

    seed: int
    count: int
    strength: float

    def folder(self, study: Study, model: Trained, look: str) -> Path:
        """Of a model's rows."""
        shown = look if look == USUAL else f"{look}-{self.strength:g}"
        of = study.out / "goals" / str(self.seed) / f"{model.name}-{model.seed}"
        return of / f"{model.form}-{model.episodes}" / shown


def train_models(study: Study, plan: Plan) -> None:
    """Train the models that are not there yet, of the encoders that are; the same head and schedule for all.

    Raises:
        WmError: as `wm.experiments.train.run` and `Trained.done`.
    """
    for (name, seed), models in itertools.groupby(plan.models(), lambda model: (model.name, model.seed)):
        missing = [model for model in models if not model.done(study)]
        if not missing or not there(study, name, seed):
            continue
        tokens = study.out / "tokens" / f"{name}-{seed}"
        for model in missing:
            config = _config(study, model)
            encoder = study.encoder(name, seed, model.form == POOLED)
            train.run(_linked(study, tokens), encoder, model.folder(study), config, seed)
            _tidy(model.folder(study))
        shutil.rmtree(tokens)  # hundreds of megabytes, made again in minutes


def _config(study: Study, model: Trained) -> TrainConfig:
    form = FORMS[0] if model.form == POOLED else model.form
    config = train.scheduled(train.config_for(EpisodeStore(study.data).spec.env, form), study.train_steps, model.seed)
    head = min(config.head_episodes, HEAD_EPISODES)
    proposal = replace(config.proposal, steps=study.train_steps)
    return replace(config, episodes=model.episodes, head_episodes=head, proposal=proposal)


def _linked(study: Study, folder: Path) -> Path:
    """The store under a name in a folder of ours, beside which `wm train` then keeps the encoder's tokens."""
    link, store = folder / "data", study.data.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if link.resolve() != store:
        link.unlink(missing_ok=True)
        link.symlink_to(store, target_is_directory=True)
    return link


def _tidy(folder: Path) -> None:
    """Of a finished model keep what is loaded or reported."""
    shutil.rmtree(folder / "states", ignore_errors=True)
    for path in folder.glob("*.ckpt.safetensors"):
        path.unlink()


def play(study: Study, plan: Plan, goals: Goals) -> None:
    """Play the goals that the models which are there have not been set yet, the usual pictures first.

    Raises:
        WmError: a model or a row file cannot be read, or is of another encoder; a folder belongs to another study.
    """
    tasks = sample_tasks("pusht", goals.seed, goals.count, OFFSET, 96)
    for look in LOOKS:
        for model in plan.models():
            if look in plan.looks(model) and model.done(study):
                _play(study, model, look, goals, tasks)


def _play(study: Study, model: Trained, look: str, goals: Goals, tasks: Sequence[Task]) -> None:
    out = goals.folder(study, model, look)
    setting = Setting("pusht", str(model.folder(study) / "model.safetensors"), "icem", BUDGET, None, 1)
    player = Player(setting)
    if look != USUAL:
        player.env = ShiftedPushTEnv(look, goals.strength, image_size=player.env.image_size)
    config = {"study": "encoders", "model": fingerprint(player.model), "seed": goals.seed, "look": look}
    config |= {"goal_offset": OFFSET, "budget_steps": BUDGET}
    config |= {"strength": None if look == USUAL else goals.strength}
    rows = opened(out, config | {"planner": planner_settings(player.mpc, player.world.planning)})
    missing, title = rows.missing(len(tasks)), f"{model.name} {model.seed} {model.form} {model.episodes} {look}"
    with progress(title, len(tasks), len(tasks) - len(missing)) as (bar, task):
        for index in missing:
            outcome = player.run(MODEL, shown(player, tasks[index], look))
            rows.append({"index": index, "reached": outcome.reached, "steps": outcome.steps})
            bar.update(task, advance=1, note=f"{sum(row['reached'] for row in rows.first(len(tasks)))} reached")


def shown(player: Player, task: Task, look: str) -> Task:
    """The task with its goal as a look shows it; what moves is at another place there than at the start."""
    if look == USUAL:
        return task
    observation, _ = player.env.reset(seed=task.seed + 1, options={"state": task.goal_state})
    return replace(task, goal_image=observation["image"])
