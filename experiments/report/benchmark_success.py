"""Success against planning time, from a result of the study `success_curve`: its command and its tables."""

from __future__ import annotations

from collections.abc import Callable

from wm.experiments.goals import DEVELOPMENT
from wm.experiments.report.benchmark_tables import Result, command, listed, markdown, named, on_machine
from wm.experiments.studies.success_numbers import AUTO, EQUAL, FASTER, GRADIENT_LOSS, GRADIENT_SHARE
from wm.experiments.studies.success_settings import chosen


def success_command(folder: str, model: str | None = None) -> Callable[[Result], str]:
    """Of the folder's study, with a model that is not its usual one."""

    def of(result: Result) -> str:
        options = {} if model is None else {"model": model}
        options |= {name: result[name] for name in ("episodes", "seed", "workers")}
        return command("success_curve", options | named(result, chosen(None)), folder)

    return of


def success(result: Result) -> list[str]:
    """Searches beside CEM 300×30, the quickest first."""
    rows = []
    for name, row in sorted(result["settings"].items(), key=lambda item: item[1]["plan_ms_p50"]):
        beside = row.get("beside_reference")
        ratios = [(beside or {}).get(f"times_faster{of}") for of in ("", "_mean")]  # files made earlier lack the second
        faster = ["" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
        apart = None if beside is None else (beside["difference"], *beside["ci95"])
        rows.append([*_search(name, row, apart), *faster])
    said = [f"{_goals(result)} The quickest search first."]
    good = result["answers"]["as_good_and_faster"]
    if good is not None:
        said.append(
            f"Within {100 * EQUAL:g} points of CEM 300×30 (the estimate, whatever its interval) at 1/{FASTER:g} of its "
            f"mean time: {listed(good)}."
        )
    said += _gradients(result["answers"]["gradient"])
    lines = on_machine(result, " ".join([*said, *_effort(result["answers"])]))
    columns = ["search", "episodes", "success %", "95 %", "points beside CEM 300×30", "95 % of that"]
    times = ["ms a picture", "ms a replan (median)", "mean", "times faster (median)", "mean"]
    return [*lines, *markdown([*columns, *times], rows)]


def _goals(result: Result) -> str:
    """Whose they are: searches may have been chosen on those of a development seed."""
    whose = "Development" if result["seed"] >= DEVELOPMENT else "Test"
    return (
        f"{whose} seed {result['seed']}'s goals; episodes at once: {result['workers']}. Searches take turns goal by "
        "goal, but for one that is added later. A picture is the same work in each: where its time differs, so did the "
        "machine's rate."
    )


def _gradients(found: Result) -> list[str]:
    """Which searches by gradients alone are as good as a CEM, a sentence for each CEM."""
    said = []
    for cem, rows in found.items():
        good = [f"{name} (at {row['time_share']:.3f})" for name, row in rows.items() if row["passed"]]
        near = f"within {100 * GRADIENT_LOSS:g} points of {cem} at 1/{1 / GRADIENT_SHARE:g} of its mean time"
        if rows:
            said.append(f"By gradients alone {near}: {listed(good)}.")
    return said


def _effort(answers: Result) -> list[str]:
    """Whether what thinks as long as it pays does, in sentences."""
    follows, beside = answers["effort_follows"].get(AUTO), answers["auto_beside_fixed"]
    said = []
    if follows is not None:
        found = {"the goal's energy": follows["energy"], "the true distance": follows["distance"]}
        found |= {"the steps still needed": follows["steps"]}
        numbers = ", ".join(f"{name} {value:+.2f}" for name, value in found.items() if value is not None)
        said.append(f"Rank correlation of the candidates that {AUTO} spends on a plan with {numbers}.")
    if beside is not None:
        better = listed(beside["dominated_by"])
        said.append(f"As successful in no more time than {AUTO}: {better}.")
        said.append(f"Most success for a millisecond, of fixed effort: {beside['best_fixed_points_per_ms']}.")
    return said


def beside_auto(result: Result) -> list[str]:
    """Searches of fixed effort beside `AUTO`, the quickest first."""
    beside, rows = result["answers"]["auto_beside_fixed"]["beside"], []
    for name, row in sorted(result["settings"].items(), key=lambda item: item[1]["plan_ms_mean"]):
        ahead, apart = beside.get(name), None
        if ahead is not None:  # the other way round: what the search has more than auto
            low, high = ahead["ci95"]
            apart = (-ahead["difference"], -high, -low)
        rows.append([*_search(name, row, apart), "1.00" if ahead is None else f"{1 / ahead['time']:.2f}"])
    said = [f"{_goals(result)} By mean time."]
    columns = ["search", "episodes", "success %", "95 %", f"points beside {AUTO}", "95 % of that"]
    times = ["ms a picture", "ms a replan (median)", "mean", f"mean beside {AUTO}'s"]
    return [
        *on_machine(result, " ".join([*said, *_effort(result["answers"])])),
        *markdown([*columns, *times], rows),
    ]


def _search(name: str, row: Result, apart: tuple[float, float, float] | None) -> list[str]:
    """A search's success, its difference to another with the interval's ends, and its times."""
    interval = "{:.1f} to {:.1f}".format(*(100 * bound for bound in row["success_ci95"]))
    beside = ["", ""] if apart is None else [f"{100 * apart[0]:+.1f}", _span(*apart[1:])]
    times = [f"{row[key]:.1f}" for key in ("observe_ms_p50", "plan_ms_p50", "plan_ms_mean")]
    return [name, str(row["episodes"]), f"{100 * row['success']:.1f}", interval, *beside, *times]


def _span(low: float, high: float) -> str:
    """An interval of a difference, in points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"
