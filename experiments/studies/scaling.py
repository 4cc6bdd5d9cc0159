"""How long does a rollout take, and how near is it to what this machine can multiply?

    python -m wm.experiments.studies.scaling --out studies/scaling.json

The compact predictor is the shipped model's, the patch predictor has DINO-WM's sizes and random weights. From a middle
point, one size at a time is varied: candidates, horizon, tokens of a frame, problems, threads. Each time is the median
of several rollouts, in turn with a series of products of square fp32 matrices: a row's achieved fraction is the
rollout's arithmetic over its time and over that product's rate. The product is the fastest of several sizes and of the
two libraries that `wm.linear` chooses from. On a host whose rate changes meanwhile a row's fraction can come out too
large, so the bar is judged by the fastest product of the whole run.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from wm.encoders.base import fingerprint
from wm.experiments.assemble import make_model
from wm.experiments.atomic import write_json
from wm.experiments.studies import rival_flops
from wm.experiments.studies.launch import judge, launch
from wm.experiments.studies.race import alternate, gemm_rates, machine
from wm.experiments.studies.rival_cem import Ours
from wm.experiments.studies.rival_search import Search
from wm.experiments.studies.rival_weights import Sizes, dino_wm_state
from wm.experiments.studies.rows import opened, progress
from wm.linear import linear
from wm.model import WorldModel
from wm.patch_predictor import PatchPredictor
from wm.predictor import Predictor
from wm.types import Latent

BAR_CANDIDATES, BAR = 300, 0.65
"""The patch rollout of so many candidates achieves at least such a fraction of the fastest product's rate."""

POINTS_FILE = "points.jsonl"

SQUARES = (512, 1024, 2048, 4096)
"""Sides of the products."""

PRODUCTS_S = 0.1
"""About so long a series of products is timed: one of milliseconds after a rollout of seconds is often a slow one."""


@dataclass(frozen=True)
class Point:
    """Size of a rollout.

    Attributes:
        candidates: S.
        horizon: H, latent steps.
        side: Side of the patch predictor's grid of patches.
        problems: B.
        threads: Of torch.
        varied: What distinguishes it from the middle point.
    """

    candidates: int
    horizon: int = 5
    side: int = 14
    problems: int = 1
    threads: int = 2
    varied: str = "candidates"


@dataclass(frozen=True)
class Sweep:
    """A middle point and the values that each of its sizes takes.

    Attributes:
        middle: The point.
        values: Field of `Point` to its values.
    """

    middle: Point
    values: dict[str, tuple[int, ...]]

    def points(self) -> Iterator[Point]:
        """All of them; in each group the middle point is one, if its value is."""
        for name, values in self.values.items():
            for value in values:
                yield dataclasses.replace(self.middle, **{name: value}, varied=name)


COMPACT = Sweep(
    Point(300),
    {"candidates": (16, 64, 300, 1000), "horizon": (1, 3, 5, 10), "problems": (1, 4, 16), "threads": (1, 2)},
)
PATCH = Sweep(
    Point(16),
    {
        "candidates": (4, 16, 64, 300),
        "horizon": (1, 2, 3, 5, 8),
        "side": (7, 10, 14, 16),
        "problems": (1, 4),
        "threads": (1, 2),
    },
)

Rolled = tuple[Callable[[], object], float, int]
"""A rollout, its arithmetic [GFLOP], and the tokens of a frame."""


def compact_rollout(model: WorldModel, point: Point) -> Rolled:
    """The model's rollout from observed latents."""
    spec = model.spec
    proprio = None if spec.env.proprio is None else torch.randn(point.problems, spec.history, spec.env.proprio.width)
    context = Latent(torch.randn(point.problems, spec.history, spec.tokens, spec.width), proprio)
    actions = torch.randn(point.problems, point.candidates, point.horizon, model.action_width)
    predictor = model.compact_predictor("--model")
    work = compact_gigaflop(predictor, point.horizon, point.candidates) * point.problems
    return lambda: model.imagine(context, actions), work, spec.tokens


def compact_gigaflop(predictor: Predictor, horizon: int, candidates: int) -> float:
    """What the compact predictor's layers have to multiply; the first step's history is one for all candidates."""
    layers = [each for each in predictor.modules() if isinstance(each, nn.Linear)]
    of_step = sum(2 * layer.in_features * layer.out_features for layer in layers)
    history = 2 * predictor.from_state.in_features * predictor.from_state.out_features
    return 1e-9 * (candidates * (horizon * of_step - history) + history)


def patch_rollout(sizes: Sizes, point: Point, seed: int, chunk: int) -> Rolled:
    """The patch predictor's rollout from one observed frame, with random weights."""
    sizes = dataclasses.replace(sizes, image=sizes.patch * point.side)
    predictor = patch_predictor(sizes, seed, chunk)
    tokens = torch.randn(point.problems, 1, sizes.patches, sizes.width)
    proprio = torch.randn(point.problems, 1, sizes.proprio_width)
    actions = torch.randn(point.problems, point.candidates, point.horizon, sizes.action_width)
    layer = rival_flops.Layer(sizes, sizes.patches, sizes.width + 2 * sizes.embedding, modulated=False)
    work = rival_flops.ours(layer, point.horizon) * point.candidates * point.problems

    @torch.inference_mode()
    def roll() -> object:
        observed = predictor.observe_frames(tokens, proprio, actions[:, 0, :0])
        return predictor.rollout(observed, actions)

    return roll, work, sizes.patches


def patch_predictor(sizes: Sizes, seed: int, chunk: int) -> PatchPredictor:
    """Random weights under DINO-WM's names, in our predictor."""
    return Ours(dino_wm_state(sizes, seed), sizes, nn.Identity(), Search(), chunk).predictor


def products(squares: Sequence[int], runs: int) -> dict[int, dict[str, float]]:
    """GFLOP/s of the products of square matrices, by their side and by the library."""
    return {side: gemm_rates(side, side, side, runs) for side in squares}


def measured(rolled: Rolled, side: int, library: str, rate: float, runs: int) -> dict[str, float]:
    """A rollout in turn with products of square matrices: median time, rates, and the fraction achieved.

    Args:
        rolled: The rollout.
        side: Of the matrices.
        library: Of `gemm_rates`.
        rate: About what that product reaches [GFLOP/s].
        runs: Of each.
    """
    roll, work, _ = rolled
    left, right = torch.randn(side, side), torch.randn(side, side)
    product = (lambda: torch.mm(left, right.T)) if library == "torch.mm" else (lambda: linear(left, right))
    of_one = 2e-9 * side**3
    times = math.ceil(PRODUCTS_S * rate / of_one)

    def series() -> None:
        for _ in range(times):
            product()

    arms = {"rollout": roll, "product": series}
    alternate(arms, 1)
    seconds = alternate(arms, runs)
    median = statistics.median(seconds["rollout"])
    gemm = times * of_one / statistics.median(seconds["product"])
    return {
        "median_s": median,
        "min_s": min(seconds["rollout"]),
        "max_s": max(seconds["rollout"]),
        "gflop": work,
        "gflop_per_s": work / median,
        "gemm_gflop_per_s": gemm,
        "of_gemm": work / median / gemm,
    }


def run(
    model_name: str,
    sweeps: dict[str, Sweep],
    out: Path,
    *,
    sizes: Sizes | None = None,
    runs: int = 5,
    seed: int = 0,
    chunk: int = 4,
    squares: Sequence[int] = SQUARES,
) -> dict[str, Any]:
    """Measure all points; the table's numbers, also in ``out``.

    Points are kept in a folder beside ``out`` until all are measured, so that an interrupted run is continued.

    Args:
        model_name: Shipped name or path of the compact model.
        sweeps: Of ``"compact"`` and ``"patch"``; either may be left out.
        out: File.
        sizes: Of the patch predictor; None: DINO-WM's.
        runs: Timed rollouts of each point.
        seed: Of weights and inputs.
        chunk: Candidates that the patch predictor takes at a time.
        squares: Sides of the products that are tried.

    Raises:
        WmError: no such model; ``out`` cannot be written, or a run of other settings or on another machine has been
            interrupted there.
    """
    torch.manual_seed(seed)
    model, sizes = make_model(model_name, "pusht"), sizes or Sizes()
    model.compact_predictor("--model")  # refused before anything is timed
    points = [(name, point) for name, sweep in sweeps.items() for point in sweep.points()]
    threads = sorted({point.threads for _, point in points})
    rates, about = dict[int, dict[int, dict[str, float]]](), dict[str, Any]()
    for count in threads:
        about = machine(count)
        rates[count] = products(squares, runs)
    said = [[name, dataclasses.asdict(point)] for name, point in points]
    config = {"study": "scaling", "model": fingerprint(model), "sizes": dataclasses.asdict(sizes), "runs": runs}
    config |= {
        "seed": seed,
        "chunk": chunk,
        "squares": list(squares),
        "products_s": PRODUCTS_S,
        "machine": about | {"torch_threads": threads},
        "points": said,
    }
    kept = opened(_part(out), config, POINTS_FILE)
    missing = kept.missing(len(points))
    with progress("scaling", len(points), len(points) - len(missing)) as (bar, shown):
        for index in missing:
            name, point = points[index]
            torch.set_num_threads(point.threads)
            compact = name == "compact"
            rolled = compact_rollout(model, point) if compact else patch_rollout(sizes, point, seed, chunk)
            found = _row(name, point, rolled, rates[point.threads], runs)
            kept.append({"index": index} | found)
            bar.update(shown, advance=1, note=f"{name}: {found['of_gemm']:.0%} of the product's rate")
    rows = [{k: v for k, v in row.items() if k != "index"} for row in kept.first(len(points))]
    result = {
        "study": "scaling",
        "machine": about | {"torch_threads": threads},
        "model": model_name,
        "sizes": dataclasses.asdict(sizes),
        "runs": runs,
        "statistic": "median",
        "seed": seed,
        "chunk": chunk,
        "gemm_gflop_per_s": rates,
        "rows": rows,
        "bar": {"candidates": BAR_CANDIDATES, "of_gemm": BAR},
    }
    result["largest_patch"] = largest_patch(result)
    write_json(out, result)
    shutil.rmtree(_part(out))
    return result


def _part(out: Path) -> Path:
    """Folder of what an unfinished run has measured."""
    return out.with_name(f"{out.name}.part")


def _row(name: str, point: Point, rolled: Rolled, rates: dict[int, dict[str, float]], runs: int) -> dict[str, Any]:
    """A point's line of the table, beside the fastest of the products."""
    best = {(side, library): rate for side, of in rates.items() for library, rate in of.items()}
    side, library = max(best, key=lambda each: best[each])
    sized = {k: v for k, v in dataclasses.asdict(point).items() if k != "side"} | {"tokens": rolled[2]}
    found = measured(rolled, side, library, best[side, library], runs)
    return {"predictor": name} | sized | {"product": f"{library} {side}"} | found


def shown(result: dict[str, Any]) -> Table:
    """The result for the terminal."""
    columns = ("predictor", "varied", "S", "H", "N", "B", "threads", "ms", "GFLOP/s", "of product")
    found = Table(*columns, title=f"rollouts, median of {result['runs']}")
    for row in result["rows"]:
        sizes = [str(row[name]) for name in ("candidates", "horizon", "tokens", "problems", "threads")]
        figures = [f"{1e3 * row['median_s']:,.1f}", f"{row['gflop_per_s']:,.0f}", f"{row['of_gemm']:.0%}"]
        found.add_row(row["predictor"], "tokens" if row["varied"] == "side" else row["varied"], *sizes, *figures)
    return found


def largest_patch(result: dict[str, Any]) -> dict[str, Any] | None:
    """The patch rollout of most candidates beside the fastest product of the run on as many threads; None without.

    Products are timed at the run's start and beside every row.
    """
    rows = [row for row in result["rows"] if row["predictor"] == "patch" and row["varied"] == "candidates"]
    if not rows:
        return None
    row = max(rows, key=lambda each: each["candidates"])
    threads = row["threads"]
    at_start = [rate for of in result["gemm_gflop_per_s"][threads].values() for rate in of.values()]
    fastest = max(at_start + [each["gemm_gflop_per_s"] for each in result["rows"] if each["threads"] == threads])
    return {
        "candidates": row["candidates"],
        "fastest_gflop_per_s": fastest,
        "of_fastest": row["gflop_per_s"] / fastest,
    }


def achieved(result: dict[str, Any]) -> float | None:
    """The fraction that the bar is about; None when that rollout was not measured."""
    largest = result["largest_patch"]
    return None if largest is None or largest["candidates"] != BAR_CANDIDATES else float(largest["of_fastest"])


def main(
    out: Annotated[Path, typer.Option(help="File of the result.")] = Path("scaling.json"),
    model: Annotated[str, typer.Option(help="Compact model: a shipped name or a path.")] = "pusht",
    most: Annotated[
        int, typer.Option(help="Most candidates of the patch predictor; the bar is about 300.", min=1)
    ] = 300,
    compact_only: Annotated[bool, typer.Option(help="Leave the patch predictor out (most of the time).")] = False,
    runs: Annotated[int, typer.Option(help="Timed rollouts of each point.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Most threads of torch.", min=1)] = 2,
    chunk: Annotated[int, typer.Option(help="Candidates that the patch predictor takes at a time.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Of weights and inputs.", min=0, max=2**63 - 1)] = 0,
) -> None:
    """Measure rollouts beside products of matrices; exit code 3 when the patch rollout of 300 achieves under 65 %."""
    sweeps = {"compact": bounded(COMPACT, threads, 10**6)}
    if not compact_only:
        sweeps["patch"] = bounded(PATCH, threads, most)
    result = run(model, sweeps, out, runs=runs, seed=seed, chunk=chunk)
    Console().print(shown(result))
    judge((achieved(result) or math.inf) >= BAR)


def bounded(sweep: Sweep, threads: int, candidates: int) -> Sweep:
    """The sweep without the points that have more threads or candidates; its middle has as many threads as are left."""
    most = {"threads": threads, "candidates": candidates}
    values = {name: tuple(v for v in each if v <= most.get(name, v)) for name, each in sweep.values.items()}
    middle = dataclasses.replace(
        sweep.middle, threads=max(values["threads"]), candidates=min(sweep.middle.candidates, candidates)
    )
    return Sweep(middle, values)


if __name__ == "__main__":
    launch(main)
