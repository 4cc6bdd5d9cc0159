"""The encoder study's figures, read from its rows, and the rule by which an encoder wins."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from wm.envs.pusht.shifts import SHIFTS
from wm.experiments.interval import wilson
from wm.experiments.studies.encoders_candidates import CONTROLS, Study
from wm.experiments.studies.encoders_models import FORMS, USUAL, Goals, Plan, Trained
from wm.experiments.studies.rows import Rows

ROLLOUT_STEPS = 4
"""Latent steps ahead at which the rollout's error is told."""

RESAMPLES = 2000
"""Of goals and seeds, for a bootstrap interval."""

Condition = tuple[str, int, str]
"""A form, a number of logs, and a look."""

RULE = (
    "Of the objectives whose success on the most logs is not below the best one's (their 95 % intervals overlap), the "
    "one with the highest mean of four success rates: on the fewest logs, and under each of the three shifts."
)


@dataclass(frozen=True)
class Success:
    """What became of the goals.

    Attributes:
        reached: Whether a goal was reached, by its index, of each training seed; at least one goal of each. All seeds
            play the same goals.
    """

    reached: Mapping[int, Mapping[int, bool]]

    @cached_property
    def rate(self) -> float:
        """Share that was reached, of all seeds together."""
        return statistics.fmean(each for goals in self.reached.values() for each in goals.values())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 %: of one seed Wilson's; of several the percentile bootstrap's over goals and seeds.

        The seeds' outcomes on a goal are not independent, nor are a seed's on its goals: goals and seeds are both drawn
        anew (Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1:386-411; of few seeds it is rough).
        Where all were reached, or none, which a bootstrap takes for certain, Wilson's with as many trials as goals.
        """
        goals = sorted({index for goals in self.reached.values() for index in goals})
        if len(self.reached) == 1 or self.rate in (0.0, 1.0):
            return wilson(round(self.rate * len(goals)), len(goals))
        table = np.array([[seed.get(goal, np.nan) for goal in goals] for seed in self.reached.values()], float)
        rng, played = np.random.default_rng(0), ~np.isnan(table)
        seeds, drawn = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float) for n in table.shape)
        reached, trials = (np.sum(seeds @ of * drawn, axis=1) for of in (np.nan_to_num(table), played))
        low, high = np.quantile((reached / np.maximum(trials, 1))[trials > 0], [0.025, 0.975])
        return float(low), float(high)


@dataclass
class Figures:
    """Of an encoder.

    Attributes:
        seeds: Of the models that are there.
        success: By condition; what has not been played is not in it.
        probe_r2: Mean over the true state's numbers, by form at the middle number of logs; mean over seeds.
        rollout: Error after `ROLLOUT_STEPS` as a share of copying's, likewise.
        frames_per_s: Of the encoder; the median of its seeds.
        collapsed: Seeds whose features the monitors of `wm pretrain` call collapsed.
    """

    seeds: set[int] = field(default_factory=set)
    success: dict[Condition, Success] = field(default_factory=dict)
    probe_r2: dict[str, float] = field(default_factory=dict)
    rollout: dict[str, float] = field(default_factory=dict)
    frames_per_s: float | None = None
    collapsed: list[int] = field(default_factory=list)


def conditions(plan: Plan) -> Iterator[Condition]:
    """All that the study measures of an encoder."""
    for form in plan.forms:
        for count in plan.episodes if form == FORMS[0] else [plan.middle]:
            model = Trained("", 0, form, count)
            yield from ((form, count, look) for look in plan.looks(model))


def collect(study: Study, plan: Plan, goals: Goals) -> dict[str, Figures]:
    """Figures of the plan's encoders, of every seed that is there; one of which there is nothing is left out.

    Raises:
        BadInputError: a file of rows that is none.
        MismatchError: a model is of another encoder than the present one of that name.
    """
    found = {name: _figures(study, plan, goals, name) for name in plan.names}
    return {name: each for name, each in found.items() if each.seeds or each.frames_per_s is not None}


def _figures(study: Study, plan: Plan, goals: Goals, name: str) -> Figures:
    figures, seeds = Figures(), _seeds(study, name)
    models = {(form, count) for form, count, _ in conditions(plan)} | {(form, plan.middle) for form in plan.forms}
    for seed, (form, count) in itertools.product(seeds, models):
        Trained(name, seed, form, count).require_encoder(study)
    for form, count, look in conditions(plan):
        reached = {}
        for seed in seeds:
            path = goals.folder(study, Trained(name, seed, form, count), look) / "episodes.jsonl"
            if path.exists() and (rows := Rows(path).first(goals.count)):
                reached[seed] = {row["index"]: row["reached"] for row in rows}
        if reached:
            figures.success[form, count, look] = Success(reached)
            figures.seeds |= reached.keys()
    for form in plan.forms:
        paths = [Trained(name, seed, form, plan.middle).folder(study) / "report.json" for seed in seeds]
        reports = [json.loads(path.read_text()) for path in paths if path.exists()]
        if reports:
            scores = [statistics.fmean(each["r2"] for each in report["probe"].values()) for report in reports]
            figures.probe_r2[form] = statistics.fmean(scores)
            errors = [report["share_of_copy"][ROLLOUT_STEPS - 1] for report in reports]
            figures.rollout[form] = statistics.fmean(errors)
    return _of_encoder(study, name, seeds, figures)


def _of_encoder(study: Study, name: str, seeds: list[int], figures: Figures) -> Figures:
    rates = [study.folder(name, seed) / "rate.json" for seed in seeds]
    known = [json.loads(path.read_text())["frames_per_s"] for path in rates if path.exists()]
    figures.frames_per_s = statistics.median(known) if known else None
    for seed in seeds:
        path = study.folder(name, seed) / "monitors.json"
        if path.exists() and json.loads(path.read_text())["collapsed"]:
            figures.collapsed.append(seed)
    return figures


def _seeds(study: Study, name: str) -> list[int]:
    """Of an encoder, those that there is an encoder or a model of."""
    paths = [*study.folder(name, 0).parent.glob(f"{name}-*"), *(study.out / "models").glob(f"{name}-*")]
    ends = {path.name.removeprefix(f"{name}-") for path in paths}
    return sorted(int(end) for end in ends if end.isdigit())


def deciding(plan: Plan) -> list[Condition]:
    """What the winner's score is the mean of: few logs, and the shifts."""
    few = (FORMS[0], min(plan.episodes), USUAL)
    return [few, *((FORMS[0], plan.middle, shift) for shift in SHIFTS)]


def scores(found: Mapping[str, Figures], plan: Plan) -> dict[str, float]:
    """By `RULE`, of the objectives that may win, the highest first.

    One that lacks a deciding figure, or success on the most logs, is not among them.
    """
    most, wanted = (FORMS[0], max(plan.episodes), USUAL), deciding(plan)
    whole = {
        name: each.success
        for name, each in found.items()
        if name not in CONTROLS and {most, *wanted} <= each.success.keys()
    }
    if not whole:
        return {}
    best = max((each[most] for each in whole.values()), key=lambda success: success.rate)
    able = {name: each for name, each in whole.items() if each[most].interval[1] >= best.interval[0]}
    marks = {name: statistics.fmean(each[one].rate for one in wanted) for name, each in able.items()}
    return dict(sorted(marks.items(), key=lambda item: -item[1]))


def beside(ours: Success, theirs: Success) -> str:
    """``"above"`` or ``"below"`` where the intervals are apart; else ``"not apart"``."""
    if ours.interval[0] > theirs.interval[1]:
        return "above"
    return "below" if ours.interval[1] < theirs.interval[0] else "not apart"
