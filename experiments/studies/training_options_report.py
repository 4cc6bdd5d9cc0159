"""`training-options.md`: what the options of the training give, as a table and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from wm.experiments.atomic import write_files
from wm.experiments.goals import purpose
from wm.experiments.report.benchmark_tables import markdown
from wm.experiments.report.figures import png
from wm.experiments.studies.success_curve import BUDGET, OFFSET

PAGE, PICTURE = "training-options.md", "training-options.png"

PLAIN = "none"
"""The training that the others are compared with."""

Result = Mapping[str, Any]
Cells = Mapping[tuple[str, str], Mapping[str, Any]]


def write(result: Result, docs: Path) -> Path:
    """Write the page and its picture; the page's path.

    Raises:
        BadInputError: they cannot be written.
    """
    page = docs / PAGE
    write_files({docs / PICTURE: picture(result), page: "\n".join(_lines(result)).encode()})
    return page


def _lines(result: Result) -> list[str]:
    options, searches, cells = _sorted(result)
    budget = result["budget"]
    table = [[option, *(_cell(cells[option, search]) for search in searches)] for option in options]
    times = [statistics.median(cells[option, search]["plan_ms_p50"] for option in options) for search in searches]
    table.append(["ms a plan", *(f"{ms:.1f}" for ms in times)])
    weights = [f"{name}: {_settings(result['options'][name], budget)}" for name in options]
    return [
        "# Options of the training",
        "",
        "    python -m wm.experiments.studies.training_options --data runs/model/data "
        f"--draft runs/model/draft/model.safetensors --seed {result['seed']} --episodes {result['episodes']}",
        "",
        "`runs/model` is what `make model` makes. Every option is trained from the same draft and logs with the same "
        f"seed, far shorter than the shipped model: {budget['refine_steps']} steps of refining, "
        f"{budget['predictor_steps']} of the predictor on {budget['episodes']} episodes. All then play the same "
        f"{result['episodes']} goals of push-T ({purpose(result['seed'])} seed {result['seed']}), {OFFSET} "
        f"control steps ahead, within {BUDGET}.",
        "",
        "Success in %, its 95 % interval, and the difference to `none` on the same goals in points with its interval; "
        "bold where that interval does not hold zero.",
        "",
        *markdown(["option", *searches], table),
        "",
        "Each option was trained once: the intervals are of the goals alone, and of so many comparisons some are apart "
        "by chance. A search takes as long on any of these models: the last line is the median of their median times.",
        "",
        f"Better than `none` by more than its interval: {_apart(cells, 1)}. Worse: {_apart(cells, -1)}.",
        *_controlled(cells),
        "",
        *(f"- {line}" for line in weights),
        "",
        f"![Success of every option under every search]({PICTURE})",
        "",
    ]


def _sorted(result: Result) -> tuple[list[str], list[str], Cells]:
    """Options, searches, and the row of each pair."""
    rows = result["rows"]
    cells = {(row["option"], row["search"]): row for row in rows}
    return list(dict.fromkeys(o for o, _ in cells)), list(dict.fromkeys(s for _, s in cells)), cells


def _cell(row: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in row["success_ci95"])
    said = f"{100 * row['success']:.1f} ({low:.0f} to {high:.0f})"
    return f"{said}, {_difference(row['beside'][PLAIN])}" if PLAIN in row.get("beside", {}) else said


def _difference(beside: Mapping[str, Any]) -> str:
    least, most = (100 * bound for bound in beside["ci95"])
    found = f"{100 * beside['difference']:+.1f} ({least:+.1f} to {most:+.1f})"
    return f"**{found}**" if least > 0 or most < 0 else found


def _controlled(cells: Cells) -> list[str]:
    """A line for each option that has a control of its own."""
    lines = dict[str, list[str]]()
    for (option, search), row in cells.items():
        for other in row.get("beside", {}).keys() - {PLAIN}:
            said = f"{search} {_difference(row['beside'][other])}"
            lines.setdefault(f"`{option}` beside `{other}`, points: ", []).append(said)
    return [line for title, each in lines.items() for line in ("", title + ", ".join(each) + ".")]


def _apart(cells: Cells, sign: int) -> str:
    """Options that are better (1) or worse (-1) with 95 %, and under which searches."""
    found = dict[str, list[str]]()
    for (option, search), row in cells.items():
        bounds = row.get("beside", {}).get(PLAIN, {}).get("ci95", (0.0, 0.0))
        if min(sign * bound for bound in bounds) > 0:
            found.setdefault(option, []).append(search)
    return ", ".join(f"{option} ({', '.join(under)})" for option, under in found.items()) or "none of them"


def _settings(option: Mapping[str, Any], budget: Mapping[str, Any]) -> str:
    said = {
        "straightening": f"`wm refine --straightening {option['straightening']:g}`",
        "inverse": f"`wm refine --inverse {option['inverse']:g}`",
        "adversarial": f"`wm train --adversarial {option['adversarial']:g}`",
    }
    for name, words in said.items():
        if option[name]:
            return words
    more = {
        "online": f"`wm correct` of `none`: {budget['played']} episodes played, half of each batch, "
        f"{budget['extra_steps']} more steps",
        "log": f"{budget['extra_steps']} more steps on the logs alone: what `online` is to be compared with",
        "": "no option",
    }
    return more[option["extra"]]


def picture(result: Result) -> bytes:
    """Success with its interval, searches side by side for every option."""
    options, searches, cells = _sorted(result)
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axis = figure.subplots()
    for place, search in enumerate(searches):
        rows = [cells[option, search] for option in options]
        at = [x + 0.13 * (place - (len(searches) - 1) / 2) for x in range(len(options))]
        means = [100 * row["success"] for row in rows]
        bounds = [[abs(100 * row["success_ci95"][i] - m) for row, m in zip(rows, means, strict=True)] for i in (0, 1)]
        axis.errorbar(at, means, bounds, fmt="o", label=search)
    axis.set_xticks(range(len(options)), options)
    axis.set(ylabel="success [%]", title=f"{result['episodes']} goals of push-T, 95 %")
    axis.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return png(figure)
