"""What do the options of the training give a planner? Closed-loop success of every option under several searches.

    python -m wm.experiments.studies.training_options --data DATA --draft DRAFT --out DIR

Every option is trained from the same draft model and logs, for as many steps and with the same seed, far shorter than a
shipped model: temporal straightening and an inverse-dynamics head when the encoder is refined, adversarial inputs when
the predictor is trained, and online correction after it, whose predictor gets that many steps more (``longer`` gets
them on the logs alone, its control). Then all play the same development goals under the same searches. What is there
is not trained or played again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from wm.correct import CorrectConfig
from wm.errors import UnknownNameError
from wm.experiments import correct, refine, train
from wm.experiments.atomic import write_json
from wm.experiments.goals import DEVELOPMENT
from wm.experiments.interval import paired_difference
from wm.experiments.play import Setting
from wm.experiments.recorder import Play
from wm.experiments.studies import success_curve, training_options_report
from wm.experiments.studies.launch import launch
from wm.experiments.studies.rows import EPISODES, Rows
from wm.experiments.studies.success_settings import chosen
from wm.experiments.studies.training_options_report import PLAIN
from wm.fit import FitConfig
from wm.refine import RefineConfig
from wm.train import TrainConfig

SEARCHES = ("think-fast", "think-auto", "gradient-4x8", "cem-100x10", "mppi-128x6")
"""Of `wm.experiments.studies.success_settings`: one of each kind."""


@dataclass(frozen=True)
class Option:
    """What is trained differently.

    Attributes:
        straightening, inverse: As in `RefineConfig`.
        adversarial: As in `TrainConfig`.
        extra: Training goes on for `Budget.extra_steps`: ``"online"`` with played episodes as half of each batch,
            ``"log"`` on the logs alone, or ``""``: it does not.
    """

    straightening: float = 0.0
    inverse: float = 0.0
    adversarial: float = 0.0
    extra: str = ""


OPTIONS: Mapping[str, Option] = {
    PLAIN: Option(),
    "straightening": Option(straightening=0.05),
    "inverse": Option(inverse=0.02),
    "adversarial": Option(adversarial=0.05),
    "longer": Option(extra="log"),
    "online": Option(extra="online"),
}


CONTROLS: Mapping[str, str] = {"online": "longer"}
"""What an option is compared with beside the plain training."""


@dataclass(frozen=True)
class Budget:
    """How long everything is trained; the same for all options.

    Attributes:
        refine_episodes, refine_steps: Of `wm refine`.
        episodes, predictor_steps, proposal_steps, batch: Of `wm train`.
        played, extra_steps: Episodes of online correction, and steps after it.
        seed: Of everything random in training.
    """

    refine_episodes: int = 2000
    refine_steps: int = 500
    episodes: int = 2500
    predictor_steps: int = 2500
    proposal_steps: int = 1500
    batch: int = 256
    played: int = 500
    extra_steps: int = 800
    seed: int = 0


def made(name: str, data: Path, draft: Path, out: Path, budget: Budget) -> Path:
    """The model of an option; steps that options share are taken once.

    Raises:
        WmError: as `refine.run`, `train.run` and `correct.run`.
    """
    option = OPTIONS[name]
    shaped = option.straightening or option.inverse
    refined = _refined(option, data, draft, out / (f"refined-{name}" if shaped else "refined"), budget)
    if not option.extra:
        return _trained(option, data, refined, out / name, budget)
    base = _trained(Option(), data, refined, out / PLAIN, budget)
    share = 0.5 if option.extra == "online" else SMALLEST_SHARE
    schedule = FitConfig(budget.extra_steps, budget.batch, 3e-4, weight_decay=1e-5, seed=budget.seed)
    play = Play(budget.played if option.extra == "online" else 1, seed=budget.seed)
    setting = Setting("pusht", str(base), "icem", success_curve.BUDGET, None, 1)
    return correct.run(data, setting, out / name, play, CorrectConfig(share, schedule), data_episodes=budget.episodes)


SMALLEST_SHARE = 1e-9
"""Of a batch that comes from played episodes where none is to come."""


def _refined(option: Option, data: Path, draft: Path, out: Path, budget: Budget) -> Path:
    config = RefineConfig(straightening=option.straightening, inverse=option.inverse)
    schedule = replace(config.schedule, steps=budget.refine_steps, seed=budget.seed)
    return refine.run(data, draft, out, replace(config, schedule=schedule), budget.refine_episodes)


def _trained(option: Option, data: Path, refined: Path, out: Path, budget: Budget) -> Path:
    config = TrainConfig(episodes=budget.episodes, adversarial=option.adversarial)
    predictor = replace(config.predictor, steps=budget.predictor_steps, batch=budget.batch, seed=budget.seed)
    proposal = replace(config.proposal, steps=budget.proposal_steps, seed=budget.seed)
    return train.run(data, refined, out, replace(config, predictor=predictor, proposal=proposal), budget.seed)


def run(
    names: Sequence[str],
    searches: Sequence[str],
    data: Path,
    draft: Path,
    out: Path,
    budget: Budget,
    episodes: int,
    seed: int,
    workers: int = 1,
) -> dict[str, Any]:
    """Train what is missing and play; the table, also in `<out>/training_options.json` after every option.

    Args:
        names: Options.
        searches: Names of `success_settings.SETTINGS`.
        data: Push-T logs.
        draft: Model of `wm train` that is refined.
        out: Folder.
        budget: Of the training.
        episodes: Goals of each option and search.
        seed: Of the goals.
        workers: Processes that play.

    Raises:
        UnknownNameError: no such option or search.
        WmError: as `made` and `success_curve.run`.
    """
    for name in names:
        if name not in OPTIONS:
            raise UnknownNameError("option of the training", name, OPTIONS)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for name in names:
        path = made(name, data, draft, out, budget)
        played = success_curve.run(list(searches), episodes, seed, out / name / "play", str(path), workers)
        rows += [{"option": name, "search": search} | played["settings"][search] for search in searches]
        result = {"study": "training_options", "seed": seed, "episodes": episodes, "rows": rows}
        result |= {"options": {each: vars(OPTIONS[each]) for each in names}, "budget": vars(budget)}
        write_json(out / "training_options.json", result)
    if PLAIN in names:  # then all of them have played the same goals
        result["rows"] = [_beside(out, row, episodes) for row in rows]
        write_json(out / "training_options.json", result)
    return result


def _beside(out: Path, row: dict[str, Any], episodes: int) -> dict[str, Any]:
    """A row with its differences to the others that it is to be compared with, on the same goals."""
    found = dict[str, Any]()
    for other in {PLAIN, CONTROLS.get(row["option"], PLAIN)} - {row["option"]}:
        folders = [out / each / "play" / row["search"] / EPISODES for each in (row["option"], other)]
        if all(folder.exists() for folder in folders):
            first, second = ([bool(each["reached"]) for each in Rows(folder).first(episodes)] for folder in folders)
            difference, interval = paired_difference(first, second)
            found[other] = {"difference": difference, "ci95": list(interval)}
    return row | ({"beside": found} if found else {})


def printed(result: Mapping[str, Any]) -> Table:
    """Success by option and search."""
    searches = list(dict.fromkeys(row["search"] for row in result["rows"]))
    table = Table("option", *searches, title=f"success of {result['episodes']} goals, and ms a plan (median)")
    for option in dict.fromkeys(row["option"] for row in result["rows"]):
        of_option = {row["search"]: row for row in result["rows"] if row["option"] == option}
        table.add_row(option, *(_cell(of_option[search]) for search in searches))
    return table


def _cell(row: Mapping[str, Any]) -> str:
    low, high = row["success_ci95"]
    return f"{row['success']:.1%} [{low:.1%}, {high:.1%}] {row['plan_ms_p50']:.0f} ms"


def main(
    data: Annotated[Path, typer.Option(help="Push-T logs, as `wm build pusht` makes them.")],
    draft: Annotated[Path, typer.Option(help="The draft model that it refines.")],
    out: Annotated[Path, typer.Option(help="Folder; a study that is there goes on.")] = Path("training_options"),
    options: Annotated[str, typer.Option(help="Names between commas.")] = ",".join(OPTIONS),
    searches: Annotated[str, typer.Option(help="Names between commas.")] = ",".join(SEARCHES),
    episodes: Annotated[int, typer.Option(help="Goals of each option and search.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help=f"Of the goals; below {DEVELOPMENT} for the final look.", min=0)] = 1040,
    workers: Annotated[int, typer.Option(help="Processes that play.", min=1)] = 1,
    docs: Annotated[Path, typer.Option(help="Folder of the page and its picture.")] = Path("docs/studies"),
) -> None:
    """Train every option shortly, and measure success under several searches."""
    torch.set_num_threads(1)
    names = list(dict.fromkeys(part.strip() for part in options.split(",")))
    result = run(names, chosen(searches), data, draft, out, Budget(), episodes, seed, workers)
    Console(width=max(150, Console().width)).print(printed(result))
    print(training_options_report.write(result, docs))


if __name__ == "__main__":
    launch(main)
