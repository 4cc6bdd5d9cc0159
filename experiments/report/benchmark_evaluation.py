"""Success on held-out goals and the time of a replan, from the metrics of `wm eval`, beside what they are to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wm.experiments.goals import DEVELOPMENT
from wm.experiments.report.benchmark_tables import Result, markdown


@dataclass(frozen=True)
class Bar:
    """What an evaluation is to reach.

    Attributes:
        episodes: At least so many.
        plan_ms: At most, the median of a replan.
        success: At least; None: it is judged by its time alone.
    """

    episodes: int
    plan_ms: float
    success: float | None = None

    def __str__(self) -> str:
        success = "" if self.success is None else f"at least {100 * self.success:g} % and "
        return f"{success}at most {self.plan_ms:,.0f} ms a replan (median), of at least {self.episodes} episodes"

    def met(self, result: Result) -> bool:
        """By these metrics."""
        good = self.success is None or result["success_rate"] >= self.success
        return bool(good and result["episodes"] >= self.episodes and result["plan_ms_p50"] <= self.plan_ms)


PUSHT_BAR = Bar(episodes=600, plan_ms=100.0, success=0.96)
PATCH_BAR = Bar(episodes=100, plan_ms=1500.0)


def evaluation_command(folder: str) -> Callable[[Result], str]:
    """What filled the folder of the bench folder."""

    def of(result: Result) -> str:
        config = result["config"]
        options = {"env": config["env"], "model": config["model"]["name"], "planner": config["planner"]["name"]}
        if config["think"] is not None:
            options["think"] = config["think"]
        if "screen" in config:
            options["screen"] = config["screen"]["name"]
        options |= {"episodes": result["episodes"], "seed": config["seed"], "threads": config["threads"]}
        words = " ".join(f"--{name} {value}" for name, value in options.items())
        return f"wm eval {words} --no-baselines --out bench/{folder}"

    return of


def evaluation(bar: Bar) -> Callable[[Result], list[str]]:
    """Its lines of the page."""

    def of(result: Result) -> list[str]:
        config = result["config"]
        whose = "development" if config["seed"] >= DEVELOPMENT else "test"
        low, high = (100 * bound for bound in result["success_ci95"])
        times = [f"{result[key]:,.1f}" for key in ("observe_ms_p50", "plan_ms_p50", "plan_ms_p95")]
        figures = [str(result["episodes"]), f"{100 * result['success_rate']:.1f}", f"{low:.1f} to {high:.1f}", *times]
        columns = ["model", "episodes", "success %", "95 %", "ms a picture", "ms a replan (median)", "95th percentile"]
        about = f"{result['processor']}, torch {config['versions']['torch']}, threads of torch: {config['threads']}."
        goals = f"Goals of {whose} seed {config['seed']}, {config['goal_offset']} control steps ahead, within "
        judged = f"To reach: {bar}: {'met' if bar.met(result) else '**missed**'}."
        return [
            f"{about} {goals}{config['budget_steps']}. {judged}",
            "",
            *markdown(columns, [[config["model"]["name"], *figures]]),
        ]

    return of
