"""Which encoder to ship? Each of the laboratory's objectives, and what they have to beat, on push-T.

    python -m wm.experiments.studies.encoders --data data/pusht --out studies/encoders
    python -m wm.experiments.studies.encoders --objectives vicreg,pixels --episodes 400 --stage evaluate
    python -m wm.experiments.studies.encoders --stage report

A row is an encoder, pretrained without labels or a control. On each, world models are trained on a few, more and many
logs with the same head, sizes and schedule, and play the goals of `wm eval`; at ``--middle`` logs also on pictures
changed in ways that no log shows (`wm.envs.pusht.shifts`), and in other forms: on the grid's mean alone (``pooled``),
and on all tokens (``patch``). Whatever is there is kept, and a study that was killed goes on where it was: an encoder
and a model at their last checkpoint, goals after the last one played. So it can be run in parts, and two parts with
different ``--objectives`` at once. An encoder's rate is measured when it has been made; measure it again by
``--stage rate`` when nothing else is running. The report is made of what is there, and says what is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from wm.datasets.reader import EpisodeStore
from wm.errors import BadInputError, UnknownNameError
from wm.experiments.goals import DEVELOPMENT
from wm.experiments.options import at_least
from wm.experiments.studies.encoders_candidates import NAMES, Study, chosen, make_encoders, measure_rates
from wm.experiments.studies.encoders_models import FORMS, Goals, Plan, play, train_models
from wm.experiments.studies.encoders_report import write
from wm.experiments.studies.launch import launch

STAGES = ("pretrain", "train", "evaluate", "report")
RATE = "rate"
"""A stage that is only done when it is named: measure rates again, on an idle machine."""


def run(study: Study, plan: Plan, goals: Goals, docs: Path, stages: tuple[str, ...] = STAGES) -> None:
    """Do what is missing of some stages, in their order.

    Raises:
        WmError: data, models or folders cannot be read or written, or belong to another study.
    """
    at_least(1, pretrain_steps=study.pretrain_steps, train_steps=study.train_steps, evaluate=goals.count)
    at_least(2, pretrain_episodes=study.pretrain_episodes)
    at_least(0, seed=goals.seed, seeds=min(plan.seeds))
    logged = len(EpisodeStore(study.data))
    if "train" in stages and logged < max(plan.episodes):
        raise BadInputError(f"{study.data}: expected {max(plan.episodes)} or more episodes, came {logged}.")
    study.claim()
    if "pretrain" in stages:
        make_encoders(study, plan.names, plan.seeds)
    if RATE in stages:
        measure_rates(study, plan.names, plan.seeds)
    if "train" in stages:
        train_models(study, plan)
    if "evaluate" in stages:
        play(study, plan, goals)
    if "report" in stages:
        print(write(study, plan, goals, docs))


def numbers(name: str, text: str) -> list[int]:
    """Whole numbers between commas, ascending.

    Raises:
        BadInputError: none, or something else.
    """
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BadInputError(f"{name}: expected whole numbers between commas, came '{text}'.") from None


def main(
    data: Annotated[Path, typer.Option(help="Store of push-T's logs.")] = Path("data/pusht"),
    out: Annotated[Path, typer.Option(help="Folder; a study that is there goes on.")] = Path("studies/encoders"),
    docs: Annotated[Path, typer.Option(help="Folder of the page and its pictures.")] = Path("docs/studies"),
    objectives: Annotated[str | None, typer.Option(help=f"Rows between commas, of {', '.join(NAMES)}.")] = None,
    episodes: Annotated[str, typer.Option(help="Numbers of logs that models are trained on.")] = "100,400,2000",
    middle: Annotated[int, typer.Option(help="Number of logs for the shifts and for forms but compact.")] = 400,
    form: Annotated[str, typer.Option(help=f"Forms between commas, of {', '.join(FORMS)}.")] = "compact,pooled",
    seeds: Annotated[str, typer.Option(help="Of training, between commas.")] = "0",
    evaluate: Annotated[int, typer.Option(help="Held-out goals.")] = 200,
    seed: Annotated[int, typer.Option(help=f"Of the goals; below {DEVELOPMENT} for the final look.")] = 1000,
    strength: Annotated[float, typer.Option(help="Of the shifts, 0 to 1.", min=0.0, max=1.0)] = 0.1,
    pretrain_steps: Annotated[int, typer.Option(help="Of every objective.")] = 1500,
    pretrain_episodes: Annotated[int, typer.Option(help="Episodes whose frames encoders are trained on.")] = 600,
    train_steps: Annotated[int, typer.Option(help="Of every world model.")] = 3000,
    frames: Annotated[
        list[Path] | None, typer.Option(help="Stores whose frames encoders are trained on; may be repeated.")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(STAGES)} (default: all), or {RATE}: measure encoders' rates again."),
    ] = None,
) -> None:
    """Compare encoders by what a robot can do with them."""
    if stage is not None and stage not in (*STAGES, RATE):
        raise UnknownNameError("stage", stage, (*STAGES, RATE))
    torch.set_num_threads(1)
    study = Study(data, out, pretrain_steps, pretrain_episodes, train_steps, tuple(frames or ()))
    forms = [part.strip() for part in form.split(",")]
    plan = Plan(chosen(objectives), numbers("seeds", seeds), numbers("episodes", episodes), forms, middle)
    run(study, plan, Goals(seed, evaluate, strength), docs, STAGES if stage is None else (stage,))


if __name__ == "__main__":
    launch(main)
