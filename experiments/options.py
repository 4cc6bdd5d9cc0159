"""Options that several subcommands have: their help, and what their text or number has to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wm.errors import BadInputError
from wm.experiments.rules import Rules, RulesFile, read_rules
from wm.planners.stopping import SOUNDING

KeepOut = Annotated[
    list[str] | None, typer.Option(metavar="X,Y,R", help="Forbidden disc (px; the arm: m); may be repeated.")
]
Workspace = Annotated[
    str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Box that the whole robot stays in (px; the arm: m).")
]
MaxSpeed = Annotated[float | None, typer.Option(help="Speed limit of the robot (px/s; the arm: m/s).")]
ModelName = Annotated[
    str | None, typer.Option(help="Model: a shipped name or a path (default: the environment's own name).")
]
GoalKind = Annotated[
    str | None, typer.Option(metavar="KIND", help="Kind of goals, e.g. square, two-piles or T in chips.")
]
GoalOffset = Annotated[
    int | None,
    typer.Option(help="Control steps from a start to its goal, where goals are taken from logged episodes."),
]
BudgetSteps = Annotated[
    int | None, typer.Option(help="Control steps that an episode may take (default: the environment's).")
]
Think = Annotated[
    str | None,
    typer.Option(
        metavar="auto|fast|N",
        help="How much the default planner thinks for a plan: the model's proposals and one look (fast), exactly N "
        "iterations, or as the difficulty asks for (auto); by default what suits the world: auto for push-T.",
    ),
]
Screen = Annotated[
    str | None,
    typer.Option(
        help="A cheaper model (a shipped name or a path) whose search proposes what the model rescores; "
        "without --think, the model then thinks fast.",
    ),
]
Rollout = Annotated[
    str,
    typer.Option(
        metavar="plain|int8|compiled",
        help="How a compact model's rollouts (not its screen's) are computed: fp32, whole numbers (rounded; see "
        "docs/how-it-works.md), or fp32 compiled by torch, which takes up to half a minute first.",
    ),
]
DEADLINE = f"Milliseconds for each search, which tries {SOUNDING} candidates anyway; results then vary with speed."
RulesPath = Annotated[Path | None, typer.Option(help="Rules file (TOML) with more of these: see docs/safety.md.")]


def rules_of(
    path: Path | None, keep_out: Sequence[str] | None, workspace: str | None, max_speed: float | None
) -> RulesFile:
    """What a rules file and the options beside it say.

    Raises:
        BadInputError: an option or the file cannot be read, or both give what there is one of.
        UnknownNameError: an unknown key in the file.
    """
    file = RulesFile(Rules(), {}) if path is None else read_rules(path)
    return RulesFile(file.rules.joined(discs(keep_out), box(workspace), max_speed), file.bounds)


def discs(texts: Sequence[str] | None) -> list[tuple[float, float, float]]:
    """x, y and radius of each ``--keep-out``."""
    found = [numbers("--keep-out", text, "x,y,r") for text in texts or []]
    return [(x, y, r) for x, y, r in found]


def box(text: str | None) -> tuple[float, float, float, float] | None:
    """Both corners of ``--workspace``."""
    if text is None:
        return None
    x0, y0, x1, y1 = numbers("--workspace", text, "x0,y0,x1,y1")
    return x0, y0, x1, y1


def numbers(option: str, text: str, names: str) -> tuple[float, ...]:
    """Finite numbers between commas.

    Args:
        option: Its name, for the message.
        text: What came.
        names: What is expected, e.g. ``"x,y,r"``.

    Raises:
        BadInputError: another count, or something that is not a finite number.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(names.split(",")) or not all(math.isfinite(value) for value in values):
        raise BadInputError(f"{option}: expected {names} as finite numbers between commas, came '{text}'.")
    return values


def at_least(least: int, **numbers: int | None) -> None:
    """Refuse options that are too small; to be called before anything is read or written. None passes.

    Raises:
        BadInputError: names the option, the bound and the value.
    """
    for name, value in numbers.items():
        if value is not None and value < least:
            raise BadInputError(f"{name.replace('_', '-')}: expected >= {least}, came {value}.")


def require_seed(seed: int | None) -> None:
    """Refuse what torch takes for no seed; None passes.

    Raises:
        BadInputError: negative, or 2^63 and more.
    """
    if seed is not None and not 0 <= seed < 2**63:
        raise BadInputError(f"seed: expected a whole number of at least 0 and below 2^63, came {seed}.")
