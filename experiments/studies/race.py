"""Two ways to the same answer, timed in turn, beside what this machine can multiply."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from wm.errors import BadInputError
from wm.linear import linear

CPUINFO = Path("/proc/cpuinfo")


def alternate(arms: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each arm, `runs` times in turn, so that a machine that slows down slows both.

    Raises:
        BadInputError: no run.
    """
    if runs < 1:
        raise BadInputError(f"--runs: expected >= 1, came {runs}.")
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(runs):
        for name, work in arms.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: Mapping[str, list[float]], gigaflop: Mapping[str, float]) -> dict[str, Any]:
    """Medians of both arms, theirs over ours, and the arithmetic that each achieved.

    Args:
        seconds: Of the arms ``theirs`` and ``ours``, run by run.
        gigaflop: What each has to compute, 10^9 multiplications and additions.
    """
    arms = dict[str, Any]()
    for name, each in seconds.items():
        rate = gigaflop[name] / statistics.median(each)
        arms[name] = {
            "median_s": statistics.median(each),
            "min_s": min(each),
            "max_s": max(each),
            "gflop": gigaflop[name],
            "gflop_per_s": rate,
        }
    ratios = [theirs / ours for theirs, ours in zip(seconds["theirs"], seconds["ours"], strict=True)]
    return arms | {
        "ratio": statistics.median(seconds["theirs"]) / statistics.median(seconds["ours"]),
        "ratio_of_each_run": ratios,
        "gflop_ratio": gigaflop["theirs"] / gigaflop["ours"],
    }


def gemm_rates(rows: int, inner: int, columns: int, runs: int = 9) -> dict[str, float]:
    """fp32 GFLOP/s of a product ``(rows, inner) @ (inner, columns)``: torch's own, and `wm.linear`'s."""
    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    gigaflop = 2e-9 * rows * inner * columns
    works = {"torch.mm": lambda: torch.mm(left, right.T), "wm.linear": lambda: linear(left, right)}
    alternate(works, 2)
    return {name: gigaflop / statistics.median(each) for name, each in alternate(works, runs).items()}


def machine(threads: int) -> dict[str, Any]:
    """Set torch's threads, and say what the figures were measured on."""
    torch.set_num_threads(threads)
    return {
        "processor": processor(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }


def processor() -> str:
    """Its name as it gives it, where it does, and the widest instructions that torch uses of it."""
    lines = CPUINFO.read_text(errors="replace").splitlines() if CPUINFO.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(named, "") or platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
