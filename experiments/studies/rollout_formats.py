"""Would other numbers, or a compiler, make rollouts faster, and how much of their exactness do they cost?

    python -m wm.experiments.studies.rollout_formats --out studies/rollout_formats.json

The rollout of a shipped compact model in fp32, in bfloat16 (torch's autocast), with whole numbers of 8 bits (`wm.int8`)
and compiled (`wm.compiled`), in turn, and that of a patch model in fp32 and bfloat16. The error is what it differs from
fp32's, as a share of what the state moves by: mean squares after the last latent step, over several observations and
actions of each (`wm.typical_inputs`). What is timed is the candidates of one observation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from wm.errors import BadInputError
from wm.experiments.assemble import PLAIN, make_model
from wm.experiments.atomic import require_writable, write_json
from wm.experiments.studies.launch import launch
from wm.experiments.studies.race import alternate, machine
from wm.int8 import CALIBRATION_SEED
from wm.model import WorldModel
from wm.types import Latent
from wm.typical_inputs import typical_inputs

HORIZON = 5
FORMATS = {"fp32": PLAIN, "bf16": PLAIN, "int8": "int8", "compiled": "compiled"}
"""Formats of the compact model and how its rollout is computed (`ROLLOUTS`); bf16 is the plain one under autocast."""

OBSERVATIONS, ACTIONS = 16, 8
"""Whose mean the error is: so many observations, and candidates of each."""

SEED = CALIBRATION_SEED + 1
"""Of inputs that int8's ranges are not from."""

Roll = Callable[[Latent, Tensor], Tensor]


def rollouts(plain: WorldModel, model_name: str) -> tuple[dict[str, Roll], dict[str, str]]:
    """A model's rollout in each format.

    Args:
        plain: The model.
        model_name: Where it is from.

    Returns:
        The rollouts by format, and why others cannot be computed here.

    Raises:
        WmError: no such model.
    """
    found, impossible = dict[str, Roll](), dict[str, str]()
    for name, way in FORMATS.items():
        try:
            model = plain if way == PLAIN else make_model(model_name, "pusht", way)
        except BadInputError as error:  # of another form, or not on this machine
            impossible[name] = str(error)
        else:
            found[name] = _roll(model, name == "bf16")
    return found, impossible


def _roll(model: WorldModel, bf16: bool) -> Roll:
    def roll(context: Latent, actions: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model.imagine(context, actions).tokens.float()

    return roll


def _errors(rolls: dict[str, Roll], context: Latent, actions: Tensor) -> dict[str, float]:
    """Mean squared difference after the last step, as a share of what fp32's state has moved by."""
    exact = rolls["fp32"](context, actions)[:, :, -1]
    moved = (exact - context.tokens[:, None, -1]).square().mean()
    return {n: float((roll(context, actions)[:, :, -1] - exact).square().mean() / moved) for n, roll in rolls.items()}


def run(
    model_name: str, candidates: int, out: Path, *, runs: int = 7, threads: int = 2, seed: int = SEED
) -> dict[str, Any]:
    """Measure one model's rollouts; the result, also in ``out``.

    Raises:
        BadInputError: a number below 1; ``out`` cannot be written.
        WmError: no such model.
    """
    for name, value in {"candidates": candidates, "threads": threads}.items():
        if value < 1:
            raise BadInputError(f"--{name}: expected >= 1, came {value}.")
    require_writable(out)
    about = machine(threads)
    plain = make_model(model_name, "pusht")
    rolls, impossible = rollouts(plain, model_name)
    errors = _errors(rolls, *typical_inputs(plain, OBSERVATIONS, ACTIONS, HORIZON, seed))
    one = typical_inputs(plain, 1, candidates, HORIZON, seed)
    timed = {name: partial(roll, *one) for name, roll in rolls.items()}
    alternate(timed, 2)
    seconds = alternate(timed, runs)
    fp32 = statistics.median(seconds["fp32"])
    rows = [
        {"format": name, "ms": 1e3 * statistics.median(each), "ratio": fp32 / statistics.median(each), "error": wrong}
        for (name, each), wrong in zip(seconds.items(), errors.values(), strict=True)
    ]
    settings = {"model": model_name, "candidates": candidates, "horizon": HORIZON, "runs": runs, "seed": seed}
    result = {"settings": settings, "machine": about, "rows": rows, "impossible": impossible}
    write_json(out, result)
    return result


def main(
    out: Annotated[Path, typer.Option(help="Where the measurement goes.")],
    model: Annotated[str, typer.Option(help="Shipped name or path of a push-T model.")] = "pusht",
    candidates: Annotated[int, typer.Option(help="Of a rollout.")] = 128,
    runs: Annotated[int, typer.Option(help="Rollouts of each format, in turn.")] = 7,
    threads: Annotated[int, typer.Option(help="Of torch.")] = 2,
    seed: Annotated[int, typer.Option(help=f"Of the inputs; {CALIBRATION_SEED} is int8's own calibration's.")] = SEED,
) -> None:
    """Time rollouts in other number formats and compiled."""
    result = run(model, candidates, out, runs=runs, threads=threads, seed=seed)
    table = Table(title=f"{model}: {candidates} candidates, {HORIZON} steps, {threads} threads")
    for column in ("format", "ms", "times faster", "error"):
        table.add_column(column, justify="left" if column == "format" else "right")
    for row in result["rows"]:
        table.add_row(row["format"], f"{row['ms']:.1f}", f"{row['ratio']:.2f}", f"{row['error']:.2%}")
    Console().print(table)
    for reason in result["impossible"].values():
        Console().print(reason, highlight=False)


if __name__ == "__main__":
    launch(main)
