"""`docs/benchmarks.md`: the files of a bench folder as tables, every figure beside the command that measures it.

    python -m wm.experiments.report.benchmarks --bench bench --docs docs

Nothing is measured here; a section of which the folder has no result stays as it is.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wm.errors import BadInputError
from wm.experiments.atomic import write_files
from wm.experiments.report.benchmark_evaluation import PATCH_BAR, PUSHT_BAR, evaluation, evaluation_command
from wm.experiments.report.benchmark_success import beside_auto, success, success_command
from wm.experiments.report.benchmark_tables import Result, command, listed, markdown, named, on_machine
from wm.experiments.report.figures import png
from wm.experiments.studies import same_energy
from wm.experiments.studies.launch import launch

PAGE, SCALING_PNG, SUCCESS_PNG = "benchmarks.md", "benchmarks-scaling.png", "benchmarks-success.png"
PATCH_SUCCESS_PNG, ENERGY_PNG = "benchmarks-patch-success.png", "benchmarks-same-energy.png"

INTRODUCTION = """# Benchmarks

Made from the files of `bench/` by the commands beside them, which want an otherwise idle machine. Each section names
its machine, whose ratios are its own. A section without such a file is what it was when last measured.
"""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Heading.
        file: Of the result, in the bench folder.
        command: What measures it, from the result.
        body: Its lines of Markdown, from the result.
        picture: Draws its picture from the result, or names the one beside the file; None: it has none.
        picture_name: The picture's file in the folder of the page.
    """

    title: str
    file: str
    command: Callable[[Result], str]
    body: Callable[[Result], list[str]]
    picture: Callable[[Result], bytes] | str | None = None
    picture_name: str = ""


def write(bench: Path, docs: Path) -> Path:
    """Write the page and its pictures. A section whose result is not there stays as the page has it.

    Raises:
        BadInputError: the folder holds no result, a file in it or the page cannot be read, or ``docs`` cannot be
            written.
    """
    page = docs / PAGE
    texts, files = _kept(page), dict[Path, bytes]()
    made = [section for section in SECTIONS if (bench / section.file).exists()]
    if not made:
        names = ", ".join(section.file for section in SECTIONS)
        raise BadInputError(f"{bench}: expected at least one of {names}, came none.")
    for section in made:
        texts[section.title], picture = _made(section, bench / section.file, docs)
        if picture is not None:
            files[docs / section.picture_name] = picture
    whole = [INTRODUCTION, *(texts[section.title] for section in SECTIONS if section.title in texts)]
    write_files(files | {page: "\n".join(whole).encode()})
    return page


def _kept(page: Path) -> dict[str, str]:
    """The sections of a page that is there already, by their titles."""
    if not page.exists():
        return {}
    try:
        parts = page.read_text(encoding="utf-8").split("\n## ")[1:]
    except ValueError as error:
        raise BadInputError(f"{page}: expected a page of text, it cannot be read ({error}).") from error
    return {part.partition("\n")[0]: f"## {part.strip()}\n" for part in parts}


def _made(section: Section, path: Path, docs: Path) -> tuple[str, bytes | None]:
    """A section's text and its picture, which may be one that the folder of the page has already."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        lines = [f"## {section.title}", "", f"    {section.command(result)}", "", *section.body(result), ""]
        picture = _picture(section, path, result)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadInputError(f"{path}: expected a result of '{section.title}', it cannot be read: {error!r}.") from error
    if picture is not None or (section.picture_name and (docs / section.picture_name).exists()):
        lines += [f"![{section.title}]({section.picture_name})", ""]
    return "\n".join(lines), picture


def _picture(section: Section, path: Path, result: Result) -> bytes | None:
    if isinstance(section.picture, str):
        beside = path.with_name(section.picture)
        return beside.read_bytes() if beside.exists() else None
    return None if section.picture is None else section.picture(result)


def _parts(result: Result) -> list[str]:
    rows = [[name.replace("_", " "), f"{value:,.2f}"] for name, value in result["figures"].items()]
    about = on_machine(result, f"Medians of {result['machine']['runs']}; ratios are taken in one run.")
    return about + markdown(["part", "figure"], rows)


def _race_command(study: str) -> Callable[[Result], str]:
    def of(result: Result) -> str:
        search, sizes = result["search"], result["sizes"]
        options = {name: search[name] for name in ("samples", "iterations", "topk", "horizon", "problems", "seed")}
        options |= {"runs": result["runs"], "threads": result["machine"]["torch_threads"], "chunk": result["chunk"]}
        options |= {"image": sizes["image"], "depth": sizes["depth"], "encoder-depth": sizes["encoder_depth"]}
        if result["rival"] != "reference loop":
            options |= {"rival": "DIR"} | ({"rival-model": "DIR"} if study == "rival_cem_lewm" else {})
        return command(study, options)

    return of


def _race(result: Result) -> list[str]:
    rows, at = [], [commit[:9] for commit in result["rival_commits"] if commit]
    theirs = ", ".join([result["rival"], *(["commit " + " and ".join(at)] if at else [])])
    for name, label in (("theirs", f"theirs ({theirs})"), ("ours", "ours")):
        arm = result[name]
        figures = [f"{arm['median_s']:,.2f}", f"{arm['gflop']:,.0f}", f"{arm['gflop_per_s']:,.0f}"]
        rows.append([label, *figures])
    search, ratios = result["search"], result["ratio_of_each_run"]
    lines = on_machine(
        result,
        f"Medians of {result['runs']}, in turn; {search['samples']} candidates, {search['iterations']} iterations, "
        f"{search['problems']} problems. **Ours takes 1/{result['ratio']:.2f} of the time** (medians; run by run "
        f"{min(ratios):.2f} to {max(ratios):.2f}, in the middle {statistics.median(ratios):.2f}); "
        f"costs differ by {result['largest_relative_cost_difference']:.1g}.",
    )
    return lines + markdown(["arm", "seconds", "GFLOP", "GFLOP/s"], rows)


def _deadline_command(file: str) -> Callable[[Result], str]:
    def of(result: Result) -> str:
        options = {name: result[name] for name in ("replans", "tasks", "seed", "model", "planner")}
        if result.get("think") is not None:
            options["think"] = result["think"]
        options["threads"] = result["machine"]["torch_threads"]
        deadlines = "".join(f" --deadline-ms {row['deadline_ms']:g}" for row in result["deadlines"])
        return command("deadline", options, file) + deadlines

    return of


def _deadline(result: Result) -> list[str]:
    rows = []
    for row in result["deadlines"]:
        for part, label in (("search", "search"), ("replan", "replan"), ("observation and replan", "with observation")):
            overrun = row["overrun_ms"][part]
            cells = [
                f"{row['deadline_ms']:g} ms, {label}",
                *(f"{overrun[p]:+.1f}" for p in ("p50", "p95", "p99", "max")),
            ]
            if part == "replan":
                cells += [f"{row['iterations']['p50']:g}", f"{row['stopped_by_deadline']:.0%}"]
            rows.append(cells + [""] * (7 - len(cells)))
    late = [f"{row['late']['replans']} at {row['deadline_ms']:g} ms" for row in result["deadlines"]]
    collected = sum(row["late"]["with_collection"] for row in result["deadlines"])
    switched = sum(row["late"]["with_context_switch"] for row in result["deadlines"])
    lines = on_machine(
        result,
        f"{result['replans']} replans or a few more at each deadline. Overrun in ms: wall time less the deadline, "
        f"below zero it ended before. More than 5 ms late: {', '.join(late)}; of these {collected} with a garbage "
        f"collection in them, {switched} with the processor taken away.{_withheld(result)}",
    )
    columns = ["deadline, what", "p50", "p95", "p99", "largest", "iterations (p50)", "stopped by the deadline"]
    return lines + markdown(columns, rows)


def _withheld(result: Result) -> str:
    """What the machine's host gave to others meanwhile, where its system and the file tell."""
    seconds = [row.get("withheld_s") for row in result["deadlines"]]
    if any(each is None for each in seconds):
        return ""
    return f" Meanwhile the machine's host withheld processors for {sum(seconds):.1f} s."


def _scaling_command(result: Result) -> str:
    patch = [row["candidates"] for row in result["rows"] if row["predictor"] == "patch"]
    options = {name: result[name] for name in ("model", "runs", "chunk", "seed")}
    options["threads"] = max(result["machine"]["torch_threads"])
    return command("scaling", options | ({"most": max(patch)} if patch else {})) + ("" if patch else " --compact-only")


def _scaling(result: Result) -> list[str]:
    rows = []
    for row in result["rows"]:
        sizes = [str(row[name]) for name in ("candidates", "horizon", "tokens", "problems", "threads")]
        figures = [f"{1e3 * row['median_s']:,.1f}", f"{row['gflop_per_s']:,.0f}", f"{row['of_gemm']:.0%}"]
        rows.append([f"{row['predictor']}, {_varied(row)}", *sizes, *figures])
    lines = on_machine(
        result,
        f"Medians of {result['runs']}, in turn with a series of products of square fp32 matrices, the fastest of "
        "several sizes and of the libraries at hand; the last column is the rollout's arithmetic over its time and "
        f"over that product's rate.{_beside_fastest(result)}",
    )
    columns = [
        "predictor, varied",
        "candidates",
        "horizon",
        "tokens",
        "problems",
        "threads",
        "ms",
        "GFLOP/s",
        "achieved",
    ]
    return lines + markdown(columns, rows)


def _beside_fastest(result: Result) -> str:
    """The largest patch rollout beside the fastest product of the run."""
    largest = result["largest_patch"]
    if largest is None:
        return ""
    return (
        " On a host whose rate changes meanwhile, a row's share can come out too large: the patch predictor's "
        f"{largest['candidates']} candidates achieve {largest['of_fastest']:.0%} of the fastest product of "
        f"the whole run ({largest['fastest_gflop_per_s']:,.0f} GFLOP/s)."
    )


def _varied(row: Result) -> str:
    return "tokens" if row["varied"] == "side" else str(row["varied"])


def scaling_png(result: Result) -> bytes:
    """Left time against candidates, right the achieved fraction against whatever was varied."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, name in zip(("tab:blue", "tab:orange"), ("compact", "patch"), strict=True):
        rows = [row for row in result["rows"] if row["predictor"] == name]
        _line(left, [row for row in rows if row["varied"] == "candidates"], name, colour)
        right.plot(
            [1e-9 + row["gflop"] for row in rows], [100 * row["of_gemm"] for row in rows], "o", color=colour, label=name
        )
    left.set(xscale="log", yscale="log", xlabel="candidates", ylabel="ms a rollout", title="Time of a rollout")
    right.set(xscale="log", xlabel="arithmetic of the rollout [GFLOP]", ylabel="% of the product's rate")
    right.set(title="Achieved arithmetic", ylim=(0, 105))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return png(figure)


def _line(axis: Axes, rows: Sequence[Result], name: str, colour: str) -> None:
    counts, times = [row["candidates"] for row in rows], [1e3 * row["median_s"] for row in rows]
    axis.plot(counts, times, "o-", color=colour, label=name)


def _energy_command(result: Result) -> str:
    options = {name: result[name] for name in ("model", "problems", "seed", "population", "iterations")}
    options["threads"] = result["machine"]["torch_threads"]
    return command("same_energy", options | named(result, same_energy.DEFAULT))


def _energy(result: Result) -> list[str]:
    rows = []
    for name, row in sorted(result["settings"].items(), key=lambda item: item[1]["plan_ms"]["p50"]):
        faster, energy, there = row["times_faster"], row["energy"], row["reached"]["times_faster_p50"]
        interval, mean = energy["difference_ci95"], energy["reference_mean"]
        cells = [name, str(row["problems"]), f"{row['plan_ms']['p50']:,.0f}"]
        cells += [f"{faster[key]:.1f}" for key in ("total", "p50", "geometric_mean")]
        cells += [f"{energy['ratio']['p50']:.3f}", f"{energy['mean'] / mean:.3f}"]
        cells.append("" if interval is None else " to ".join(f"{1 + bound / mean:.3f}" for bound in interval))
        for share in (row["no_higher"], row["reached"]):
            cells.append("{:.0f} ({:.0f} to {:.0f})".format(*(100 * x for x in (share["share"], *share["ci95"]))))
        rows.append([*cells, "never" if there is None else f"{there:.1f}"])
    lines = on_machine(
        result,
        f"First plans of {result['problems']} held-out tasks. {result['reference']} is plain CEM that always does all "
        "its iterations, the model's proposals among the first one's candidates: "
        f"{result['reference_plan_ms_p50']:,.0f} ms a plan. **At least {result['bar']['times_faster']:g} times less "
        f"time over all plans, at a mean energy that is no higher: {listed(result['met'])}.** Energies are over the "
        "reference's: the median, and the mean over its mean with a bootstrap interval over the problems. *No higher*: "
        "plans with at most its energy; *reached*: searches that had as little at some time, and how many times sooner "
        "than the reference ended (median, never counting as 0).",
    )
    columns = ["search", "problems", "ms a plan", "times faster, all", "median", "geometric mean", "energy, median"]
    columns += ["mean", "95 %", "no higher, % (95 %)", "reached, % (95 %)", "times sooner"]
    return lines + markdown(columns, rows)


SECTIONS = (
    Section("Parts", "bench.json", lambda _: "wm bench --out bench", _parts),
    Section("DINO-WM's search, same weights and candidates", "rival_cem.json", _race_command("rival_cem"), _race),
    Section(
        "stable-worldmodel's search, LeWM's size, same weights and candidates",
        "rival_cem_lewm.json",
        _race_command("rival_cem_lewm"),
        _race,
    ),
    Section("Push-T", "eval/metrics.json", evaluation_command("eval"), evaluation(PUSHT_BAR)),
    Section("Push-T, patch form", "eval_patch/metrics.json", evaluation_command("eval_patch"), evaluation(PATCH_BAR)),
    Section(
        "Success against planning time",
        "success_curve/success_curve.json",
        success_command("success_curve"),
        success,
        "success_curve.png",
        SUCCESS_PNG,
    ),
    Section("Effort by difficulty, and fixed", "effort/success_curve.json", success_command("effort"), beside_auto),
    Section(
        "Success against planning time (patch form)",
        "patch_curve/success_curve.json",
        success_command("patch_curve", "pusht-patch"),
        beside_auto,
        "success_curve.png",
        PATCH_SUCCESS_PNG,
    ),
    Section(
        "Same final energy (patch form)", "same_energy.json", _energy_command, _energy, "same_energy.png", ENERGY_PNG
    ),
    Section("Rollouts", "scaling.json", _scaling_command, _scaling, scaling_png, SCALING_PNG),
    Section("Deadlines", "deadline.json", _deadline_command("deadline.json"), _deadline),
    Section(
        "Deadlines of what thinks as long as it pays",
        "deadline_auto.json",
        _deadline_command("deadline_auto.json"),
        _deadline,
    ),
    Section(
        "Deadlines of a search by gradients",
        "deadline_gradient.json",
        _deadline_command("deadline_gradient.json"),
        _deadline,
    ),
)
"""In the order of the page."""


def main(
    bench: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("bench"),
    docs: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("docs"),
) -> None:
    """Write benchmarks.md from the results that are there."""
    print(write(bench, docs))


if __name__ == "__main__":
    launch(main)
